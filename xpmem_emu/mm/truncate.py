"""Taking pages from a file: truncation, holes, and the end of an inode.

Mappings go before the cache does, under the inode's mutex; see `inode` for what that keeps away.
"""

from collections.abc import Iterator

import numpy as np

from xpmem_emu.mm import page_cache, rmap
from xpmem_emu.mm.entries import exchange, zap
from xpmem_emu.mm.events import Truncated
from xpmem_emu.mm.extents import Frames, Ptes
from xpmem_emu.mm.gather import Gather
from xpmem_emu.mm.inode import Inode
from xpmem_emu.mm.mm_types import AddressSpace, FrameOwner, MemoryContext, Vma
from xpmem_emu.mm.ranges import require_offset
from xpmem_emu.units import PAGE_SHIFT, page_align_up


async def truncate(context: MemoryContext, inode: Inode, size: int) -> None:
    """Cut or extend a file. Mappings beyond the new end are torn down, private copies included;
    accesses there are SIGBUS from now on (sources T23). Raises EINVAL, EFBIG, ENOSPC, ENOENT."""
    require_offset(size, "size")
    async with inode.mutex:
        if size >= inode.size:
            extend(context, inode, size)
            return
        async with Gather(context) as gather:
            old_pages = inode.pages
            # The size first: a fault beyond the end is SIGBUS from this step on, mutex or not.
            context.files.charge(page_align_up(size) - page_align_up(inode.size))
            inode.size = size
            dropped = await _drop(gather, inode, inode.pages, old_pages - inode.pages)
            inode.cut()
            context.tracer.emit(Truncated(file=inode.name, size=size, pages=dropped))


def extend(context: MemoryContext, inode: Inode, size: int) -> None:
    """Make a file longer, under its mutex. Raises EFBIG, ENOSPC, ENOENT (deleted)."""
    context.files.require_alive(inode)
    context.files.charge(page_align_up(size) - page_align_up(inode.size))
    inode.grow(size)


async def punch(context: MemoryContext, inode: Inode, index: int, count: int) -> None:
    """Make a hole: the pages read as zeros, their frames are given back. What somebody has copied
    for itself is no page of the file any more, and stays.

        madvise(REMOVE)                        fault
        | mutex; entries and cache cleared
        | sync: holders still have the frame   | not in the cache: waits for the mutex
        | acknowledged; frame freed
        | mutex dropped ---------------------> | reads the hole in
    """
    async with inode.mutex, Gather(context) as gather:
        count = max(min(count, inode.pages - index), 0)
        cached = inode.frames[index : index + count]
        await rmap.visit(
            context,
            cached[cached != 0],
            gather.start,
            lambda mm, vpns, ptes: _clear(gather, mm, vpns, ptes),
        )
        page_cache.forget(gather, inode, index, count)
        inode.blocks[index : index + count] = 0


def destroy_if_unused(gather: Gather, inode: Inode) -> None:
    """Give everything back when neither a name nor an area keeps the inode alive."""
    context = gather.context
    if inode.linked or inode.id not in context.files.inodes or context.owners[inode.id].vmas:
        return
    page_cache.forget(gather, inode, 0, len(inode.frames))
    del context.owners[inode.id]
    del context.files.inodes[inode.id]
    context.files.fixed.discard(inode.id)
    context.files.charge(-page_align_up(inode.size))
    inode.size = 0
    inode.blocks = inode.blocks[:0].copy()


async def _drop(gather: Gather, inode: Inode, index: int, count: int) -> int:
    """Unmap pages everywhere, copies included, and forget them; how many were cached."""
    owner = gather.context.owners[inode.id]
    async with owner.lock.read():
        for vma, start, end in _mapped(owner, index, count):
            await gather.start(vma.mm, start, end)
        for vma, start, end in _mapped(owner, index, count):
            zap(vma.mm, gather, start, end, "truncate")
    return page_cache.forget(gather, inode, index, count)


def _mapped(owner: FrameOwner, index: int, count: int) -> Iterator[tuple[Vma, int, int]]:
    """The areas with some of `count` pages from `index` on, and where in bytes they have them."""
    for vma in owner.vmas:
        first = max(vma.pgoff, index)
        end = min(vma.pgoff + vma.pages, index + count)
        if first < end:
            start = vma.start + ((first - vma.pgoff) << PAGE_SHIFT)
            yield vma, start, start + ((end - first) << PAGE_SHIFT)


def _clear(gather: Gather, mm: AddressSpace, vpns: Frames, ptes: Ptes) -> None:
    """Clear entries, under the page_table_lock. Who maps them is told."""
    gather.invalidate_pages(mm, vpns)
    exchange(mm, gather, vpns, ptes, np.zeros_like(ptes))
