"""The swap area: page-sized slots of a buffer, counted by the page-table entries that name them.

A slot is free exactly when its count is 0; counts change in one step with the entries. There is no
swap cache: a page that was swapped in is a new private page, and the slot loses one reference.
"""

import numpy as np
import numpy.typing as npt

from xpmem_emu.errors import KernelBug
from xpmem_emu.mm.extents import Frames, distinct, numbers, paired_runs
from xpmem_emu.mm.frames import FrameAllocator
from xpmem_emu.units import PAGE_SIZE


class SwapArea:
    """Slots from 0 on. Vectors of slots may hold duplicates, which count twice."""

    def __init__(self, buffer: memoryview) -> None:
        self.total = len(buffer) // PAGE_SIZE
        self.count: npt.NDArray[np.int32] = np.zeros(self.total, dtype=np.int32)
        self._pages = np.frombuffer(buffer, dtype=np.uint8, count=self.total * PAGE_SIZE).reshape(
            self.total, PAGE_SIZE
        )
        self._stack = numbers(0, self.total)[::-1].copy()
        self.free = self.total

    @property
    def in_use(self) -> int:
        """Slots that hold a page."""
        return self.total - self.free

    def allocate_up_to(self, wanted: int) -> Frames:
        """At most `wanted` slots, ascending, with one reference each; empty when all are used."""
        taken = min(wanted, self.free)
        self.free -= taken
        slots = np.sort(self._stack[self.free : self.free + taken])
        self.count[slots] = 1
        return slots

    def get(self, slots: Frames) -> None:
        """One more entry names each slot."""
        np.add.at(self.count, slots, 1)

    def put(self, slots: Frames) -> None:
        """One entry less names each slot."""
        np.subtract.at(self.count, slots, 1)
        if (self.count[slots] < 0).any():
            raise KernelBug("swap slot freed twice")
        unused = distinct(slots[self.count[slots] == 0])
        self._stack[self.free : self.free + len(unused)] = unused[::-1]
        self.free += len(unused)

    def write(self, slots: Frames, allocator: FrameAllocator, frames: Frames) -> None:
        """Copy frames out, in runs."""
        if allocator.bad:
            allocator.require_good(frames)
        for slot, frame, count in paired_runs(slots, frames):
            self._pages[slot : slot + count] = allocator.pages[frame : frame + count]

    def read(self, slots: Frames, allocator: FrameAllocator, frames: Frames) -> None:
        """Copy slots in, in runs."""
        for slot, frame, count in paired_runs(slots, frames):
            allocator.pages[frame : frame + count] = self._pages[slot : slot + count]
