"""What one kernel's memory consists of: areas, address spaces, owners of frames, and their context.

These records name each other (an area its address space, that the context, the context whoever owns
frames, an owner its areas), so they are in one file, as in Linux's. Data and what must hold of it
are here and in the modules below; whoever changes several objects at once is a verb in a module of
its own: `mapping`, `fault`, `reclaim` and so on. No verb is called from here.

A Vma is a range of pages with one protection and one backing: anonymous memory, a file (`inode`),
or foreign frames installed by somebody else (`ops`). `pgoff` is the page index of its first page
in the backing; for anonymous memory it is the page number the area was first mapped at, which
keeps reverse-map indices valid when mremap moves the area.

What guards what:

* mmap_lock (sleeping): the list of areas, and the areas. Writers keep it over the notifiers' sync,
  so no fault brings back a page while holders of the old one are still being told. Whoever holds it
  for reading may rely on the areas, but for two fields: `anon_vma`, which a fault sets once, and
  `ops`, which XPMEM cuts off without it.
* page_table_lock (spin): entries of this kernel's frames, together with the frames' counts.
  `entries.exchange` is the only place that changes entries and counts.
* special_lock (spin): SPECIAL entries. It nests inside any page_table_lock, because a recall that
  starts under the exporter's lock clears the importers' entries, of the same task even.
* FrameOwner.lock (spin, or a semaphore if the image says so): the owner's list of areas. It nests
  outside any page_table_lock. The reverse map reads bounds of areas under it, without the
  mmap_lock: whoever changes them does so in one step with the lists.

Order, which LockDep holds everybody to: mmap_lock, i_mutex, direct_reclaim; then, spinning,
FrameOwner.lock, page_table_lock (two of them only in fork, the parent's first), special_lock.
"""

from dataclasses import dataclass
from typing import Protocol

from xpmem_emu.failpoints import Failpoints
from xpmem_emu.image import Image, RmapLock
from xpmem_emu.mm.file_table import FileTable
from xpmem_emu.mm.frames import FrameAllocator
from xpmem_emu.mm.inode import Inode
from xpmem_emu.mm.notifier import NotifierChain
from xpmem_emu.mm.page_table import PageTable
from xpmem_emu.mm.physical import PhysicalMemory
from xpmem_emu.mm.swap import SwapArea
from xpmem_emu.mm.vma_flags import Prot, VmaFlags
from xpmem_emu.mm.vma_list import VmaList
from xpmem_emu.sched import LockDep, Mutex, RwSemaphore, Scheduler, SpinLock, WaitQueue
from xpmem_emu.trace import Tracer
from xpmem_emu.units import PAGE_SHIFT


class VmaOps(Protocol):
    """Who provides the pages of an area that this package cannot fill by itself."""

    async def fault(self, vma: "Vma", address: int, write: bool) -> None:
        """Install entries around `address`, or raise Signalled. Called with no lock held and may
        sleep long: the area may have changed or gone meanwhile. The caller walks again."""

    def check(self, vma: "Vma", address: int) -> None:
        """May the access through the SPECIAL entry at `address` go on? Raises Signalled."""

    def unmapped(self, vma: "Vma", start: int, end: int) -> None:
        """[start, end) of the area is being removed, its entries are cleared already; the area
        still has its old bounds, cuts follow as `split`."""

    def split(self, vma: "Vma", tail: "Vma") -> None:
        """The area was cut; decide what `tail.ops` is. It is `vma.ops` when called."""


@dataclass(slots=True, eq=False)
class Vma:
    """One area [start, end) of `mm`, in bytes. `linked` is false once it was removed. Guarded by
    mm.mmap_lock, but for `ops` and `anon_vma`."""

    mm: "AddressSpace"
    start: int
    end: int
    prot: Prot
    flags: VmaFlags
    pgoff: int
    inode: Inode | None = None
    ops: VmaOps | None = None
    """Whoever slept asks again: a detach puts others here in one step, under no lock."""
    anon_vma: "FrameOwner | None" = None
    """Set once, by the first fault, which has the mmap_lock for reading only; or by a merge."""
    linked: bool = False

    @property
    def first(self) -> int:
        """Its first virtual page number."""
        return self.start >> PAGE_SHIFT

    @property
    def pages(self) -> int:
        """How many pages it has."""
        return (self.end - self.start) >> PAGE_SHIFT

    @property
    def shared(self) -> bool:
        """Whether stores are seen by everybody who maps the same backing."""
        return bool(self.flags & VmaFlags.SHARED)

    @property
    def writable(self) -> bool:
        """Whether stores are allowed."""
        return bool(self.prot & Prot.WRITE)

    def index_of(self, vpn: int) -> int:
        """The page index of `vpn` in the backing."""
        return vpn - self.first + self.pgoff

    def continues(self, before: "Vma") -> bool:
        """Whether this area could be the tail of `before`. Areas with ops never are."""
        return (
            before.end == self.start
            and before.prot == self.prot
            and before.flags == self.flags
            and before.inode is self.inode
            and before.ops is None
            and self.ops is None
            and before.pgoff + before.pages == self.pgoff
            and (before.anon_vma is self.anon_vma or None in (before.anon_vma, self.anon_vma))
        )

    def __str__(self) -> str:
        access = "".join("rw"[i] if self.prot & 1 << i else "-" for i in range(2))
        return f"{self.start:#x}-{self.end:#x} {access}{'s' if self.shared else 'p'}"


class FrameOwner:
    """Whoever frames belong to: an anon_vma, shared by all areas that came from one another by
    fork, split or mremap, or what maps a file (Linux's i_mmap), under the number of its inode."""

    __slots__ = ("id", "lock", "vmas")

    def __init__(self, number: int, lock: SpinLock | RwSemaphore) -> None:
        self.id = number
        """Never reused; 0 is nobody."""
        self.lock = lock
        """Guards `vmas`. Who changes it does so in one step; with a semaphore, once no walk sleeps
        inside (`rmap.unwalked`)."""
        self.vmas: dict[Vma, None] = {}
        """Areas that may map its pages, in the order in which they came."""


class AddressSpace:
    """One task's address space. `number` grows with each one of a kernel and stands for its address
    (sources T9)."""

    def __init__(self, context: "MemoryContext", pid: int, number: int) -> None:
        scheduler, lockdep = context.scheduler, context.lockdep
        self.context = context
        self.pid = pid
        self.number = number
        self.mmap_lock = RwSemaphore(scheduler, lockdep, "mmap_lock", number)
        self.page_table_lock = SpinLock(scheduler, lockdep, "page_table_lock", number)
        self.special_lock = SpinLock(scheduler, lockdep, "special_lock", number)
        self.page_table = PageTable()
        """Guarded by page_table_lock; SPECIAL entries by special_lock."""
        self.vmas: VmaList[Vma] = VmaList()
        """Guarded by mmap_lock. Who holds none may look a VMA up, for use before its next await."""
        self.notifiers = NotifierChain()
        self.dead = False
        """Set once, by exit_mmap, under no lock: it then waits for the mmap_lock, so whoever holds
        that and saw False is done before anything is unmapped."""
        self.rss = 0
        """Entries that hold a frame of this kernel. Guarded by page_table_lock."""


class MemoryContext:
    """What all of one kernel's memory shares. It knows no partition beyond the opaque high bits of
    a global frame number, and no messages."""

    def __init__(
        self,
        partid: int,
        image: Image,
        arena: memoryview,
        swap: memoryview,
        scheduler: Scheduler,
        lockdep: LockDep,
        tracer: Tracer,
        failpoints: Failpoints | None = None,
    ) -> None:
        """`arena` is the physical memory of partition `partid`, `swap` its swap."""
        self.partid = partid
        self.image = image
        self.scheduler = scheduler
        self.lockdep = lockdep
        self.tracer = tracer
        self.failpoints = failpoints or Failpoints(scheduler, tracer)
        self.frames = FrameAllocator(partid, arena, tracer)
        self.physical = PhysicalMemory(partid, arena)
        self.swap = SwapArea(swap)
        self.files = FileTable(self.failpoints, image.memory.files, image.limits.files)
        self.owners: dict[int, FrameOwner] = {}
        """By FrameOwner.id, which is what a frame in use is marked with."""
        self.direct_reclaim = Mutex(scheduler, lockdep, "direct_reclaim")
        """Guards nothing: lets one thread at a time wait for frames (allocate)."""
        self.changed = WaitQueue(scheduler)
        """Woken whenever entries stop being BUSY and whenever frames may have been freed."""
        self.address_spaces: dict[int, AddressSpace] = {}
        """By AddressSpace.number."""
        self.clock_hand = 0
        """Where reclaim goes on. A hint, guarded by nothing."""
        self.operations = 0
        """Gathers that still owe a sync or a free; 0 when quiet. Who wants memory waits while there
        is one, so none may wait for memory, nor for whoever does."""
        self.loans = 0
        """Faults that hold frames over an await, with nothing yet to show for them."""
        self._last_space = 0
        self._last_owner = 0

    def new_address_space(self, pid: int) -> AddressSpace:
        """An empty address space for task `pid`. Ended by `exit_mmap`."""
        self._last_space += 1
        mm = self.address_spaces[self._last_space] = AddressSpace(self, pid, self._last_space)
        return mm

    def forget_address_space(self, mm: AddressSpace) -> None:
        """Called by exit_mmap when nothing is mapped any more."""
        assert mm.dead
        assert (mm.rss, len(mm.vmas)) == (0, 0)
        del self.address_spaces[mm.number]

    def new_owner(self, kind: str) -> FrameOwner:
        """A fresh owner without areas; `kind` names its lock."""
        self._last_owner += 1
        number = self._last_owner
        rwsem = self.image.mm.rmap_lock is RmapLock.RWSEM
        lock = (RwSemaphore if rwsem else SpinLock)(self.scheduler, self.lockdep, kind, number)
        owner = self.owners[number] = FrameOwner(number, lock)
        return owner
