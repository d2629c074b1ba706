"""The reverse map: which page-table entries map a frame.

A frame has one owner (an anon_vma, or the number of the inode whose page cache holds it) and an
index in it. The owner lists the areas that may map it; area and index give the page number, and the
entry there says whether it really does.

Walks are atomic and take owner.lock, then one page_table_lock at a time (sources T10 keeps these
spinlocks: whatever must sleep is gathered and done outside, sources T11). Frames are grouped by
owner and intersected with areas as index vectors, so the walk costs one step per area, not per
page.
"""

from collections.abc import Callable

import numpy as np

from xpmem_emu.mm import pte
from xpmem_emu.mm.extents import Frames, Ptes, groups
from xpmem_emu.mm.mm_types import AddressSpace, FrameOwner, MemoryContext, Vma

Visitor = Callable[[AddressSpace, Frames, Ptes], None]
"""(mm, ascending vpns, their entries); called under mm.page_table_lock."""


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
    with owner.lock:
        owner.vmas[vma] = None


def unlink_area(vma: Vma) -> None:
    """Take an area off the lists of its owners; its entries must be cleared already, or be another
    area's by now. An anon_vma goes with its last area, whoever still holds frames of it."""
    vma.linked = False
    owners = vma.mm.context.owners
    if vma.inode is not None:
        file = owners[vma.inode.id]
        with file.lock:
            del file.vmas[vma]
    if vma.anon_vma is not None:
        with vma.anon_vma.lock:
            del vma.anon_vma.vmas[vma]
        if not vma.anon_vma.vmas:
            del owners[vma.anon_vma.id]


def visit(context: MemoryContext, frames: Frames, visitor: Visitor) -> None:
    """Call `visitor` for every group of entries that map one of `frames` (local numbers)."""
    owner, index = context.frames.owner[frames], context.frames.index[frames]
    order = np.lexsort((index, owner))
    for number, lo, hi in groups(owner[order]):
        if number in context.owners:
            part = order[lo:hi]
            _visit_owner(context.owners[number], frames[part], index[part], visitor)


def _visit_owner(owner: FrameOwner, frames: Frames, indices: Frames, visitor: Visitor) -> None:
    with owner.lock:
        for vma in owner.vmas:
            lo, hi = np.searchsorted(indices, (vma.pgoff, vma.pgoff + vma.pages))
            if lo == hi:
                continue
            vpns = indices[lo:hi] + (vma.first - vma.pgoff)
            with vma.mm.page_table_lock:
                ptes = vma.mm.page_table.read(vpns)
                local = pte.frame_field(ptes) & pte.LOCAL_MASK
                mine = pte.counted(ptes) & (local == frames[lo:hi])
                if mine.any():
                    visitor(vma.mm, vpns[mine], ptes[mine])
