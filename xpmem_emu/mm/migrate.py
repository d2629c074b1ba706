"""Migration: move the contents of pages to other frames, under everybody's feet.

The same transit as reclaim, with a new frame in place of a swap slot. Quarantined frames are
moved like others: the old frame stays out of the allocator, which is how pages are saved from an
importer that was given up but may still store (see `FrameAllocator.quarantine`). Poisoned frames
stay where they are: there is nothing left to move.
"""

import numpy as np

from xpmem_emu.failpoints.points import MIGRATE_COPY
from xpmem_emu.mm import page_cache, pte
from xpmem_emu.mm.allocate import allocate_up_to
from xpmem_emu.mm.events import Migrated
from xpmem_emu.mm.extents import Frames, Ptes, distinct, locate
from xpmem_emu.mm.mm_types import AddressSpace, MemoryContext
from xpmem_emu.mm.reclaim import resident_frames
from xpmem_emu.mm.transit import Transit


async def migrate_range(mm: AddressSpace, address: int, length: int) -> int:
    """Move the resident pages of a range. Returns how many moved; pages that somebody insists
    on stay. Raises KernelError EINVAL, ENOMEM."""
    frames = page_cache.movable(mm.context, resident_frames(mm, address, length))
    return await migrate_frames(mm.context, frames)


async def migrate_frames(context: MemoryContext, frames: Frames) -> int:
    """Move whatever pages are in these local frames now. Returns how many moved. Raises
    KernelError ENOMEM; what moved before stays moved."""
    moved, rest = 0, distinct(frames)
    while len(rest):
        if context.failpoints.armed:
            await context.failpoints.reach(MIGRATE_COPY)
        fresh = await allocate_up_to(context, len(rest))
        batch, rest = rest[: len(fresh)], rest[len(fresh) :]
        moved += await _move(context, batch, fresh)
    context.tracer.emit(Migrated(tried=len(frames), moved=moved))
    return moved


async def _move(context: MemoryContext, old: Frames, new: Frames) -> int:
    allocator = context.frames
    async with Transit(context) as transit:
        await transit.hold_frames(old)
        await transit.sync()
        in_file = page_cache.in_page_cache(context, old)
        moving = transit.quiet(old, in_file) & ~allocator.spoilt(old)
        source, target = old[moving], new[moving]
        allocator.copy(source, target)
        allocator.owner[target] = allocator.owner[source]
        allocator.index[target] = allocator.index[source]
        for inode, positions in page_cache.by_inode(context, source):
            page_cache.replace(
                transit, inode, allocator.index[source[positions]], target[positions]
            )

        def repoint(vpns: Frames, ptes: Ptes) -> Ptes:
            places, gone = locate(source, pte.frame_field(ptes) & pte.LOCAL_MASK)
            flags = ptes[gone] & np.uint64(pte.FLAGS)
            ptes[gone] = pte.make(target[places[gone]] + allocator.base, 0) | flags
            return ptes

        transit.settle(repoint)
    allocator.put(new)
    return len(source)
