"""Page ranges and extents: how sets of pages are spoken of without naming each page.

A range is (first page, number of pages); an extent adds the first frame and flags, as messages
carry it. The arithmetic on single vectors is mm's; here is what needs ranges as sets.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from xpmem_emu.mm.extents import Frames as Vector
from xpmem_emu.mm.extents import Mask
from xpmem_emu.mm.gup import PinnedRun
from xpmem_emu.xpc.messages import EXTENT_READ_ONLY, EXTENT_UNCACHED

Range = tuple[int, int]
Extent = tuple[int, int, int, int]

Flags = npt.NDArray[np.uint8]
"""Per page: EXTENT_UNCACHED, EXTENT_READ_ONLY."""

__all__ = [
    "Extent",
    "Flags",
    "Mask",
    "Range",
    "Vector",
    "around",
    "cut_ranges",
    "extents",
    "intersect",
    "merge",
    "outside",
    "overlaps",
    "subtract",
    "total",
]


def extents(pages: Vector, frames: Vector, flags: Flags) -> list[Extent]:
    """The extents of ascending `pages` on `frames`: cut where either is not contiguous, or where
    flags differ."""
    if not len(pages):
        return []
    breaks = (np.diff(pages) != 1) | (np.diff(frames) != 1) | (flags[1:] != flags[:-1])
    cuts = np.flatnonzero(breaks) + 1
    starts = np.concatenate(([0], cuts))
    counts = np.diff(np.concatenate((starts, [len(pages)])))
    columns = (pages[starts], frames[starts], counts, flags[starts])
    return list(zip(*(column.tolist() for column in columns), strict=True))


def merge(ranges: Iterable[Range]) -> list[Range]:
    """The same pages as sorted, disjoint, maximal ranges."""
    merged: list[Range] = []
    for page, count in sorted(ranges):
        if merged and page <= merged[-1][0] + merged[-1][1]:
            first, length = merged[-1]
            merged[-1] = (first, max(length, page + count - first))
        else:
            merged.append((page, count))
    return merged


def subtract(ranges: Iterable[Range], others: Iterable[Range]) -> list[Range]:
    """The pages of `ranges` that are in none of `others`."""
    holes = merge(others)
    left: list[Range] = []
    for page, count in merge(ranges):
        end = page + count
        for hole, length in holes:
            if hole + length <= page or hole >= end:
                continue
            if hole > page:
                left.append((page, hole - page))
            page = max(page, hole + length)
        if page < end:
            left.append((page, end - page))
    return left


def cut_ranges(ranges: list[Range], most: int) -> list[list[Range]]:
    """The same ranges in parts of at most `most`; one empty part when there are none."""
    return [ranges[at : at + most] for at in range(0, len(ranges), most)] or [ranges]


def around(page: int, bounds: Range, taken: Iterable[Range]) -> Range:
    """The part of `bounds` around `page`, which is in none of `taken`, that none of them has."""
    first, end = bounds[0], sum(bounds)
    for start, count in taken:
        if start > page:
            end = min(end, start)
        else:
            first = max(first, start + count)
    return first, end - first


def outside(extents_: Iterable[Extent], ranges: Iterable[Range]) -> list[Extent]:
    """The parts of extents whose pages are in none of `ranges`."""
    holes = list(ranges)
    return [
        (first, frame + first - page, length, flags)
        for page, frame, count, flags in extents_
        for first, length in subtract([(page, count)], holes)
    ]


def intersect(one: Range, other: Range) -> Range | None:
    """The pages in both, None when there are none."""
    first = max(one[0], other[0])
    end = min(one[0] + one[1], other[0] + other[1])
    return (first, end - first) if first < end else None


def overlaps(one: Range, other: Range) -> bool:
    """Whether the ranges share a page."""
    return one[0] < other[0] + other[1] and other[0] < one[0] + one[1]


def total(ranges: Iterable[Range] | Sequence[Extent]) -> int:
    """How many pages the ranges (or extents) hold."""
    return sum(entry[1] if len(entry) == 2 else entry[2] for entry in ranges)


def flags_of(run: PinnedRun) -> int:
    """What importers are told of the pages of a run."""
    return (EXTENT_UNCACHED if run.uncached else 0) | (0 if run.writable else EXTENT_READ_ONLY)
