"""Reclaim: take frames back from their users (try_to_unmap, sources T23).

A batch of frames goes into transit; when the notifiers are done, the frames that nobody holds any
more are written out: anonymous ones to swap, dirty file pages to disk. The rest, pinned ones
among them, get their entries back. A pin therefore does not protect a frame from being asked for,
only from being taken while its holder insists. A poisoned frame is never taken: nobody could read
it out.

Victims are chosen by a clock hand over frame numbers, unpinned frames first. With no swap left
there is no place for anonymous pages, so they are left alone, they and their holders: who runs out
of memory is told so at once, instead of after a look at every frame.
"""

import errno

import numpy as np

from xpmem_emu.failpoints.points import SWAP_ALLOCATE
from xpmem_emu.mm import page_cache, pte
from xpmem_emu.mm.events import Reclaimed, SwapOut
from xpmem_emu.mm.extents import Frames, Ptes, distinct, locate
from xpmem_emu.mm.mm_types import AddressSpace, MemoryContext
from xpmem_emu.mm.ranges import aligned_range
from xpmem_emu.mm.transit import TRANSIT_BATCH, Transit
from xpmem_emu.units import PAGE_SHIFT

SWAP_CLUSTER_MAX = 32
"""Least number of frames that direct reclaim goes for."""


async def reclaim(context: MemoryContext, wanted: int) -> int:
    """Give up at least `wanted` frames if that can be done. Returns how many were given up."""
    candidates = _candidates(context)
    step = min(max(wanted, SWAP_CLUSTER_MAX), TRANSIT_BATCH)
    freed = 0
    # Chosen before all the sleeps of this loop. A frame that is another page's by now is tried all
    # the same: the reverse map says whose it is.
    for at in range(0, len(candidates), step):
        if freed >= wanted:
            break
        batch = candidates[at : at + step]
        context.clock_hand = int(batch[-1]) + 1
        freed += await evict(context, batch)
    return freed


async def reclaim_range(mm: AddressSpace, address: int, length: int, wanted: int) -> int:
    """Reclaim up to `wanted` resident pages of a range. Returns how many frames were given up.
    Raises EINVAL."""
    freed = 0
    vpns = mm.page_table.entries(*_pages(address, length))[0]
    for at in range(0, len(vpns), TRANSIT_BATCH):
        if at:
            await mm.context.scheduler.cond_resched()
        # Read now: while others had their turn, a frame may have become somebody else's.
        frames = _local_frames(mm.page_table.read(vpns[at : at + TRANSIT_BATCH]))
        frames = page_cache.movable(mm.context, frames)[:wanted]
        freed += await evict(mm.context, frames)
        wanted -= len(frames)
        if not wanted:
            break
    return freed


def resident_frames(mm: AddressSpace, address: int, length: int) -> Frames:
    """The local frames that a range maps, ascending. Raises EINVAL."""
    return _local_frames(mm.page_table.entries(*_pages(address, length))[1])


def _pages(address: int, length: int) -> tuple[int, int]:
    start, end = aligned_range(address, length, errno.EINVAL)
    return start >> PAGE_SHIFT, (end - start) >> PAGE_SHIFT


def _local_frames(ptes: Ptes) -> Frames:
    return distinct(pte.frame_field(ptes[pte.counted(ptes)]) & pte.LOCAL_MASK)


def _candidates(context: MemoryContext) -> Frames:
    frames = page_cache.movable(context, np.flatnonzero(context.frames.owner))
    frames = frames[~context.frames.spoilt(frames)]
    if not context.swap.free:
        frames = frames[page_cache.in_page_cache(context, frames)]
    frames = np.roll(frames, -int(np.searchsorted(frames, context.clock_hand)))
    pinned = context.frames.pins[frames] > 0
    return np.concatenate((frames[~pinned], frames[pinned]))


async def evict(context: MemoryContext, frames: Frames) -> int:
    """Try to take these frames back. Returns how many nobody holds any more."""
    async with Transit(context) as transit:
        frames = np.sort(frames)
        await transit.hold_frames(frames)
        await transit.sync()
        # All of this is asked now, when nobody outside can store any more, and settled before
        # anything sleeps: frames may have been truncated, unmapped, poisoned or pinned meanwhile.
        in_file = page_cache.in_page_cache(context, frames)
        quiet = transit.quiet(frames, in_file) & ~context.frames.spoilt(frames)
        dropped = frames[quiet & in_file]
        swapped = frames[quiet & ~in_file]
        if context.failpoints.armed and context.failpoints.failing(SWAP_ALLOCATE):
            swapped = swapped[:0]
        slots = context.swap.allocate_up_to(len(swapped))
        swapped = swapped[: len(slots)]
        context.swap.write(slots, context.frames, swapped)
        for inode, positions in page_cache.by_inode(context, dropped):
            page_cache.evict_pages(transit, inode, context.frames.index[dropped[positions]])

        def target(vpns: Frames, ptes: Ptes) -> Ptes:
            local = pte.frame_field(ptes) & pte.LOCAL_MASK
            ptes[locate(dropped, local)[1]] = 0
            places, out = locate(swapped, local)
            ptes[out] = pte.make(slots[places[out]], pte.SWAP)
            return ptes

        transit.settle(target)
        context.swap.put(slots)
    if len(swapped):
        context.tracer.emit(SwapOut(pages=len(swapped)))
    freed = len(dropped) + len(swapped)
    context.tracer.emit(Reclaimed(tried=len(frames), freed=freed))
    return freed
