"""docs/reading.md names the files that a load miss and a munmap go through, and these only grow
fewer."""

import re

from tests.docs.pages import ROOT
from tests.walks import walks

FILES = {"load": 39, "munmap": 45}
FUNCTIONS = {"load": 187, "munmap": 186}
"""Most that a reader has to go through."""


def test_a_walk_through_the_house_gets_no_longer() -> None:
    for name, walk in walks().items():
        files = {file for file, _ in walk}
        assert (len(files) <= FILES[name], len(walk) <= FUNCTIONS[name]) == (True, True), (
            f"{name}: {len(walk)} functions in {len(files)} files"
        )


def test_the_page_names_every_file_of_both_walks() -> None:
    page = (ROOT / "docs" / "reading.md").read_text()
    comes, goes = page.partition("## A page is taken away")[::2]
    files = {name: {file for file, _ in walk} for name, walk in walks().items()}
    named = set(re.findall(r"`([\w/]+\.py)`", comes))
    assert files["load"] - named == set()
    assert files["munmap"] - named - set(re.findall(r"`([\w/]+\.py)`", goes)) == set()
