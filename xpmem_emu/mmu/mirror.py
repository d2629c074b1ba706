"""A device that mirrors a part of an address space, the way of Linux today (sources 4.3, 4.4).

An interval notifier: only what happens in its interval counts. A miss waits until nothing there is
being invalidated (`read_begin`), walks the page and what is present behind it, and installs all of
that unless something in the interval was invalidated meanwhile (`read_retry`). It holds no page.
"""

import errno
from typing import ClassVar

from xpmem_emu.errors import KernelError
from xpmem_emu.mm import pte
from xpmem_emu.mm.extents import Ptes, leading
from xpmem_emu.mm.mm_types import AddressSpace
from xpmem_emu.mm.ranges import aligned_range
from xpmem_emu.mmu.shadow import ShadowMmu
from xpmem_emu.units import PAGE_SHIFT

MIRROR_WINDOW = 16
"""Most pages of one walk."""


class Mirror(ShadowMmu):
    """The mirror of [start, end) of a task's memory."""

    kind: ClassVar[str] = "mirror"

    def __init__(self, mm: AddressSpace, address: int, length: int) -> None:
        """Whole pages. Raises KernelError EINVAL, ESRCH, EEXIST."""
        super().__init__(mm)
        self.start, self.end = aligned_range(address, length, errno.EINVAL)
        if self.start == self.end:
            raise KernelError(errno.EINVAL, "an interval of length 0")
        self.subscribe()

    def about(self) -> str:
        """What it mirrors."""
        return f"{self.start:#x}-{self.end:#x}"

    def watches(self, start: int, end: int) -> bool:
        """Of what is outside nothing is known."""
        return start < self.end and self.start < end

    def user(self, address: int) -> int:
        """The same, inside of the interval. Raises EFAULT."""
        if not self.start <= address < self.end:
            raise KernelError(
                errno.EFAULT,
                f"{address:#x} is outside of {self.start:#x}-{self.end:#x}, which is mirrored",
            )
        return address

    async def read_begin(self, address: int) -> int:
        """Once nothing in the interval is being invalidated, as mmu_interval_read_begin."""
        await self.settled(self.start, self.end)
        return self.sequence

    def read_retry(self, address: int, sequence: int) -> bool:
        """As mmu_interval_read_retry."""
        return self.sequence != sequence

    def window(self, address: int) -> Ptes:
        """The page and those behind it that are present, as hmm_range_fault finds them."""
        count = min(MIRROR_WINDOW, (self.end - address) >> PAGE_SHIFT)
        words = self.mm.page_table.read_range(address >> PAGE_SHIFT, count)
        return words[: leading(pte.has(words, pte.PRESENT))]
