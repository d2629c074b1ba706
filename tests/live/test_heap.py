"""Memory that was freed goes back to the system."""

import ctypes

import psutil

from xpmem_emu.live.heap import give_back

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
