"""Files by name: create, unlink, read, write, write back; and the read-in of pages for faults."""

import errno

import numpy as np

from xpmem_emu.errors import KernelError
from xpmem_emu.failpoints.points import FILE_READ
from xpmem_emu.mm import pte, rmap
from xpmem_emu.mm.allocate import allocate_up_to
from xpmem_emu.mm.events import Mkclean
from xpmem_emu.mm.extents import Frames, Ptes, leading
from xpmem_emu.mm.gather import Gather
from xpmem_emu.mm.inode import Inode
from xpmem_emu.mm.mm_types import AddressSpace, MemoryContext
from xpmem_emu.mm.ranges import require_offset
from xpmem_emu.mm.truncate import destroy_if_unused, extend
from xpmem_emu.sched import Mutex
from xpmem_emu.units import PAGE_SHIFT, page_align_up

# -- names ------------------------------------------------------------------------------------


def create_file(context: MemoryContext, name: str, size: int) -> Inode:
    """A new file of `size` zero bytes. Raises EEXIST, ENFILE, EFBIG, ENOSPC."""
    context.files.require_room(name)
    inode = context.files.by_name[name] = _new_inode(context, name, size)
    return inode


def create_unnamed(context: MemoryContext, size: int) -> Inode:
    """The object behind shared anonymous memory. Raises EFBIG, ENOSPC."""
    return _new_inode(context, "", size)


def _new_inode(context: MemoryContext, name: str, size: int) -> Inode:
    context.files.charge(page_align_up(size))
    number = context.new_owner("i_mmap").id
    mutex = Mutex(context.scheduler, context.lockdep, "i_mutex", number)
    inode = context.files.inodes[number] = Inode(number, mutex, context.frames, name, size)
    return inode


async def unlink_file(context: MemoryContext, name: str) -> None:
    """Remove a name; the inode lives until its last mapping is gone. Raises ENOENT."""
    inode = context.files.lookup(name)
    del context.files.by_name[name]
    inode.linked = False
    async with Gather(context) as gather:
        destroy_if_unused(gather, inode)


# -- contents ---------------------------------------------------------------------------------


async def cached_frames(context: MemoryContext, inode: Inode, index: int, count: int) -> Frames:
    """Frames of the pages from `index` on: at least one, at most `count`, read in where missing;
    none when the file ends before `index`. They are borrowed: valid until the caller next awaits.
    Raises KernelError ENOMEM."""
    while True:
        count = min(count, inode.pages - index)
        if count <= 0:
            return inode.frames[:0]
        present = inode.frames[index : index + count]
        if present[0]:
            return present[: leading(present != 0)].copy()
        async with inode.mutex:
            await _read_in(context, inode, index, leading(present == 0))


async def _read_in(context: MemoryContext, inode: Inode, index: int, count: int) -> None:
    if context.failpoints.armed:
        await context.failpoints.reach(FILE_READ)
    frames = await allocate_up_to(context, count)
    # Asked only now: who had the mutex before may have read the same pages in, or cut them off, and
    # what waited for memory slept as well. Then nothing sleeps until they are in the cache.
    here = inode.frames[index : min(index + len(frames), inode.pages)]
    missing = np.flatnonzero(here == 0)
    chosen, indices = frames[: len(missing)], missing + index
    inode.read_blocks(indices, chosen)
    context.frames.set_owner(chosen, inode.id, indices)
    here[missing] = chosen
    context.frames.put(frames[len(missing) :])


async def pread(inode: Inode, offset: int, size: int) -> bytes:
    """Up to `size` bytes at `offset`; short at the end of the file. Raises EINVAL, EIO."""
    require_offset(offset, "offset")
    async with inode.mutex:
        size = max(min(size, inode.size - offset), 0)
        return b"".join(span.tobytes() for span in inode.spans(offset, size))


async def pwrite(
    context: MemoryContext, inode: Inode, offset: int, data: bytes | bytearray | memoryview
) -> None:
    """Write at `offset`, extending the file; no bytes change nothing, wherever. Raises EINVAL,
    EFBIG, ENOSPC, ENOENT (deleted), EIO."""
    require_offset(offset, "offset")
    if not len(data):
        return
    async with inode.mutex:
        if offset + len(data) > inode.size:
            extend(context, inode, offset + len(data))
        rest = np.frombuffer(data, dtype=np.uint8)
        for span in inode.spans(offset, len(data)):
            span[:] = rest[: len(span)]
            rest = rest[len(span) :]
        touched = slice(offset >> PAGE_SHIFT, ((offset + len(data) - 1) >> PAGE_SHIFT) + 1)
        inode.dirty[touched] |= inode.frames[touched] != 0


# -- writeback --------------------------------------------------------------------------------


async def writeback(context: MemoryContext, inode: Inode) -> int:
    """Write dirty pages to disk, after page_mkclean of each (sources T23). Returns how many.
    Raises KernelError EIO when some are poisoned: those stay dirty, all others are written."""
    # The mutex begins before the gather does: who has it may be reading in, and wait for memory,
    # which is to wait for every gather. And it ends before: what a gather waits for last may need
    # somebody who waits for the mutex.
    await inode.mutex.lock()
    async with Gather(context) as gather:
        try:
            return await _write_dirty(gather, inode)
        finally:
            inode.mutex.unlock()


async def _write_dirty(gather: Gather, inode: Inode) -> int:
    context = gather.context
    indices = np.flatnonzero(inode.dirty)
    frames = inode.frames[indices]
    context.frames.get(frames)
    gather.collect(frames)
    await _mkclean(gather, inode, indices)
    await gather.sync()
    # The mutex kept truncation away, our references kept reclaim and migration. What may have left
    # the cache: a poisoned page, taken by a fence; every page, with the last that used the file.
    here, lost = inode.frames[indices] == frames, context.frames.spoilt(frames)
    inode.dirty[indices[here & lost]] = True
    inode.write_blocks(indices[here & ~lost])
    if lost.any():
        raise KernelError(errno.EIO, f"machine check: dirty pages of {inode.title} are poisoned")
    return len(indices)


async def _mkclean(gather: Gather, inode: Inode, indices: Frames) -> None:
    """Write-protect every entry of the pages, so that the next store is seen as a fault.

        writeback                          a task that has the page mapped
        | clean; entry loses WRITE
        | sync                             | store: faults, so the page is dirty again
        | block := page

    The block may have that store or not: the next writeback has it.
    """
    protected = np.uint64(pte.without(pte.WRITE, pte.DIRTY))

    def clean(mm: AddressSpace, vpns: Frames, ptes: Ptes) -> None:
        writable = pte.has(ptes, pte.WRITE)
        gather.invalidate_pages(mm, vpns[writable])
        mm.page_table.write(vpns[writable], ptes[writable] & protected)

    await rmap.visit(gather.context, inode.frames[indices], gather.start, clean)
    inode.dirty[indices] = False  # in the step that took the right to write: a store marks it again
    gather.context.tracer.emit(Mkclean(file=inode.name, pages=len(indices)))
