"""The reverse map: which page-table entries map a frame.

A frame has one owner (an anon_vma, or the number of the inode whose page cache holds it) and an
index in it. The owner lists the areas that may map it; area and index give the page number, and the
entry there says whether it really does.

Walks take owner.lock, then one page_table_lock at a time (sources T10 keeps these spinlocks:
whatever must sleep is gathered and done outside, sources T11). So a walk is atomic, and a design
that has a client sleep in it needs an image whose owners have semaphores. Frames are grouped by
owner and intersected with areas as index vectors, so the walk costs one step per area, not per
page.
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, nullcontext

import numpy as np

from xpmem_emu.errors import KernelBug
from xpmem_emu.image import RmapLock
from xpmem_emu.mm import pte
from xpmem_emu.mm.extents import Frames, Ptes, groups, runs
from xpmem_emu.mm.inode import Inode
from xpmem_emu.mm.mm_types import AddressSpace, FrameOwner, MemoryContext, Vma
from xpmem_emu.sched import RwSemaphore, SpinLock
from xpmem_emu.units import PAGE_SHIFT

Visitor = Callable[[AddressSpace, Frames, Ptes], None]
"""(mm, ascending vpns, their entries); called under mm.page_table_lock."""
Start = Callable[[AddressSpace, int, int], Awaitable[None]]
"""(mm, start, end): `Gather.start`."""


def prepare_anon(vma: Vma) -> FrameOwner:
    """The anon_vma of `vma`, made when the area gets its first anonymous page."""
    if vma.anon_vma is None:
        link_anon(vma, vma.mm.context.new_owner("anon_vma"))
    assert vma.anon_vma is not None
    return vma.anon_vma


def link_area(vma: Vma) -> None:
    """Enter an area in the lists of its owners."""
    vma.linked = True
    if vma.inode is not None:
        _list(vma.mm.context.owners[vma.inode.id], vma)
    if vma.anon_vma is not None:
        _list(vma.anon_vma, vma)


def link_anon(vma: Vma, anon_vma: FrameOwner) -> None:
    """Make `vma` an area of `anon_vma`."""
    vma.anon_vma = anon_vma
    _list(anon_vma, vma)


def _list(owner: FrameOwner, vma: Vma) -> None:
    with _changing(owner):
        owner.vmas[vma] = None


def _changing(owner: FrameOwner) -> AbstractContextManager[None]:
    if isinstance(owner.lock, SpinLock):
        return owner.lock
    if owner.lock.shared:
        raise KernelBug(f"the list of {owner.lock.name} {owner.id} changes under a walk")
    return nullcontext()  # a step is as good as the lock


async def unwalked(mm: AddressSpace, inode: Inode | None = None) -> bool:
    """Return when nobody sleeps in a walk over areas of `mm`, nor over those of `inode`, and so
    until the caller next awaits. Whether that took sleep. The mmap_lock is held for writing."""
    slept = False
    while (walked := _walked(mm, inode)) is not None:
        async with walked.write():
            slept = True
    return slept


def _walked(mm: AddressSpace, inode: Inode | None) -> RwSemaphore | None:
    if mm.context.image.mm.rmap_lock is RmapLock.SPINLOCK:
        return None
    numbers = [vma.anon_vma.id for vma in mm.vmas if vma.anon_vma is not None]
    numbers += [each.id for each in (inode, *(vma.inode for vma in mm.vmas)) if each is not None]
    for number in numbers:
        owner = mm.context.owners.get(number)  # none of an inode that was deleted meanwhile
        if owner and isinstance(owner.lock, RwSemaphore) and owner.lock.shared:
            return owner.lock
    return None


def unlink_area(vma: Vma) -> None:
    """Take an area off the lists of its owners; its entries must be cleared already, or be another
    area's by now. An anon_vma goes with its last area, whoever still holds frames of it."""
    vma.linked = False
    owners = vma.mm.context.owners
    if vma.inode is not None:
        file = owners[vma.inode.id]
        with _changing(file):
            del file.vmas[vma]
    if vma.anon_vma is not None:
        with _changing(vma.anon_vma):
            del vma.anon_vma.vmas[vma]
        if not vma.anon_vma.vmas:
            del owners[vma.anon_vma.id]


async def visit(context: MemoryContext, frames: Frames, start: Start, visitor: Visitor) -> None:
    """Call `visitor` for every group of entries that map one of `frames` (local numbers). First
    `start` hears in which range they are, with the owner's lock held."""
    for owner, part, index in _by_owner(context, frames):
        async with owner.lock.read():
            for vma in owner.vmas:
                lo, hi = _within(vma, index)
                for first, count in runs(index[lo:hi] + (vma.first - vma.pgoff)):
                    await start(vma.mm, first << PAGE_SHIFT, (first + count) << PAGE_SHIFT)
            _visit_owner(owner, part, index, visitor)  # all of them in one step


def look(context: MemoryContext, frames: Frames, visitor: Visitor) -> None:
    """As `visit`, for who changes nothing, in one step and so with no lock of an owner."""
    for owner, part, index in _by_owner(context, frames):
        _visit_owner(owner, part, index, visitor)


def _by_owner(
    context: MemoryContext, frames: Frames
) -> Iterator[tuple[FrameOwner, Frames, Frames]]:
    """Owners, and which of `frames` are theirs, with their ascending indices."""
    owner, index = context.frames.owner[frames], context.frames.index[frames]
    order = np.lexsort((index, owner))
    for number, lo, hi in groups(owner[order]):
        if number in context.owners:
            part = order[lo:hi]
            yield context.owners[number], frames[part], index[part]


def _within(vma: Vma, indices: Frames) -> tuple[int, int]:
    lo, hi = np.searchsorted(indices, (vma.pgoff, vma.pgoff + vma.pages))
    return int(lo), int(hi)


def _visit_owner(owner: FrameOwner, frames: Frames, indices: Frames, visitor: Visitor) -> None:
    for vma in owner.vmas:
        lo, hi = _within(vma, indices)
        if lo == hi:
            continue
        vpns = indices[lo:hi] + (vma.first - vma.pgoff)
        with vma.mm.page_table_lock:
            ptes = vma.mm.page_table.read(vpns)
            local = pte.frame_field(ptes) & pte.LOCAL_MASK
            mine = pte.counted(ptes) & (local == frames[lo:hi])
            if mine.any():
                visitor(vma.mm, vpns[mine], ptes[mine])
