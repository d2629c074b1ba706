"""Pages in transit: their contents move while nobody may touch them.

Copy on write, swap-out, dropping a file page and migration are one story: replace every entry by
a BUSY one (a fault that meets it waits), tell the notifiers, sleep until they are done, look
whether anybody still holds the frame, move the contents, write the new entries. Until the sync
is over an importer may still store into the old frame, so contents must not be copied earlier.

    mover                                      others
    lock; invalidate; entry := BUSY
    unlock; sync                               fault: BUSY, wait     munmap: clears BUSY entry
    quiet? copy; entry := new if still BUSY
    wake                                       fault: walks again

A BUSY entry keeps its mapping count and its reference; the transit takes one more reference per
entry, so the frame outlives a concurrent munmap. Who owns a transit never waits for an mmap_lock,
a BUSY entry or memory while it does, so the waiters need no deadline.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

import numpy as np

from xpmem_emu.failpoints.points import TRANSIT_SYNC
from xpmem_emu.mm import pte, rmap
from xpmem_emu.mm.entries import exchange
from xpmem_emu.mm.extents import Frames, Mask, Ptes, locate
from xpmem_emu.mm.gather import Gather
from xpmem_emu.mm.mm_types import AddressSpace, MemoryContext

TRANSIT_BATCH = 256
"""Most pages that reclaim takes on at once: what is bounded is how long others wait."""

Target = Callable[[Frames, Ptes], Ptes]
"""(vpns, entries as they were before the transit) -> entries to write."""


@dataclass(slots=True)
class _Held:
    """Entries that were made BUSY. Flags of a BUSY entry may still change: page_mkclean takes
    the right to write away wherever it finds it."""

    mm: AddressSpace
    vpns: Frames
    frames: Frames

    def now(self) -> tuple[Mask, Ptes]:
        """(which entries are still BUSY with the same frame, all entries)."""
        ptes = self.mm.page_table.read(self.vpns)
        local = pte.frame_field(ptes) & pte.LOCAL_MASK
        return pte.has(ptes, pte.BUSY) & (local == self.frames), ptes


class Transit(Gather):
    """A Gather that holds entries BUSY. What is not settled is restored at the end."""

    def __init__(self, context: MemoryContext) -> None:
        super().__init__(context)
        self._held: list[_Held] = []
        """What is still to be settled, by this thread alone."""

    async def __aenter__(self) -> "Transit":
        await super().__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.settle(lambda vpns, ptes: ptes)
        await super().__aexit__(kind, value, traceback)

    async def _end(self) -> None:
        """Nothing to wait for: contents moved, rights did not change. And a fence migrates by a
        transit itself, and reclaims by another: neither may wait for a fence."""

    async def sync(self) -> None:
        """The sleeping half, while what is held is BUSY: who touches it waits for the end."""
        self._design.flush()  # before anything sleeps
        if self._held and self.context.failpoints.armed:
            await self.context.failpoints.reach(TRANSIT_SYNC)
        await super().sync()

    def hold(self, mm: AddressSpace, vpns: Frames, ptes: Ptes) -> None:
        """Make resident entries BUSY; those that already are stay with whoever made them so.
        Under mm.page_table_lock."""
        assert mm.page_table_lock.locked
        idle = ~pte.has(ptes, pte.BUSY)
        vpns, ptes = vpns[idle], ptes[idle]
        if len(vpns):
            self.invalidate_pages(mm, vpns)
            mm.page_table.write(vpns, pte.busy(ptes))
            frames = pte.frame_field(ptes) & pte.LOCAL_MASK
            self.context.frames.get(frames)
            self.collect(frames)
            self._held.append(_Held(mm, vpns, frames))

    async def hold_frames(self, frames: Frames) -> None:
        """Hold every entry of every one of `frames`."""
        await rmap.visit(self.context, frames, self.start, self.hold)

    def quiet(self, frames: Frames, cached: Mask) -> Mask:
        """Which of `frames` (ascending) can be taken: they are in use, but nobody holds them
        except the entries held here, the page cache (one reference where `cached`), and the
        quarantine. Asked after the sync, and nothing sleeps until what is taken is settled.

            mover                              a task that maps the same file
            | every entry BUSY; sync
            |                                  | fault: the page is cached, so it is mapped
            | one mapping more than is BUSY: the page stays
        """
        allocator = self.context.frames
        ours = np.zeros(len(frames), dtype=np.int64)
        still = np.zeros(len(frames), dtype=np.int64)
        for held in self._held:
            places, known = locate(frames, held.frames)
            np.add.at(ours, places[known], 1)
            np.add.at(still, places[known & held.now()[0]], 1)
        mapped = allocator.mapcount[frames]
        expected = mapped + ours + cached + allocator.quarantined[frames]
        takeable: Mask = (mapped == still) & ((mapped > 0) | cached)
        takeable &= allocator.refcount[frames] == expected
        return takeable

    def settle(self, target: Target) -> int:
        """Write the new entries where the BUSY ones still are, and wake who waits. Returns how
        many were written."""
        held_now, self._held = self._held, []
        written = 0
        for held in held_now:
            with held.mm.page_table_lock:
                still, ptes = held.now()
                vpns, busy = held.vpns[still], ptes[still]
                exchange(held.mm, self, vpns, busy, target(vpns, pte.settled(busy)))
                written += len(vpns)
        self.context.changed.wake_all()
        return written
