"""Whatever code, tests and pages cite of the historical systems is in docs/sources.md."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "sources.md"
FOLDERS = ("xpmem_emu", "tests", "bench", "partitions", "models", "docs")
KEY = r"(?:T\d+|\d+\.\d+)"
CITATION = re.compile(rf"\b[Ss]ources(?: |\.md#)({KEY}(?:(?:, | and | to ){KEY})*)")
OTHERWISE = re.compile(r"\bT\d{1,2}\b|\b[Ff]acts \d|\bdesign page\b")
"""An entry that is named without saying where it is, or said to be elsewhere."""
ENTRY = re.compile(r'^### <a id="(.+?)"></a>(\S+) .+\n\n((?:(?!^##).*\n)+)', re.MULTILINE)
ORIGIN = re.compile(r"\*[^*|]+\*\s*$")
HERE = re.compile(r"^Here: ", re.MULTILINE)


def texts() -> Iterator[tuple[str, str]]:
    """Every text that may cite, on one line each, without the marks of comments."""
    paths = [path for each in FOLDERS for path in sorted((ROOT / each).rglob("*"))]
    for path in [*paths, *ROOT.glob("*.md")]:
        if path.suffix in (".py", ".md", ".toml", ".txt", ".pml") and path != Path(__file__):
            yield str(path.relative_to(ROOT)), flat(path.read_text())


def flat(text: str) -> str:
    return re.sub(r"\s*\n[\s#*]*", " ", text)


def cited(text: str) -> set[str]:
    return {key for found in CITATION.findall(text) for key in re.findall(KEY, found)}


def entries() -> dict[str, str]:
    return {anchor: text for anchor, _, text in ENTRY.findall(PAGE.read_text())}


def unresolved(text: str) -> set[str]:
    return cited(text) - entries().keys()


def otherwise(text: str) -> list[str]:
    return OTHERWISE.findall(CITATION.sub("", text))


def test_every_citation_has_its_entry() -> None:
    found = {name: cited(text) for name, text in texts()}
    assert len(set().union(*found.values())) > 40, "the search for citations finds them"
    assert {name: bad for name, keys in found.items() if (bad := keys - entries().keys())} == {}


def test_there_is_one_way_to_cite() -> None:
    found = {name: otherwise(text) for name, text in texts() if name != "docs/sources.md"}
    assert {name: bad for name, bad in found.items() if bad} == {}


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("as sources T12 says", set()),
        ("(sources T98)", {"T98"}),
        ("# (sources T12,\n# T99): why", {"T99"}),
        ("Sources 1.4 and 1.99", {"1.99"}),
        ("(sources 1.4 to 1.77)", {"1.77"}),
        ("[why](docs/sources.md#T97)", {"T97"}),
    ],
)
def test_a_citation_without_an_entry_is_seen(text: str, missing: set[str]) -> None:
    assert unresolved(flat(text)) == missing


@pytest.mark.parametrize("text", ["(T12)", "facts 1.4", "Facts 1.4", "as design page 3 says"])
def test_another_way_to_cite_is_seen(text: str) -> None:
    assert otherwise(text)


def test_every_entry_says_where_it_comes_from_and_is_in_the_contents() -> None:
    page = PAGE.read_text()
    contents = page[: page.index("## <a")]
    for anchor, number, text in ENTRY.findall(page):
        assert anchor == number
        assert ORIGIN.search(text) or HERE.search(text), f"{anchor} comes from nowhere"
        assert f"[{anchor}](#{anchor})" in contents


def test_every_link_within_the_page_leads_somewhere() -> None:
    page = PAGE.read_text()
    assert set(re.findall(r"\(#(.+?)\)", page)) <= set(re.findall(r'id="(.+?)"', page))
