"""One task's address space: areas, page table, locks, notifiers, and what keeps them in step.

State and the atomic primitives are here; each system call has a module of its own and is bound
below as a method. What guards what:

* mmap_lock (sleeping): the list of areas. Writers keep it over the notifiers' sync, so no fault
  brings back a page while holders of the old one are still being told.
* page_table_lock (spin): entries of this kernel's frames, together with the frames' counts.
  `exchange` is the only place that changes entries and counts.
* special_lock (spin): SPECIAL entries. It nests inside any page_table_lock, because a recall that
  starts under the exporter's lock clears the importers' entries, of the same task even.

Nothing here sleeps except `settle`.
"""

import errno
from typing import TYPE_CHECKING

import numpy as np

from xpmem_emu.errors import KernelBug, KernelError
from xpmem_emu.failpoints.points import MMAP_RESERVE
from xpmem_emu.mm import advise, lifecycle, mapping, protect, pte, remap
from xpmem_emu.mm.events import Unmap
from xpmem_emu.mm.extents import Frames, Ptes, numbers
from xpmem_emu.mm.gather import Gather
from xpmem_emu.mm.notifier import NotifierChain
from xpmem_emu.mm.page_table import PageTable
from xpmem_emu.mm.vma import Vma
from xpmem_emu.mm.vma_list import VmaList
from xpmem_emu.sched import RwSemaphore, SpinLock
from xpmem_emu.units import PAGE_SHIFT

if TYPE_CHECKING:
    from xpmem_emu.mm.manager import MemoryManager


class AddressSpace:
    """`number` grows with each address space of a kernel and stands for its address (sources
    T9)."""

    def __init__(self, manager: "MemoryManager", pid: int, number: int) -> None:
        scheduler, lockdep = manager.scheduler, manager.lockdep
        self.manager = manager
        self.pid = pid
        self.number = number
        self.mmap_lock = RwSemaphore(scheduler, lockdep, "mmap_lock", number)
        self.page_table_lock = SpinLock(scheduler, lockdep, "page_table_lock", number)
        self.special_lock = SpinLock(scheduler, lockdep, "special_lock", number)
        self.page_table = PageTable()
        self.vmas = VmaList()
        self.notifiers = NotifierChain()
        self.dead = False
        self.rss = 0
        """Entries that hold a frame of this kernel."""

    # -- system calls --------------------------------------------------------------------------

    mmap = mapping.mmap
    munmap = mapping.munmap
    unmap_areas = mapping.unmap_areas
    mprotect = protect.mprotect
    madvise = advise.madvise
    zap_page_range = advise.zap_page_range
    mremap = remap.mremap
    fork = lifecycle.fork
    exit_mmap = lifecycle.exit_mmap

    def find_vma(self, address: int) -> Vma | None:
        """The area that contains `address`."""
        return self.vmas.find(address)

    # -- entries -------------------------------------------------------------------------------

    def exchange(self, gather: Gather, vpns: Frames, old: Ptes, new: Ptes) -> None:
        """Replace entries `old` by `new` and keep every count in step: mappings and references
        of frames, swap slots, rss. References of frames that go are put by `gather`, after the
        notifiers' sync. Under page_table_lock; the caller has invalidated."""
        assert self.page_table_lock.locked
        come, go = _frames(new), _frames(old)
        allocator, swap = self.manager.frames, self.manager.swap
        if len(come):
            allocator.add_mappings(come)
        if len(go):
            allocator.drop_mappings(go)
            gather.collect(go)
        self.rss += len(come) - len(go)
        for ptes, count in ((new, swap.get), (old, swap.put)):
            swapped = pte.has(ptes, pte.SWAP)
            if swapped.any():
                count(pte.frame_field(ptes[swapped]))
        self.page_table.write(vpns, new)

    def zap(self, gather: Gather, start: int, end: int, why: str) -> None:
        """Tell the notifiers once about [start, end), then clear every entry in it."""
        with self.page_table_lock:
            gather.invalidate(self, start, end)
            with self.special_lock:
                vpns, ptes = self._entries(start, end)
                if len(vpns):
                    self.exchange(gather, vpns, ptes, np.zeros_like(ptes))
        self.manager.tracer.emit(Unmap(pid=self.pid, start=start, end=end, why=why))

    def insert_special(self, vma: Vma, first_vpn: int, gpfns: Frames, flags: int) -> int:
        """Install foreign frames (global numbers) for consecutive pages of `vma`, where the
        entry is absent. `flags`: pte.WRITE, pte.UNCACHED. Pages outside the area are ignored;
        a removed area is a KernelBug. Returns how many entries were installed. Atomic."""
        if not vma.linked or vma.mm is not self:
            raise KernelBug(f"special pages inserted into {vma}, which is not mapped")
        vpns = numbers(first_vpn, len(gpfns))
        inside = (vpns >= vma.first) & (vpns < vma.first + vma.pages)
        vpns, gpfns = vpns[inside], gpfns[inside]
        with self.special_lock:
            absent = self.page_table.read(vpns) == 0
            entries = pte.make(gpfns[absent], flags | pte.PRESENT | pte.SPECIAL)
            self.page_table.write(vpns[absent], entries)
        return len(entries)

    def zap_special(self, start: int, end: int) -> int:
        """Clear the SPECIAL entries of [start, end) and tell the devices that shadow them.
        Returns how many there were. Atomic; may be called under any page_table_lock."""
        vpns, ptes = self._entries(start, end)
        vpns = vpns[pte.has(ptes, pte.SPECIAL)]
        if len(vpns):
            self.notifiers.invalidate_range(start, end)
            with self.special_lock:
                self.page_table.write(vpns, np.zeros(len(vpns), dtype=np.uint64))
        return len(vpns)

    async def settle(self, start: int, end: int) -> None:
        """Wait until no entry of [start, end) is in transit. With mmap_lock held for writing the
        entries then stay so until the caller next awaits."""
        while pte.has(self._entries(start, end)[1], pte.BUSY).any():
            await self.manager.changed.wait()

    def _entries(self, start: int, end: int) -> tuple[Frames, Ptes]:
        first = start >> PAGE_SHIFT
        return self.page_table.entries(first, (end >> PAGE_SHIFT) - first)

    # -- areas (mmap_lock held for writing) ----------------------------------------------------

    def insert_area(self, vma: Vma) -> None:
        """Enter a new area and merge it with its neighbours where they fit."""
        self.vmas.insert(vma)
        self.manager.rmap.link(vma)
        self.merge_areas(vma.start, vma.end)

    def cut_area(self, address: int) -> None:
        """Make `address` a border between areas."""
        vma = self.vmas.find(address)
        if vma is None or vma.start == address:
            return
        tail = Vma(
            self,
            address,
            vma.end,
            vma.prot,
            vma.flags,
            vma.index_of(address >> PAGE_SHIFT),
            vma.inode,
            vma.ops,
            vma.anon_vma,
        )
        vma.end = address
        self.vmas.insert(tail)
        self.manager.rmap.link(tail)
        if vma.ops is not None:
            vma.ops.split(vma, tail)

    def merge_areas(self, start: int, end: int) -> None:
        """Merge the areas in and next to [start, end) where one continues the other."""
        left: Vma | None = None
        for vma in self.vmas.intersecting(start - 1, end + 1):
            if left is None or not vma.continues(left):
                left = vma
                continue
            self.vmas.remove(vma)
            left.end = vma.end
            if left.anon_vma is None and vma.anon_vma is not None:
                self.manager.rmap.link_anon(left, vma.anon_vma)
            self.manager.rmap.unlink(vma)

    def remove_areas(self, gather: Gather, start: int, end: int) -> None:
        """Take [start, end) out of the list; its entries are cleared already."""
        self.cut_area(start)
        self.cut_area(end)
        for vma in self.vmas.intersecting(start, end):
            self.vmas.remove(vma)
            self.manager.rmap.unlink(vma)
            if vma.inode is not None:
                vma.inode.destroy_if_unused(gather)

    def unmap(self, gather: Gather, start: int, end: int, why: str) -> None:
        """Clear the entries of [start, end) and remove its areas. Nothing mapped is fine."""
        areas = self.vmas.intersecting(start, end)
        if not areas:
            return
        self.zap(gather, max(start, areas[0].start), min(end, areas[-1].end), why)
        for vma in areas:
            if vma.ops is not None:
                vma.ops.unmapped(vma, max(start, vma.start), min(end, vma.end))
        self.remove_areas(gather, start, end)

    def reserve_areas(self, extra: int) -> None:
        """Raise ENOMEM when `extra` more areas might exceed the image's limit."""
        if extra and self.manager.failpoints.armed:
            self.manager.failpoints.check(MMAP_RESERVE)
        limit = self.manager.image.limits.vmas_per_task
        if len(self.vmas) + extra > limit:
            raise KernelError(
                errno.ENOMEM,
                f"task {self.pid} has {len(self.vmas)} of {limit} areas",
                "unmap something, or raise limits.vmas_per_task of the image",
            )

    def cuts(self, start: int, end: int) -> int:
        """How many areas making [start, end) stand alone would add."""
        return sum(
            (vma := self.vmas.find(border)) is not None and vma.start < border
            for border in (start, end)
        )


def _frames(ptes: Ptes) -> Frames:
    return pte.frame_field(ptes[pte.counted(ptes)]) & pte.LOCAL_MASK
