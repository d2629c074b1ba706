"""The areas of one address space, sorted and disjoint, with look-up by bisection.

Only bounds are known here. Cutting and merging areas, and what that means for their backing, is
the business of `areas`.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

from xpmem_emu.errors import KernelBug
from xpmem_emu.units import TASK_SIZE

MMAP_MIN = 0x10000
"""Nothing is mapped below (mmap_min_addr), so that small pointers always fault."""
MMAP_TOP = TASK_SIZE - (128 << 20)
"""Areas are placed from here downwards; the room above is the stack's in Linux."""


class Bounded(Protocol):
    """All that the list knows of an area: [start, end), in bytes."""

    start: int
    end: int


AreaT = TypeVar("AreaT", bound=Bounded)


class VmaList(Generic[AreaT]):
    """Sorted list of areas."""

    __slots__ = ("_areas", "_search_from", "_starts")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._areas: list[AreaT] = []
        self._search_from = MMAP_TOP
        """Where the next search for a hole begins: below what was placed last, or at the end of
        what was removed above it since."""

    def __len__(self) -> int:
        return len(self._areas)

    def __iter__(self) -> Iterator[AreaT]:
        return iter(self._areas)

    def find(self, address: int) -> AreaT | None:
        """The area that contains `address`."""
        i = bisect_right(self._starts, address) - 1
        if i >= 0 and address < self._areas[i].end:
            return self._areas[i]
        return None

    def intersecting(self, start: int, end: int) -> list[AreaT]:
        """The areas that meet [start, end), ascending."""
        lo = max(bisect_right(self._starts, start) - 1, 0)
        if lo < len(self._areas) and self._areas[lo].end <= start:
            lo += 1
        return self._areas[lo : bisect_left(self._starts, end)]

    def covers(self, start: int, end: int) -> bool:
        """Whether every byte of [start, end) lies in an area."""
        for vma in self.intersecting(start, end):
            if vma.start > start:
                return False
            start = vma.end
        return start >= end

    def insert(self, vma: AreaT) -> None:
        """Add an area. KernelBug when it overlaps another."""
        if self.intersecting(vma.start, vma.end):
            raise KernelBug(f"area {vma} overlaps another")
        i = bisect_left(self._starts, vma.start)
        self._starts.insert(i, vma.start)
        self._areas.insert(i, vma)

    def remove(self, vma: AreaT) -> None:
        """Take an area out."""
        i = bisect_left(self._starts, vma.start)
        if i == len(self._areas) or self._areas[i] is not vma:
            raise KernelBug(f"area {vma} is not in the list")
        del self._starts[i]
        del self._areas[i]
        self._search_from = min(max(self._search_from, vma.end), MMAP_TOP)

    def gap(self, length: int) -> int | None:
        """Start of a hole of `length` bytes below MMAP_TOP, or None. A hole above the place where
        the search begins is found only when there is none below."""
        for top in (self._search_from, MMAP_TOP):
            start = self._gap_below(top, length)
            if start is not None:
                self._search_from = start
                return start
        return None

    def _gap_below(self, top: int, length: int) -> int | None:
        for i in range(bisect_left(self._starts, top) - 1, -1, -1):
            if self._areas[i].end + length <= top:
                break
            top = min(top, self._areas[i].start)
        return top - length if top - length >= MMAP_MIN else None
