"""Every invariant is declared once, has a judge, and whoever names one means one that there is."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.test_sources import texts
from xpmem_emu.docs.judges import fill_judges_page
from xpmem_emu.image import Image
from xpmem_emu.judge.checkers import judges
from xpmem_emu.judge.checkers.pins import Pins
from xpmem_emu.judge.invariants import Invariant, Judge
from xpmem_emu.judge.scene import Scene

ROOT = Path(__file__).resolve().parents[2]
SELF = str(Path(__file__).resolve().relative_to(ROOT))
NAMED = re.compile(r"\b(?:[SL]\d{1,2}|D\d)\b")
OTHERS = {"S64", "L0", "D0", "D2"}
"""What looks like one and is none: a type, the place that SVG draws a line to, domains."""


def elsewhere() -> Iterator[tuple[str, str]]:
    """All texts but this one and the history, which may name what is no more."""
    return (each for each in texts() if each[0] not in (SELF, "CHANGELOG.md"))


def named(text: str) -> set[str]:
    return set(NAMED.findall(text))


def unknown(text: str) -> set[str]:
    return named(text) - set(Invariant) - OTHERS


def repeated(text: str) -> list[str]:
    """Invariants whose number stands beside their label: that is said in one place."""
    return [
        str(each)
        for each in Invariant
        if f"{each} {each.label}" in text or f"{each.label} ({each})" in text
    ]


def test_whoever_names_an_invariant_means_one() -> None:
    found = {name: unknown(text) for name, text in elsewhere()}
    assert {name: bad for name, bad in found.items() if bad} == {}


@pytest.mark.parametrize("text", ["as S90 says", "(L90)", "# S3, S99"])
def test_an_invariant_that_there_is_not_is_seen(text: str) -> None:
    assert unknown(text)


def test_every_invariant_has_a_judge() -> None:
    judged = {each for judge in judges() for each in judge.invariants}
    assert set(Invariant) - judged == set()


def test_an_invariant_without_a_judge_is_seen() -> None:
    few = [judge for judge in judges() if Invariant.L7 not in judge.invariants]
    assert set(Invariant) - {each for judge in few for each in judge.invariants} == {Invariant.L7}


def test_every_judge_says_who_it_is_and_what_it_looks_at() -> None:
    names = Counter(judge.name for judge in judges())
    assert [name for name, count in names.items() if count > 1] == []
    assert [judge for judge in judges() if not (judge.looks_at and judge.invariants)] == []


def test_a_judge_reports_what_it_judges_and_nothing_else() -> None:
    pins = Pins(Scene(Image()))
    pins.report(Invariant.S3, 0, "pinned twice")
    with pytest.raises(AssertionError, match="does not judge S1"):
        pins.report(Invariant.S1, 0, "stale")
    assert [each.invariant for each in pins.scene.violations] == ["S3"]


def test_what_an_invariant_means_is_said_once() -> None:
    found = {name: repeated(text) for name, text in elsewhere()}
    assert {name: bad for name, bad in found.items() if bad} == {}
    assert repeated("S3 pins balance: ...") == ["S3"]


def test_every_invariant_is_on_the_page() -> None:
    page = (ROOT / "docs" / "simulation.md").read_text()
    assert all(f"| {each} | {each.label} |" in page for each in Invariant)


def test_a_judge_that_is_not_on_the_page_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "simulation.md").read_text()
    more = [*judges(), Judge("another", (Invariant.S1,), "everything")]
    monkeypatch.setattr("xpmem_emu.docs.judges.judges", lambda: more)
    assert fill_judges_page(page) != page
