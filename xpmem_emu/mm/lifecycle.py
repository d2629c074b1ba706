"""fork and exit of an address space.

fork shares the anonymous frames of private areas: both sides lose write permission, and the
parent's areas and the child's hang on one anon_vma, as in 2.6.26. Shared areas copy no entries;
the child faults them in again. The parent's writable private areas are recalled from importers,
so that nobody stores into a frame that the child now shares (sources 1.11).
"""

from dataclasses import replace

import numpy as np

from xpmem_emu.failpoints.points import EXIT_UNMAP, FORK_COPY
from xpmem_emu.mm import pte, rmap
from xpmem_emu.mm.areas import settle_areas, unmap_range
from xpmem_emu.mm.entries import exchange, settle
from xpmem_emu.mm.events import Forked
from xpmem_emu.mm.gather import Gather
from xpmem_emu.mm.mm_types import AddressSpace, Vma
from xpmem_emu.mm.ranges import require_alive
from xpmem_emu.mm.vma_flags import VmaFlags
from xpmem_emu.units import TASK_SIZE


async def fork(mm: AddressSpace, pid: int) -> AddressSpace:
    """A copy of the address space for task `pid`. DONTCOPY areas are left out, notifiers are not
    inherited. Raises ESRCH, ENOMEM (only a failpoint does).

        fork                                   reclaim
                                               | entry BUSY; sync
        | mmap_lock, for writing
        | settle: waits                        | entry := swap slot
        | copies that; a copy of the BUSY one
        | would never have been settled
    """
    async with mm.mmap_lock.write():
        require_alive(mm)
        await settle(mm, 0, TASK_SIZE)
        if mm.context.failpoints.armed:
            await mm.context.failpoints.reach(FORK_COPY)
            await settle(mm, 0, TASK_SIZE)  # that slept
        child = mm.context.new_address_space(pid)
        async with Gather(mm.context) as gather:
            for vma in mm.vmas:
                if not vma.flags & VmaFlags.DONTCOPY and _copied(vma) and vma.writable:
                    await gather.start(mm, vma.start, vma.end)
            await settle_areas(mm, 0, TASK_SIZE)  # that may have slept
            for vma in mm.vmas:
                if not vma.flags & VmaFlags.DONTCOPY:
                    _copy_area(child, gather, vma)
    mm.context.tracer.emit(Forked(pid=mm.pid, child=pid, pages=child.rss))
    return child


def _copied(vma: Vma) -> bool:
    """Whether a child gets the entries of an area."""
    return vma.anon_vma is not None and not vma.shared


def _copy_area(child: AddressSpace, gather: Gather, vma: Vma) -> None:
    twin = replace(vma, mm=child, linked=False)
    child.vmas.insert(twin)
    rmap.link_area(twin)
    if not _copied(vma):
        return
    mm = vma.mm
    with mm.page_table_lock:
        if vma.writable:
            gather.invalidate(mm, vma.start, vma.end)
        vpns, ptes = mm.page_table.entries(vma.first, vma.pages)
        ptes &= np.uint64(pte.without(pte.WRITE))
        mm.page_table.write(vpns, ptes)
        with child.page_table_lock:
            exchange(child, gather, vpns, np.zeros_like(ptes), ptes)


async def exit_mmap(mm: AddressSpace) -> None:
    """End the address space: first the notifiers let go, then everything is unmapped, then
    freed. Called once; accesses that still run are killed."""
    assert not mm.dead
    mm.dead = True
    clients = tuple(mm.notifiers.registered)
    await mm.notifiers.release()
    if mm.context.failpoints.armed:
        await mm.context.failpoints.reach(EXIT_UNMAP)
    async with mm.mmap_lock.write(), Gather(mm.context) as gather:
        assert not mm.notifiers.registered  # nobody opens a device in a dead address space
        await rmap.unwalked(mm)
        unmap_range(mm, gather, 0, TASK_SIZE, "exit")
    mm.context.forget_address_space(mm)
    for client in clients:  # of a file or a forked child: what outlives the address space
        await client.invalidate_range_end(0, TASK_SIZE)
