"""What a story does to several processes at once, over clients that are played."""

import errno
from dataclasses import dataclass, field

import pytest

from tests.client.test_cluster_injections import Board, cluster
from xpmem_emu.backend.live_backend import LiveBackend
from xpmem_emu.image import Image


@dataclass(frozen=True)
class Wanted:
    partitions: tuple[str, ...] = ("p0", "p1", "p2")
    domains: tuple[str, ...] = ("A", "A", "A")
    image: Image = field(default_factory=Image)


def backend(monkeypatch: pytest.MonkeyPatch, *boards: Board) -> LiveBackend:
    """One whose partitions have these faults."""
    made = LiveBackend(Wanted(), 0)
    monkeypatch.setattr(LiveBackend, "running", list(Wanted.partitions))
    monkeypatch.setattr(made, "_clients", cluster(*boards))
    return made


def test_a_story_puts_a_fault_up_where_it_concerns_somebody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    boards = Board(), Board(), Board()
    backend(monkeypatch, *boards).put_up("link p1->p2 drop --name lossy")
    assert [board.up for board in boards] == [[], ["lossy"], []]


def test_a_story_puts_a_fault_up_everywhere_or_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    boards = Board(), Board(), Board(errno.ENOSPC)
    with pytest.raises(OSError, match="not here"):
        backend(monkeypatch, *boards).put_up("drop --prob 0")
    assert [board.up for board in boards] == [[], [], []]
