"""One kernel's memory, put together: frames, swap, files, reverse map, address spaces.

It knows no partition beyond the opaque high bits of a global frame number, and no messages.
"""

import errno

from xpmem_emu.errors import KernelError
from xpmem_emu.failpoints import Failpoints
from xpmem_emu.failpoints.points import FRAMES_ALLOCATE
from xpmem_emu.image import Image
from xpmem_emu.mm.address_space import AddressSpace
from xpmem_emu.mm.audit import audit_memory
from xpmem_emu.mm.extents import Frames
from xpmem_emu.mm.files import FileTable
from xpmem_emu.mm.frames import FrameAllocator
from xpmem_emu.mm.physical import PhysicalMemory
from xpmem_emu.mm.pte import PARTID_SHIFT
from xpmem_emu.mm.reclaim import SWAP_CLUSTER_MAX, by_inode, reclaim
from xpmem_emu.mm.rmap import ReverseMap
from xpmem_emu.mm.swap import SwapArea
from xpmem_emu.sched import LockDep, Mutex, Scheduler, WaitQueue
from xpmem_emu.trace import Tracer

POISONED_MAX = 4096
"""Every access looks at each of them."""


class MemoryManager:
    """The memory layer of partition `partid`; `arena` is its physical memory, `swap` its swap."""

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
        self.partid = partid
        self.image = image
        self.scheduler = scheduler
        self.lockdep = lockdep
        self.tracer = tracer
        self.failpoints = failpoints or Failpoints(scheduler, tracer)
        self.frames = FrameAllocator(partid, arena, tracer)
        self.physical = PhysicalMemory(partid, arena)
        self.swap = SwapArea(swap)
        self.rmap = ReverseMap(self.frames, scheduler, lockdep)
        self.files = FileTable(self, image.memory.files, image.limits.files)
        self._direct_reclaim = Mutex(scheduler, lockdep, "direct_reclaim")
        self.changed = WaitQueue(scheduler)
        """Woken whenever entries stop being BUSY and whenever frames may have been freed."""
        self.address_spaces: dict[int, AddressSpace] = {}
        """By AddressSpace.number."""
        self.clock_hand = 0
        """Where reclaim goes on."""
        self.operations = 0
        """Gathers that still owe a sync or a free; 0 when quiet."""
        self.loans = 0
        """Faults that hold frames over an await, with nothing yet to show for them."""
        self._last_number = 0

    audit = audit_memory

    def new_address_space(self, pid: int) -> AddressSpace:
        """An empty address space for task `pid`. Ended by its `exit_mmap`."""
        self._last_number += 1
        mm = self.address_spaces[self._last_number] = AddressSpace(self, pid, self._last_number)
        return mm

    def forget_address_space(self, mm: AddressSpace) -> None:
        """Called by exit_mmap when nothing is mapped any more."""
        del self.address_spaces[mm.number]

    def poison(self, home: int, frame: int) -> None:
        """Frame `frame` of partition `home` went bad. Raises KernelError EINVAL, ENOSPC."""
        self.physical.require_frame(home, frame)
        if len(self.physical.poisoned) >= POISONED_MAX:
            raise KernelError(errno.ENOSPC, f"{POISONED_MAX} frames are poisoned, heal some")
        if home == self.partid:
            self.frames.poison(frame)
        self.physical.poisoned.add(home << PARTID_SHIFT | frame)

    def unpoison(self, home: int, frame: int) -> None:
        """The frame is good again. Raises KernelError EINVAL."""
        self.physical.require_frame(home, frame)
        if home == self.partid:
            self.frames.unpoison(frame)
        self.physical.poisoned.discard(home << PARTID_SHIFT | frame)

    def unpin(self, frames: Frames) -> None:
        """Give back frames that `pin_pages` pinned. File pages are dirty from now on: whoever
        held them may have stored into them after the last writeback, unseen by this kernel."""
        for inode, positions in by_inode(self, frames):
            inode.dirty[self.frames.index[frames[positions]]] = True
        self.frames.unpin(frames)

    async def allocate_up_to(self, wanted: int) -> Frames:
        """At least one and at most `wanted` frames, one reference each, contents undefined.

        Reclaims when nothing is free, and waits for the frames that others are about to free.
        Raises KernelError ENOMEM. The caller must not be inside a Gather: a notifier's sync must
        not allocate, as it may be what everybody waits for.
        """
        if self.failpoints.armed:
            await self.failpoints.reach(FRAMES_ALLOCATE)
        if self.frames.free == 0:
            # One at a time: what reclaims wakes who waits, so two that wait for a third would
            # wake each other for as long as it takes.
            async with self._direct_reclaim:
                await self._until_free(min(wanted, SWAP_CLUSTER_MAX))
                return self.frames.allocate(min(wanted, self.frames.free))
        return self.frames.allocate(min(wanted, self.frames.free))

    async def _until_free(self, wanted: int) -> None:
        while self.frames.free == 0:
            if await reclaim(self, wanted) or self.frames.free:
                continue
            if self.operations == 0:
                raise KernelError(
                    errno.ENOMEM,
                    f"{self.frames.in_use} frames are in use, none can be reclaimed",
                    "raise memory.size or memory.swap of the image",
                )
            await self.changed.wait()
