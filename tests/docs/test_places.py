"""A module that a page or a comment names is there: who follows the name must find it."""

import re
from pathlib import Path

import pytest

from tests.docs.test_sources import texts

ROOT = Path(__file__).resolve().parents[2]
SELF = str(Path(__file__).resolve().relative_to(ROOT))
NAMED = re.compile(r"(?<![\w./$-])((?:[\w-]+/)*[\w-]+\.py)(?![\w(])")
ELSEWHERE = {"click.py", "a.py"}
"""Of others, or made up by a test."""


def files() -> set[str]:
    return {
        str(path.relative_to(ROOT))
        for path in ROOT.rglob("*.py")
        if not {".git", ".venv"} & set(path.parts)
    }


def lost(text: str, there: set[str]) -> list[str]:
    """Modules that are named, by the end of their path, and are not there."""
    return [
        named
        for named in sorted(set(NAMED.findall(text)) - ELSEWHERE)
        if not any(f"/{path}".endswith(f"/{named}") for path in there)
    ]


def test_every_module_that_is_named_is_there() -> None:
    there = files()
    found = {name: lost(text, there) for name, text in texts() if name != SELF}
    assert {name: bad for name, bad in found.items() if bad} == {}


@pytest.mark.parametrize("text", ["`xpmem/no_such.py`", "(no_such.py)", "see no_such.py."])
def test_a_module_that_is_not_there_is_seen(text: str) -> None:
    assert lost(text, files())
