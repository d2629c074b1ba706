"""mmap and munmap.

Validation comes first and changes nothing. The mmap_lock is held for writing until the notifiers'
sync is over: a new page can appear in the range only when nobody reaches the old one.
"""

import errno
from collections.abc import Callable
from dataclasses import dataclass

from xpmem_emu.errors import KernelError
from xpmem_emu.mm import rmap
from xpmem_emu.mm.areas import count_cuts, insert_area, reserve_areas, unmap_range
from xpmem_emu.mm.files import create_unnamed
from xpmem_emu.mm.gather import Gather
from xpmem_emu.mm.inode import Inode
from xpmem_emu.mm.mm_types import AddressSpace, Vma, VmaOps
from xpmem_emu.mm.ranges import OFFSET_END, aligned_range, require_aligned, require_alive
from xpmem_emu.mm.vma_flags import Prot, VmaFlags
from xpmem_emu.mm.vma_list import MMAP_MIN
from xpmem_emu.units import PAGE_MASK, PAGE_SHIFT, TASK_SIZE, page_align_up


@dataclass(frozen=True, slots=True)
class MapRequest:
    """What mmap is asked for. Lengths, addresses and offsets are in bytes.

    Without `inode` and `ops` the memory is anonymous; SHARED then makes an unnamed inode for it.
    """

    length: int
    prot: Prot = Prot.READ | Prot.WRITE
    flags: VmaFlags = VmaFlags.NONE
    address: int = 0
    """A hint, or with `fixed` the place; 0 lets the kernel choose."""
    fixed: bool = False
    inode: Inode | None = None
    offset: int = 0
    """Where in the file the mapping begins; a multiple of the page size."""
    ops: VmaOps | None = None
    check: Callable[[list[Vma]], None] | None = None
    """Called under the mmap_lock with the areas that the mapping would replace, none unless it is
    fixed; raises KernelError to refuse."""


async def mmap(mm: AddressSpace, request: MapRequest) -> int:
    """Map memory; returns its address.

    Raises EINVAL (length 0, unaligned), EOVERFLOW (offsets beyond those of a file), EPERM (fixed
    below mmap_min_addr), ENOMEM (no room, too many areas, disk full for shared memory), ENOENT (the
    file was deleted), ESRCH, and whatever `request.check` raises.
    """
    length = page_align_up(request.length)
    if length == 0:
        raise KernelError(errno.EINVAL, "mapping of length 0")
    if request.offset & PAGE_MASK:
        raise KernelError(errno.EINVAL, f"file offset {request.offset:#x} is not page aligned")
    if length > TASK_SIZE:
        raise KernelError(errno.ENOMEM, f"{length:#x} bytes do not fit into user space")
    if request.inode is not None and request.offset + length > OFFSET_END:
        raise KernelError(errno.EOVERFLOW, f"no file reaches to {request.offset + length:#x}")
    if request.fixed:
        _check_fixed(request, length)
    async with mm.mmap_lock.write():
        require_alive(mm)
        start = request.address if request.fixed else _choose(mm, request.address, length)
        if request.check is not None:
            request.check(mm.vmas.intersecting(start, start + length))
        reserve_areas(mm, 1 + count_cuts(mm, start, start + length))
        vma = _new_area(mm, request, start, length)
        async with Gather(mm.context) as gather:
            await gather.start(mm, start, start + length)
            await rmap.unwalked(mm, vma.inode)
            # Where that sleeps, the name may have gone, and with it the inode.
            if vma.inode is not None and vma.inode.id not in mm.context.files.inodes:
                raise KernelError(errno.ENOENT, f"{vma.inode.title} was deleted")
            # The new area is listed while holders of the old pages are still told: no fault gets to
            # it before the mmap_lock is dropped.
            unmap_range(mm, gather, start, start + length, "mmap")
            insert_area(vma)
    return start


async def munmap(mm: AddressSpace, address: int, length: int) -> None:
    """Remove every mapping in the range. Raises EINVAL (unaligned, length 0, beyond user space),
    ENOMEM (too many areas)."""
    start, end = aligned_range(address, length, errno.EINVAL)
    if start == end:
        raise KernelError(errno.EINVAL, "unmapping of length 0")
    async with mm.mmap_lock.write():
        reserve_areas(mm, max(count_cuts(mm, start, end) - 1, 0))
        async with Gather(mm.context) as gather:
            await gather.start(mm, start, end)
            await rmap.unwalked(mm)
            unmap_range(mm, gather, start, end, "munmap")


async def unmap_areas(
    mm: AddressSpace, start: int, end: int, chosen: Callable[[Vma], bool], why: str
) -> None:
    """Remove the chosen areas in [start, end), each as a whole. Cannot fail: nothing is cut."""
    async with mm.mmap_lock.write(), Gather(mm.context) as gather:
        areas = mm.vmas.intersecting(start, end)
        for vma in areas:
            await gather.start(mm, vma.start, vma.end)
        await rmap.unwalked(mm)
        for vma in areas:
            if chosen(vma):
                unmap_range(mm, gather, vma.start, vma.end, why)


def _check_fixed(request: MapRequest, length: int) -> None:
    if request.address + length > TASK_SIZE:
        raise KernelError(errno.ENOMEM, f"{request.address:#x} is beyond the end of user space")
    require_aligned(request.address)
    if request.address < MMAP_MIN:
        raise KernelError(errno.EPERM, f"nothing may be mapped below {MMAP_MIN:#x}")


def _choose(mm: AddressSpace, hint: int, length: int) -> int:
    hint = page_align_up(hint)
    if MMAP_MIN <= hint <= TASK_SIZE - length and not mm.vmas.intersecting(hint, hint + length):
        return hint
    start = mm.vmas.gap(length)
    if start is None:
        raise KernelError(errno.ENOMEM, f"no hole of {length:#x} bytes in user space")
    return start


def _new_area(mm: AddressSpace, request: MapRequest, start: int, length: int) -> Vma:
    inode, pgoff = request.inode, request.offset >> PAGE_SHIFT
    # Looked up before the wait for the mmap_lock. Alive would not do: an area that the new one is
    # about to replace may be the last that keeps it so.
    if inode is not None and not inode.linked:
        raise KernelError(errno.ENOENT, f"{inode.title} was deleted")
    if inode is None and request.ops is None:
        pgoff = start >> PAGE_SHIFT
        if request.flags & VmaFlags.SHARED:
            inode, pgoff = _shared_memory(mm, length), 0
            if request.flags & VmaFlags.MSPEC:
                mm.context.files.fixed.add(inode.id)
    return Vma(mm, start, start + length, request.prot, request.flags, pgoff, inode, request.ops)


def _shared_memory(mm: AddressSpace, length: int) -> Inode:
    try:
        return create_unnamed(mm.context, length)
    except KernelError as error:
        raise KernelError(errno.ENOMEM, error.cause, error.remedy) from None
