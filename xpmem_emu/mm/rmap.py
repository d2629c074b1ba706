"""The reverse map: which page-table entries map a frame.

A frame has one owner (an AnonVma, or an Inode whose page cache holds it) and an index in it. The
owner lists the areas that may map it; area and index give the page number, and the entry there
says whether it really does. An AnonVma is shared by all areas that came from one another by
fork, split or mremap, as in 2.6.26.

Walks are atomic and take owner.lock, then one page_table_lock at a time (sources T10 keeps these
spinlocks: whatever must sleep is gathered and done outside, sources T11). Frames are grouped by
owner and intersected with areas as index vectors, so the walk costs one step per area, not per
page.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import numpy as np

from xpmem_emu.mm import pte
from xpmem_emu.mm.extents import Frames, Ptes, groups
from xpmem_emu.mm.frames import FrameAllocator
from xpmem_emu.mm.vma import Vma
from xpmem_emu.sched import LockDep, Scheduler, SpinLock

if TYPE_CHECKING:
    from xpmem_emu.mm.address_space import AddressSpace

Visitor = Callable[["AddressSpace", Frames, Ptes], None]
"""(mm, ascending vpns, their entries); called under mm.page_table_lock."""


class Owner(Protocol):
    """Whatever frames can belong to."""

    @property
    def id(self) -> int:
        """Never reused; 0 is nobody."""

    @property
    def lock(self) -> SpinLock:
        """Guards `vmas`."""

    @property
    def vmas(self) -> dict[Vma, None]:
        """Areas that may map pages of this owner, in the order in which they came."""


class AnonVma:
    """Owner of anonymous frames."""

    __slots__ = ("id", "lock", "vmas")

    def __init__(self, number: int, lock: SpinLock) -> None:
        self.id = number
        self.lock = lock
        self.vmas: dict[Vma, None] = {}


class ReverseMap:
    """All owners of one kernel."""

    def __init__(self, frames: FrameAllocator, scheduler: Scheduler, lockdep: LockDep) -> None:
        self.owners: dict[int, Owner] = {}
        self._frames = frames
        self._scheduler = scheduler
        self._lockdep = lockdep
        self._last = 0

    def next_id(self) -> int:
        """A fresh owner id."""
        self._last += 1
        return self._last

    def lock(self, name: str, order: int) -> SpinLock:
        """A spinlock for an owner."""
        return SpinLock(self._scheduler, self._lockdep, name, order)

    def prepare_anon(self, vma: Vma) -> AnonVma:
        """The AnonVma of `vma`, made when the area gets its first anonymous page."""
        if vma.anon_vma is None:
            number = self.next_id()
            vma.anon_vma = AnonVma(number, self.lock("anon_vma", number))
            self.owners[number] = vma.anon_vma
            self.link_anon(vma, vma.anon_vma)
        return vma.anon_vma

    def link(self, vma: Vma) -> None:
        """Enter an area in the lists of its owners."""
        vma.linked = True
        if vma.inode is not None:
            with vma.inode.lock:
                vma.inode.vmas[vma] = None
        if vma.anon_vma is not None:
            self.link_anon(vma, vma.anon_vma)

    def link_anon(self, vma: Vma, anon_vma: AnonVma) -> None:
        """Make `vma` an area of `anon_vma`."""
        vma.anon_vma = anon_vma
        with anon_vma.lock:
            anon_vma.vmas[vma] = None

    def unlink(self, vma: Vma) -> None:
        """Take an area off the lists of its owners; its entries must be cleared already."""
        vma.linked = False
        if vma.inode is not None:
            with vma.inode.lock:
                del vma.inode.vmas[vma]
        if vma.anon_vma is not None:
            with vma.anon_vma.lock:
                del vma.anon_vma.vmas[vma]
            if not vma.anon_vma.vmas:
                del self.owners[vma.anon_vma.id]

    def visit(self, frames: Frames, visitor: Visitor) -> None:
        """Call `visitor` for every group of entries that map one of `frames` (local numbers)."""
        owner, index = self._frames.owner[frames], self._frames.index[frames]
        order = np.lexsort((index, owner))
        for number, lo, hi in groups(owner[order]):
            if number in self.owners:
                part = order[lo:hi]
                self._visit_owner(self.owners[number], frames[part], index[part], visitor)

    def _visit_owner(self, owner: Owner, frames: Frames, indices: Frames, visitor: Visitor) -> None:
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
