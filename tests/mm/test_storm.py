"""Everything at once, in random order: tasks, an importer, reclaim, migration, fork, writeback.

Every writer owns one byte of each page and knows what it last wrote there. The importer writes
straight into the frames it pinned, as another partition would, until its notifier's sync returns.
Whoever loses a byte, shows a stranger's page or frees a frame too early is found out.
"""

import errno
import random
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xpmem_emu.errors import KernelError
from xpmem_emu.mm import (
    Inode,
    VmaFlags,
    create_file,
    exit_mmap,
    fork,
    load,
    migrate_range,
    mprotect,
    pin_pages,
    reclaim,
    reclaim_range,
    store,
    unpin_pages,
    writeback,
    zap_page_range,
)
from xpmem_emu.mm.extents import Frames
from xpmem_emu.units import PAGE_SIZE

from .conftest import finish
from .rig import RW, Outcome, Rig

PAGES = 12
STEPS = 25
IMPORTER = 9
"""The byte of each page that the importer owns."""


class Storm:
    """One address space and its weather."""

    def __init__(self, seed: int, backing: str) -> None:
        self.random = random.Random(seed)
        self.rig = Rig(frames=self.random.choice((20, 28, 48)), swap=64)
        self.rig.scheduler.pick = self.random.randrange
        self.mm = self.rig.space()
        self.inode: Inode | None = None
        if backing == "file":
            self.inode = create_file(self.rig.memory, "f", PAGES * PAGE_SIZE)
        flags = VmaFlags.SHARED if backing == "file" else VmaFlags.NONE
        self.at = self.rig.map(self.mm, PAGES, inode=self.inode, flags=flags)
        self.held: dict[int, Frames] = {}
        """The importer's frames by page."""
        self.expected: dict[tuple[int, int], int] = {}
        """(page, byte) -> value."""
        self.mm.notifiers.register(self)

    def page(self) -> int:
        return self.random.randrange(PAGES)

    def value(self, page: int, byte: int) -> int:
        value = self.random.randrange(1, 256)
        self.expected[page, byte] = value
        return value

    # -- the notifier ------------------------------------------------------------------------

    def invalidate_range(self, start: int, end: int) -> None:
        """The importer has not heard of it yet."""

    def invalidate_special(self, start: int, end: int) -> None:
        raise AssertionError("there are no foreign frames here")

    def watches(self, start: int, end: int) -> bool:
        raise AssertionError("that is another design")

    async def invalidate_range_start(self, start: int, end: int) -> None:
        raise AssertionError("that is another design")

    def invalidate_pages(self, start: int, end: int) -> None:
        raise AssertionError("that is another design")

    async def invalidate_range_sync(self, start: int, end: int) -> None:
        while self.random.random() < 0.6:
            await self.rig.scheduler.reschedule()
        for page in range((start - self.at) // PAGE_SIZE, (end - self.at) // PAGE_SIZE):
            self.drop(page)

    async def invalidate_range_end(self, start: int, end: int) -> None:
        await self.rig.scheduler.reschedule()

    async def release(self) -> None:
        for page in list(self.held):
            self.drop(page)

    def drop(self, page: int) -> None:
        frames = self.held.pop(page, None)
        if frames is not None:
            unpin_pages(self.rig.memory, frames)

    # -- the threads -------------------------------------------------------------------------

    async def importer(self) -> None:
        for _ in range(2 * STEPS):
            page = self.page()
            if page not in self.held:
                first = self.at // PAGE_SIZE + page
                (run,) = await pin_pages(self.mm, first, 1, first)
                self.held[page] = run.frames
            bytes_ = self.rig.memory.frames.pages[self.held[page][0]]
            if (page, IMPORTER) in self.expected:
                assert bytes_[IMPORTER] == self.expected[page, IMPORTER]
            bytes_[IMPORTER] = self.value(page, IMPORTER)
            await self.rig.scheduler.reschedule()

    async def user(self, byte: int) -> None:
        for _ in range(STEPS):
            page = self.page()
            address = self.at + page * PAGE_SIZE + byte
            await store(self.mm, address, bytes([self.value(page, byte)]))
            await self.rig.scheduler.reschedule()
            assert (await load(self.mm, address, 1))[0] == self.expected[page, byte]

    async def weather(self) -> None:
        for _ in range(STEPS):
            page, count = self.page(), self.random.randrange(1, 6)
            start, size = self.at + page * PAGE_SIZE, min(count, PAGES - page) * PAGE_SIZE
            events: list[Callable[[], Coroutine[Any, Any, object]]] = [
                partial(reclaim_range, self.mm, start, size, count),
                partial(reclaim, self.rig.memory, count),
                partial(migrate_range, self.mm, start, size),
                partial(mprotect, self.mm, start, size, RW),
                partial(self.drop_entries, start, size),
                self.offspring,
                self.writeback,
            ]
            try:
                await self.random.choice(events)()
            except KernelError as error:
                if error.errno != errno.ENOMEM:
                    raise
            await self.rig.scheduler.reschedule()

    async def drop_entries(self, start: int, size: int) -> None:
        if self.inode is not None:
            await zap_page_range(self.mm, start, size)

    async def writeback(self) -> None:
        if self.inode is not None:
            await writeback(self.rig.memory, self.inode)

    async def offspring(self) -> None:
        """A child sees what its parent had at the fork, writes over it, and leaves."""
        child = await fork(self.mm, 2)
        if self.inode is None:
            address = self.at + self.page() * PAGE_SIZE + 100
            assert (await load(child, address, 1))[0] == 0
            await store(child, address, b"child")
        await exit_mmap(child)

    def run(self) -> int:
        """Returns how many bytes were stored; each was found again."""
        threads: list[Coroutine[Any, Any, None]] = [self.user(byte) for byte in (1, 2, 3)]
        threads += [self.importer(), self.weather(), self.weather()]
        outcomes = [Outcome(self.rig.scheduler, thread) for thread in threads]
        self.rig.scheduler.run(0)
        for outcome in outcomes:
            _ = outcome.value
        for (page, byte), value in self.expected.items():
            assert self.rig.load(self.mm, self.at + page * PAGE_SIZE + byte, 1)[0] == value
        for page in list(self.held):
            self.drop(page)
        finish(self.rig)
        return len(self.expected)


@pytest.mark.parametrize("backing", ["anonymous", "file"])
@settings(max_examples=40)
@given(seed=st.integers(0, 1 << 32))
def test_no_byte_is_lost_whatever_happens_in_whatever_order(seed: int, backing: str) -> None:
    assert Storm(seed, backing).run() > 0
