"""mprotect: entries lose rights at once and gain them by faulting.

Foreign (SPECIAL) entries are dropped instead: whoever provides them decides anew at the next
fault. PROT_NONE keeps the frame and hides it.
"""

import errno

import numpy as np

from xpmem_emu.errors import KernelError
from xpmem_emu.mm import pte
from xpmem_emu.mm.areas import count_cuts, cut_area, merge_areas, reserve_areas, settle_areas
from xpmem_emu.mm.entries import settle
from xpmem_emu.mm.events import Mprotected
from xpmem_emu.mm.extents import Ptes
from xpmem_emu.mm.gather import Gather
from xpmem_emu.mm.mm_types import AddressSpace
from xpmem_emu.mm.ranges import aligned_range, require_alive, require_covered
from xpmem_emu.mm.vma_flags import Prot, VmaFlags
from xpmem_emu.units import PAGE_SHIFT


async def mprotect(mm: AddressSpace, address: int, length: int, prot: Prot) -> None:
    """Change the protection of a range, all of it or nothing. Raises EINVAL (unaligned, unknown
    protection), EACCES (an area that stays read-only), ENOMEM (a hole, too many areas), ESRCH."""
    if not Prot.NONE <= prot <= Prot.READ | Prot.WRITE:
        raise KernelError(errno.EINVAL, f"protection {int(prot):#x} is unknown")
    start, end = aligned_range(address, length, errno.ENOMEM)
    if start == end:
        return
    async with mm.mmap_lock.write():
        require_alive(mm)
        require_covered(mm, start, end)
        _refuse_widening(mm, start, end, prot)
        reserve_areas(mm, count_cuts(mm, start, end))
        await settle(mm, start, end)  # `_protected` would show a page whose contents are moving
        async with Gather(mm.context) as gather:
            await gather.start(mm, start, end)
            await settle_areas(mm, start, end)  # that may have slept
            _change_entries(mm, gather, start, end, prot)
            cut_area(mm, start)
            cut_area(mm, end)
            for vma in mm.vmas.intersecting(start, end):
                vma.prot = prot
            merge_areas(mm, start, end)
    mm.context.tracer.emit(Mprotected(pid=mm.pid, start=start, end=end, prot=int(prot)))


def _refuse_widening(mm: AddressSpace, start: int, end: int, prot: Prot) -> None:
    for vma in mm.vmas.intersecting(start, end):
        if prot & Prot.WRITE and vma.flags & VmaFlags.READONLY:
            raise KernelError(errno.EACCES, f"area {vma} was given to be read only")


def _change_entries(mm: AddressSpace, gather: Gather, start: int, end: int, prot: Prot) -> None:
    first = start >> PAGE_SHIFT
    with mm.page_table_lock:
        gather.invalidate(mm, start, end)
        with mm.special_lock:
            vpns, ptes = mm.page_table.entries(first, (end >> PAGE_SHIFT) - first)
            changed = np.where(pte.has(ptes, pte.SPECIAL), np.uint64(0), _protected(ptes, prot))
            mm.page_table.write(vpns, changed)


def _protected(ptes: Ptes, prot: Prot) -> Ptes:
    """Entries under a new protection; swap entries have no rights to lose."""
    if prot == Prot.NONE:
        hidden = (ptes & np.uint64(pte.without(pte.PRESENT, pte.WRITE))) | np.uint64(pte.PROT_NONE)
        return np.where(pte.has(ptes, pte.RESIDENT), hidden, ptes)
    shown = (ptes & np.uint64(pte.without(pte.PROT_NONE))) | np.uint64(pte.PRESENT)
    ptes = np.where(pte.has(ptes, pte.PROT_NONE), shown, ptes)
    return ptes if prot & Prot.WRITE else ptes & np.uint64(pte.without(pte.WRITE))
