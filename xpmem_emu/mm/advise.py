"""madvise and zap_page_range: give up pages, keep the mapping.

madvise(DONTNEED) refuses PFNMAP areas, which every imported mapping is; zap_page_range exists
because XPMEM needs the same for imported, uncached and normal pages (sources T5).
"""

import errno
from enum import IntEnum

from xpmem_emu.errors import KernelError
from xpmem_emu.mm.entries import zap
from xpmem_emu.mm.gather import Gather
from xpmem_emu.mm.mm_types import AddressSpace, Vma
from xpmem_emu.mm.ranges import WORDS_END, aligned_range, require_alive, require_covered
from xpmem_emu.mm.reclaim import reclaim_range
from xpmem_emu.mm.truncate import punch
from xpmem_emu.mm.vma_flags import VmaFlags
from xpmem_emu.units import PAGE_SHIFT, page_align_up


class Advice(IntEnum):
    """Linux numbers."""

    DONTNEED = 4
    REMOVE = 9
    PAGEOUT = 21


async def madvise(mm: AddressSpace, address: int, length: int, advice: int) -> None:
    """DONTNEED drops pages, REMOVE makes a hole in the shared object behind them, PAGEOUT
    reclaims them. Raises EINVAL (unaligned, unknown advice, a range that wraps; DONTNEED on
    PFNMAP, any of them on mspec, REMOVE where no file is), EACCES (REMOVE where stores do not reach
    the object), ENOMEM (a hole), ESRCH."""
    if advice not in tuple(Advice):
        raise KernelError(errno.EINVAL, f"advice {advice} is unknown")
    wraps = address + page_align_up(length) >= WORDS_END
    start, end = aligned_range(address, length, errno.EINVAL if wraps else errno.ENOMEM)
    if start == end:
        return
    if advice == Advice.DONTNEED:
        await _dont_need(mm, start, end)
    elif advice == Advice.REMOVE:
        await _remove(mm, start, end)
    else:
        async with mm.mmap_lock.read():
            require_covered(mm, start, end)
            _refuse_mspec(mm.vmas.intersecting(start, end))
        await reclaim_range(mm, start, end - start, (end - start) >> PAGE_SHIFT)


async def zap_page_range(mm: AddressSpace, address: int, length: int) -> None:
    """Drop the entries of a range, whatever they map. Raises EINVAL."""
    start, end = aligned_range(address, length, errno.EINVAL)
    async with mm.mmap_lock.write(), Gather(mm.context) as gather:
        await gather.start(mm, start, end)
        zap(mm, gather, start, end, "zap_page_range")


async def _dont_need(mm: AddressSpace, start: int, end: int) -> None:
    async with mm.mmap_lock.write():
        require_alive(mm)
        require_covered(mm, start, end)
        _refuse_mspec(mm.vmas.intersecting(start, end))
        for vma in mm.vmas.intersecting(start, end):
            if vma.flags & VmaFlags.PFNMAP:
                raise KernelError(
                    errno.EINVAL,
                    f"area {vma} maps frames that are not this kernel's",
                    "zap_page_range drops such pages",
                )
        async with Gather(mm.context) as gather:
            await gather.start(mm, start, end)
            zap(mm, gather, start, end, "madvise")


async def _remove(mm: AddressSpace, start: int, end: int) -> None:
    # Held to the end: it keeps the areas what they are, and so their inodes alive, in each sleep.
    async with mm.mmap_lock.read():
        require_alive(mm)
        require_covered(mm, start, end)
        areas = mm.vmas.intersecting(start, end)
        _refuse_mspec(areas)
        for vma in areas:
            if vma.inode is None:
                raise KernelError(errno.EINVAL, f"there is no file behind area {vma}")
            if not (vma.shared and vma.writable):
                raise KernelError(errno.EACCES, f"area {vma} may not change what is behind it")
        holes = [_hole(vma, max(start, vma.start), min(end, vma.end)) for vma in areas]
        for vma, (index, count) in zip(areas, holes, strict=True):
            assert vma.inode is not None
            await punch(mm.context, vma.inode, index, count)


def _refuse_mspec(areas: list[Vma]) -> None:
    for vma in areas:
        if vma.flags & VmaFlags.MSPEC:
            raise KernelError(
                errno.EINVAL, f"area {vma} is of mspec: its pages stay", "munmap gives them back"
            )


def _hole(vma: Vma, start: int, end: int) -> tuple[int, int]:
    return vma.index_of(start >> PAGE_SHIFT), (end - start) >> PAGE_SHIFT
