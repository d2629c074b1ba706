"""Memory that was freed goes back to the system."""

import asyncio
import ctypes
from collections.abc import Callable
from typing import cast
from unittest.mock import Mock, patch

import psutil

from xpmem_emu.live.heap import Giving, give_back

PIECE, PIECES = 64 << 10, 800
"""Too small to be mapped each by itself; fifty MiB together."""


def test_pages_that_are_free_leave_the_process() -> None:
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.free.argtypes = [ctypes.c_void_p]
    pieces = [libc.malloc(PIECE) for _ in range(PIECES)]
    for one in pieces:
        ctypes.memset(one, 1, PIECE)
    *most, last = pieces
    for one in most:
        libc.free(one)
    before = psutil.Process().memory_info().rss
    give_back()
    assert before - psutil.Process().memory_info().rss > PIECE * PIECES // 2
    libc.free(last)


class Loop:
    """Remembers what is to be called, and when."""

    def __init__(self) -> None:
        self.pending: list[tuple[float, Callable[[], None]]] = []

    def call_later(self, delay: float, call: Callable[[], None]) -> Mock:
        self.pending.append((delay, call))
        return Mock()

    def turn(self) -> float:
        delay, call = self.pending.pop()
        call()
        return delay


def test_it_is_done_soon_after_somebody_went_and_once_more_when_all_is_over() -> None:
    loop = Loop()
    giving = Giving(cast(asyncio.AbstractEventLoop, loop))
    with patch("xpmem_emu.live.heap.give_back") as given:
        giving.soon()
        giving.soon()
        assert [loop.turn(), loop.turn()] == [1.0, 9.0]
        assert given.call_count == 2
        assert not loop.pending
        giving.soon()
        assert loop.turn() == 1.0
        giving.soon()  # the next time counts for those who go now as well
        assert [loop.turn(), loop.turn()] == [9.0, 9.0]
        assert not loop.pending
