"""mremap: shrink, grow in place, or move an area.

A move takes the entries along; the frames stay, so nothing is freed, but the old addresses are
recalled from whoever shadows them. An area with ops is left behind dead: its provider knows it
by its old addresses (sources 1.11).
"""

import errno
from enum import IntFlag

import numpy as np

from xpmem_emu.errors import KernelError
from xpmem_emu.mm import rmap
from xpmem_emu.mm.areas import merge_areas, remove_areas, reserve_areas, settle_areas, unmap_range
from xpmem_emu.mm.entries import settle, zap
from xpmem_emu.mm.gather import Gather
from xpmem_emu.mm.mm_types import AddressSpace, Vma
from xpmem_emu.mm.ranges import aligned_length, aligned_range, require_aligned, require_alive
from xpmem_emu.mm.vma_flags import VmaFlags
from xpmem_emu.mm.vma_list import MMAP_MIN
from xpmem_emu.mm.vma_ops import DeadOps
from xpmem_emu.units import PAGE_SHIFT, TASK_SIZE


class Remap(IntFlag):
    """Linux numbers."""

    NONE = 0
    MAYMOVE = 1
    FIXED = 2


async def mremap(
    mm: AddressSpace,
    address: int,
    old_length: int,
    new_length: int,
    flags: int = Remap.MAYMOVE,
    new_address: int = 0,
) -> int:
    """Resize or move [address, address + old_length), which must lie in one area. Returns the
    new address.

    Raises EINVAL (unaligned, a length of 0, FIXED without MAYMOVE, overlap), EPERM (target below
    mmap_min_addr), EFAULT (not one area; growing a DONTEXPAND or PFNMAP area), ENOMEM, ESRCH.
    """
    old, new = aligned_length(old_length), aligned_length(new_length)
    _check(address, old, new, flags, new_address)
    async with mm.mmap_lock.write():
        require_alive(mm)
        _source(mm, address, old, new)
        reserve_areas(mm, 4)
        # A transit looks for its entry where it made it BUSY: moved along, it would stay BUSY.
        await settle(mm, address, address + old)
        async with Gather(mm.context) as gather:
            if flags & Remap.FIXED:
                await gather.start(mm, new_address, new_address + new)
            await gather.start(mm, address, address + old)
            await settle_areas(mm, address, address + old)  # that may have slept
            if flags & Remap.FIXED:
                unmap_range(mm, gather, new_address, new_address + new, "mremap")
            if new < old:
                unmap_range(mm, gather, address + new, address + old, "mremap")
                old = new
            vma = _source(mm, address, old, new)
            if not flags & Remap.FIXED:
                if new == old or _grow_in_place(vma, address + old, address + new):
                    return address
                new_address = _place(mm, new, flags)
            _move(gather, vma, address, old, new_address, new)
    return new_address


def _check(address: int, old: int, new: int, flags: int, new_address: int) -> None:
    if flags not in (Remap.NONE, Remap.MAYMOVE, Remap.MAYMOVE | Remap.FIXED):
        raise KernelError(errno.EINVAL, f"flags {flags:#x}: MAYMOVE (1), with it FIXED (2)")
    require_aligned(address)
    if not (old and new):
        raise KernelError(errno.EINVAL, "remapping of length 0")
    aligned_range(address, old, errno.EFAULT)
    if not flags & Remap.FIXED:
        return
    require_aligned(new_address)
    if new_address + new > TASK_SIZE:
        raise KernelError(errno.EINVAL, f"{new_address:#x} is beyond the end of user space")
    if new_address < address + old and address < new_address + new:
        raise KernelError(errno.EINVAL, "old and new range overlap")
    if new_address < MMAP_MIN:
        raise KernelError(errno.EPERM, f"nothing may be mapped below {MMAP_MIN:#x}")


def _source(mm: AddressSpace, address: int, old: int, new: int) -> Vma:
    vma = mm.vmas.find(address)
    if vma is None or address + old > vma.end:
        raise KernelError(errno.EFAULT, f"{address:#x} + {old:#x} is not within one area")
    if new > old and vma.flags & (VmaFlags.DONTEXPAND | VmaFlags.PFNMAP):
        raise KernelError(errno.EFAULT, f"area {vma} must not grow")
    return vma


def _grow_in_place(vma: Vma, old_end: int, new_end: int) -> bool:
    mm = vma.mm
    if vma.end != old_end or new_end > TASK_SIZE or mm.vmas.intersecting(old_end, new_end):
        return False
    vma.end = new_end
    merge_areas(mm, vma.start, vma.end)
    return True


def _place(mm: AddressSpace, length: int, flags: int) -> int:
    start = mm.vmas.gap(length) if flags & Remap.MAYMOVE else None
    if start is None:
        raise KernelError(errno.ENOMEM, f"no room for {length:#x} bytes", "allow MAYMOVE")
    return start


def _move(gather: Gather, vma: Vma, address: int, old: int, target: int, new: int) -> None:
    mm = vma.mm
    ops = None if vma.ops is None else DeadOps("the mapping was moved by mremap")
    moved = Vma(
        mm,
        target,
        target + new,
        vma.prot,
        vma.flags,
        vma.index_of(address >> PAGE_SHIFT),
        vma.inode,
        ops,
        vma.anon_vma,
    )
    mm.vmas.insert(moved)
    rmap.link_area(moved)
    if vma.ops is not None:
        zap(mm, gather, address, address + old, "mremap")
        vma.ops.unmapped(vma, address, address + old)
    else:
        _move_entries(mm, gather, address, old, target)
    remove_areas(mm, gather, address, address + old)
    merge_areas(mm, target, target + new)


def _move_entries(mm: AddressSpace, gather: Gather, address: int, length: int, target: int) -> None:
    first = address >> PAGE_SHIFT
    with mm.page_table_lock:
        gather.invalidate(mm, address, address + length)
        vpns, ptes = mm.page_table.entries(first, length >> PAGE_SHIFT)
        mm.page_table.write(vpns, np.zeros_like(ptes))
        mm.page_table.write(vpns + ((target >> PAGE_SHIFT) - first), ptes)
