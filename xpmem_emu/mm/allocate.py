"""Frames for whoever may sleep: allocation with direct reclaim."""

import errno

from xpmem_emu.errors import KernelError
from xpmem_emu.failpoints.points import FRAMES_ALLOCATE
from xpmem_emu.mm.extents import Frames
from xpmem_emu.mm.mm_types import MemoryContext
from xpmem_emu.mm.reclaim import SWAP_CLUSTER_MAX, reclaim


async def allocate_up_to(context: MemoryContext, wanted: int) -> Frames:
    """At least one and at most `wanted` frames, one reference each, contents undefined.

    Reclaims when nothing is free, and waits for the frames that others are about to free.
    Raises KernelError ENOMEM. The caller must not be inside a Gather: a notifier's sync must
    not allocate, as it may be what everybody waits for.
    """
    if context.failpoints.armed:
        await context.failpoints.reach(FRAMES_ALLOCATE)
    frames = context.frames
    if frames.free == 0:
        # In a step of its own: who fills memory waits for it, and not those beside.
        await context.scheduler.cond_resched()
        # One at a time: what reclaims wakes who waits, so two that wait for a third would
        # wake each other for as long as it takes.
        async with context.direct_reclaim:
            await _until_free(context, min(wanted, SWAP_CLUSTER_MAX))
            return frames.allocate(min(wanted, frames.free))
    return frames.allocate(min(wanted, frames.free))


async def _until_free(context: MemoryContext, wanted: int) -> None:
    while context.frames.free == 0:
        if await reclaim(context, wanted) or context.frames.free:  # freed by others in the sleep
            continue
        if context.operations == 0:  # so nobody is about to free any
            raise KernelError(
                errno.ENOMEM,
                f"{context.frames.in_use} frames are in use, none can be reclaimed",
                "raise memory.size or memory.swap of the image",
            )
        await context.changed.wait()
