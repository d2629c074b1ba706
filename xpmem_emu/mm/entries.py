"""Page-table entries: exchanged with every count in step, cleared, installed for somebody else.

Atomic, all but `settle`. What guards entries is in `mm_types`.
"""

import numpy as np

from xpmem_emu.errors import KernelBug
from xpmem_emu.mm import pte
from xpmem_emu.mm.events import Unmap
from xpmem_emu.mm.extents import Frames, Ptes, numbers
from xpmem_emu.mm.gather import Gather
from xpmem_emu.mm.mm_types import AddressSpace, Vma
from xpmem_emu.mm.vma_flags import Prot
from xpmem_emu.units import PAGE_SHIFT


def exchange(mm: AddressSpace, gather: Gather, vpns: Frames, old: Ptes, new: Ptes) -> None:
    """Replace entries `old` by `new` and keep every count in step: mappings and references of
    frames, swap slots, rss. References of frames that go are put by `gather`, after the notifiers'
    sync. Under page_table_lock; the caller has invalidated."""
    assert mm.page_table_lock.locked
    come, go = _frames(new), _frames(old)
    allocator, swap = mm.context.frames, mm.context.swap
    if len(come):
        allocator.add_mappings(come)
    if len(go):
        allocator.drop_mappings(go)
        gather.collect(go)
    mm.rss += len(come) - len(go)
    for ptes, count in ((new, swap.get), (old, swap.put)):
        swapped = pte.has(ptes, pte.SWAP)
        if swapped.any():
            count(pte.frame_field(ptes[swapped]))
    mm.page_table.write(vpns, new)


def zap(mm: AddressSpace, gather: Gather, start: int, end: int, why: str) -> None:
    """Tell the notifiers once about [start, end), then clear every entry in it."""
    # Told before the special_lock is taken: what an exporter maps of itself is cleared under that.
    with mm.page_table_lock:
        gather.invalidate(mm, start, end)
        with mm.special_lock:
            vpns, ptes = _entries(mm, start, end)
            if len(vpns):
                exchange(mm, gather, vpns, ptes, np.zeros_like(ptes))
    mm.context.tracer.emit(Unmap(pid=mm.pid, start=start, end=end, why=why))


def insert_special(vma: Vma, first_vpn: int, gpfns: Frames, flags: int) -> int:
    """Install foreign frames (global numbers) for consecutive pages of `vma`, where the entry is
    absent and the area allows access: it may have changed while they were asked for. `flags`:
    pte.WRITE, pte.UNCACHED. Pages outside the area are ignored; a removed area is a KernelBug.
    Returns how many entries were installed."""
    mm = vma.mm
    assert vma.ops is not None
    assert vma.writable or not flags & pte.WRITE
    if not vma.linked:
        raise KernelBug(f"special pages inserted into {vma}, which is not mapped")
    if vma.prot == Prot.NONE:
        return 0
    vpns = numbers(first_vpn, len(gpfns))
    inside = (vpns >= vma.first) & (vpns < vma.first + vma.pages)
    vpns, gpfns = vpns[inside], gpfns[inside]
    with mm.special_lock:
        absent = mm.page_table.read(vpns) == 0
        entries = pte.make(gpfns[absent], flags | pte.PRESENT | pte.SPECIAL)
        mm.page_table.write(vpns[absent], entries)
    return len(entries)


def zap_special(mm: AddressSpace, start: int, end: int) -> int:
    """Clear the SPECIAL entries of [start, end) and tell the devices that shadow them. Returns how
    many there were. May be called under any page_table_lock. Nobody is waited for: the home does
    not free the frames before this partition has acknowledged."""
    vpns, ptes = _entries(mm, start, end)
    vpns = vpns[pte.has(ptes, pte.SPECIAL)]
    if len(vpns):
        mm.notifiers.invalidate_special(start, end)
        with mm.special_lock:
            mm.page_table.write(vpns, np.zeros(len(vpns), dtype=np.uint64))
    return len(vpns)


async def settle(mm: AddressSpace, start: int, end: int) -> None:
    """Wait until no entry of [start, end) is in transit, and so until the caller next awaits: the
    mmap_lock, held for writing, keeps faults away, but not reclaim, migration and writeback."""
    assert mm.mmap_lock.writer is mm.context.scheduler.current
    while pte.has(_entries(mm, start, end)[1], pte.BUSY).any():
        await mm.context.changed.wait()


def _entries(mm: AddressSpace, start: int, end: int) -> tuple[Frames, Ptes]:
    first = start >> PAGE_SHIFT
    return mm.page_table.entries(first, (end >> PAGE_SHIFT) - first)


def _frames(ptes: Ptes) -> Frames:
    return pte.frame_field(ptes[pte.counted(ptes)]) & pte.LOCAL_MASK
