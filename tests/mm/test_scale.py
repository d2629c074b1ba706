"""Ten thousand pages cost vectors, not loops: counted in Python calls, which do not jitter."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import numpy as np
import pytest

from xpmem_emu.mm import (
    VmaFlags,
    create_file,
    fork,
    load,
    migrate_range,
    munmap,
    pin_pages,
    reclaim_range,
    store,
    unpin_pages,
    writeback,
)
from xpmem_emu.mm.truncate import truncate
from xpmem_emu.units import PAGE_SIZE

from .rig import Client, MakeRig, Rig

PAGES = 10_000
SIZE = PAGES * PAGE_SIZE


@contextmanager
def fewer_calls_than(limit: int) -> Iterator[None]:
    count = 0

    def profile(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(profile)
    try:
        yield
    finally:
        sys.setprofile(None)
    assert 0 < count < limit


@pytest.fixture
def big(make_rig: Callable[..., Rig]) -> Rig:
    np.unique(np.zeros(1))  # its first call imports half of numpy: not in the middle of a count
    return unaudited(make_rig(frames=2 * PAGES + 512, swap=PAGES))


def unaudited(rig: Rig) -> Rig:
    rig.audits = False
    return rig


def test_private_memory_is_filled_forked_copied_and_unmapped_in_vectors(big: Rig) -> None:
    mm = big.space()
    at = big.map(mm, PAGES)
    with fewer_calls_than(PAGES):
        big.run(store(mm, at, bytes(SIZE)))
    with fewer_calls_than(PAGES):
        child = big.run(fork(mm, 2))
    Client(big).attach(mm)
    with fewer_calls_than(PAGES):
        big.run(store(mm, at, b"\1" * SIZE))
    with fewer_calls_than(PAGES):
        big.run(munmap(mm, at, SIZE))
    assert big.run(load(child, at, SIZE)) == bytes(SIZE)


def test_pages_are_pinned_swapped_and_moved_in_vectors(big: Rig) -> None:
    mm = big.space()
    at = big.map(mm, PAGES)
    with fewer_calls_than(PAGES):
        (run,) = big.run(pin_pages(mm, at >> 12, PAGES, at >> 12))
    unpin_pages(big.memory, run.frames)
    big.run(store(mm, at, b"\2" * SIZE))
    with fewer_calls_than(PAGES):
        assert big.run(migrate_range(mm, at, SIZE)) == PAGES
    with fewer_calls_than(3 * PAGES):  # others have their turn after each batch, so those are small
        assert big.run(reclaim_range(mm, at, SIZE, PAGES)) == PAGES
    with fewer_calls_than(PAGES):
        assert big.run(load(mm, at, SIZE)) == b"\2" * SIZE


def test_file_pages_are_written_back_and_truncated_in_vectors(make_rig: MakeRig) -> None:
    rig = unaudited(make_rig(frames=PAGES // 16))
    mm, inode = rig.space(), create_file(rig.memory, "f", 512 * PAGE_SIZE)
    at = rig.map(mm, 512, inode=inode, flags=VmaFlags.SHARED)
    with fewer_calls_than(512):
        rig.run(store(mm, at, b"\3" * 512 * PAGE_SIZE))
    with fewer_calls_than(512):
        assert rig.run(writeback(rig.memory, inode)) == 512
    with fewer_calls_than(512):
        rig.run(truncate(rig.memory, inode, 0))
    assert mm.rss == 0
