"""Clients and partitions that are killed while many work: a few of them. `make crowd` does more."""

import pytest

from .many_clients import NAMES, OWN_MORE_MAX, Amount, Figures, grown, many_clients

pytestmark = pytest.mark.live

FEW = Amount(processes=2, threads=4, segments=60, attachments=300)
SECONDS = 4.0


@pytest.mark.timeout(200)
def test_what_dies_leaves_nothing() -> None:
    print(f"again: python -m tests.live.many_clients --seconds {SECONDS:g} --seed 1")
    tally = many_clients(SECONDS, 1, FEW, print)
    assert tally.killed_partitions >= 1
    assert tally.killed_clients >= 2
    assert tally.calls > 50
    assert tally.full.tables["segments"] >= FEW.segments
    assert tally.full.tables["attachments"] >= FEW.attachments


def figures(
    files: int = 40, own: int = 50 << 20, threads: int = 4, tasks: int = 0, places: int = 26
) -> Figures:
    return Figures(
        dict.fromkeys(NAMES, files),
        dict.fromkeys(NAMES, own),
        dict.fromkeys(NAMES, threads),
        {"tasks": tasks},
        places,
    )


@pytest.mark.parametrize(
    "more", [{"files": 50}, {"threads": 9}, {"tasks": 1}, {"places": 27}], ids=str
)
def test_what_is_left_is_seen(more: dict[str, int]) -> None:
    assert grown(figures(), figures(), files=True) == []
    assert grown(figures(), figures(**more), files=True)


def test_memory_that_grew_is_seen() -> None:
    assert grown(figures(), figures(own=60 << 20)) == []
    assert len(grown(figures(), figures(own=(51 << 20) + OWN_MORE_MAX))) == len(NAMES)
