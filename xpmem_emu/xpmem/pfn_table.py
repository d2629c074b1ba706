"""The PFN table: which frame is behind each page of a segment, and who holds it.

The exporter keeps one for each segment it made: a page is known while its frame is pinned, and
a pinned frame has at least one holding partition. (Never a remote address: the exporter does
not know where importers map a page, sources T3.) The importer keeps one for each segment it
imports, without holders: the frames it was told, shared by all its attachments of that segment.

A sparse radix tree of 512-page leaves; work on a range touches present leaves only, as slices.
Frame 0 means unknown, so frame 0 can never be known (sources 2.2).
Lock: none; every method is atomic. Invariant: a page has a holder iff it is known (exporter).
"""

from dataclasses import dataclass, field

import numpy as np

from xpmem_emu.errors import KernelBug
from xpmem_emu.mm.extents import runs
from xpmem_emu.mm.radix import LEAF_SIZE, PAGE_NUMBER_BITS, RadixTree
from xpmem_emu.xpmem.extents import Extent, Flags, Mask, Range, Vector, extents

_NOTHING = np.zeros(0, dtype=np.int64)


@dataclass(slots=True)
class PfnLeaf:
    """512 consecutive pages."""

    frames: Vector = field(default_factory=lambda: np.zeros(LEAF_SIZE, dtype=np.int64))
    flags: Flags = field(default_factory=lambda: np.zeros(LEAF_SIZE, dtype=np.uint8))
    holders: dict[int, Mask] = field(default_factory=dict)


@dataclass(slots=True)
class Taken:
    """Pages removed from a table: their frames, and which partitions held which of them."""

    pages: Vector
    frames: Vector
    holders: dict[int, list[Range]]

    def held_by(self, partid: int) -> tuple[Vector, Vector]:
        """The pages that `partid` held, and their frames."""
        mask = np.zeros(len(self.pages), dtype=np.bool_)
        for page, count in self.holders.get(partid, ()):
            lo, hi = np.searchsorted(self.pages, (page, page + count))
            mask[lo:hi] = True
        return self.pages[mask], self.frames[mask]


class PfnTable:
    """Pages of one segment -> frames of its home partition."""

    def __init__(self) -> None:
        self.radix: RadixTree[PfnLeaf] = RadixTree(PfnLeaf)
        self.pages = 0
        """How many pages are known."""

    def has(self, page: int) -> bool:
        """Whether one page is known."""
        leaf = self.radix.find(page)
        return leaf is not None and leaf.frames[page % LEAF_SIZE] != 0

    def known(self, page: int, count: int) -> Vector:
        """The known pages of a range, ascending."""
        found = [
            base + lo + np.flatnonzero(leaf.frames[lo:hi])
            for base, leaf, lo, hi in self.radix.leaves(page, count)
        ]
        return np.concatenate([_NOTHING, *found])

    def flags_of(self, page: int) -> int:
        """The flags of one page; 0 when it is not known."""
        leaf = self.radix.find(page)
        return 0 if leaf is None else int(leaf.flags[page % LEAF_SIZE])

    def record(self, page: int, frames: Vector, flags: int) -> Vector:
        """Make a run of pages known. Returns the frames of pages that were known already, which
        the caller pinned once too often."""
        surplus = [_NOTHING]
        done = 0
        while done < len(frames):
            lo = (page + done) % LEAF_SIZE
            size = min(LEAF_SIZE - lo, len(frames) - done)
            leaf = self.radix.ensure(page + done)
            there, new = leaf.frames[lo : lo + size], frames[done : done + size]
            absent = there == 0
            if not np.array_equal(there[~absent], new[~absent]):
                raise KernelBug(f"pages at {page + done} are known with other frames (S4)")
            surplus.append(new[~absent])
            there[absent] = new[absent]
            leaf.flags[lo : lo + size][absent] = flags
            self.pages += int(absent.sum())
            done += size
        return np.concatenate(surplus)

    def hold(self, partid: int, page: int, count: int) -> list[Extent]:
        """Note that `partid` holds the known pages of a range; their extents."""
        for _, leaf, lo, hi in self.radix.leaves(page, count):
            mask = leaf.holders.get(partid)
            if mask is None:
                mask = leaf.holders[partid] = np.zeros(LEAF_SIZE, dtype=np.bool_)
            mask[lo:hi] |= leaf.frames[lo:hi] != 0
        return self.extents(page, count)

    def extents(self, page: int, count: int) -> list[Extent]:
        """The known pages of a range with their frames."""
        pages, frames, flags = [_NOTHING], [_NOTHING], [_NOTHING.astype(np.uint8)]
        for base, leaf, lo, hi in self.radix.leaves(page, count):
            index = lo + np.flatnonzero(leaf.frames[lo:hi])
            pages.append(base + index)
            frames.append(leaf.frames[index])
            flags.append(leaf.flags[index])
        return extents(np.concatenate(pages), np.concatenate(frames), np.concatenate(flags))

    def take(self, page: int, count: int) -> Taken:
        """Forget a range; what was known and who held it."""
        pages, frames = [_NOTHING], [_NOTHING]
        holders: dict[int, list[Vector]] = {}
        for base, leaf, lo, hi in self.radix.leaves(page, count):
            part = leaf.frames[lo:hi]
            index = np.flatnonzero(part)
            pages.append(base + lo + index)
            frames.append(part[index])
            for partid, mask in leaf.holders.items():
                held = np.flatnonzero(mask[lo:hi])
                if len(held):
                    holders.setdefault(partid, []).append(base + lo + held)
                    mask[lo:hi] = False
            part[:] = 0
            leaf.flags[lo:hi] = 0
        taken = Taken(
            np.concatenate(pages),
            np.concatenate(frames),
            {partid: runs(np.concatenate(held)) for partid, held in sorted(holders.items())},
        )
        self._forget(page, count, len(taken.frames))
        return taken

    def drop(self, partid: int, page: int, count: int) -> Vector:
        """`partid` holds the range no longer; the frames of pages that nobody holds now."""
        for _, leaf, lo, hi in self.radix.leaves(page, count):
            if partid in leaf.holders:
                leaf.holders[partid][lo:hi] = False
        return self.drop_unheld(page, count)

    def drop_unheld(self, page: int, count: int) -> Vector:
        """Forget the pages of a range that nobody holds; their frames."""
        freed = [_NOTHING]
        for _, leaf, lo, hi in self.radix.leaves(page, count):
            held = np.zeros(hi - lo, dtype=np.bool_)
            for other in leaf.holders.values():
                held |= other[lo:hi]
            part = leaf.frames[lo:hi]
            orphans = (part != 0) & ~held
            freed.append(part[orphans].copy())
            part[orphans] = 0
            leaf.flags[lo:hi][orphans] = 0
        vector = np.concatenate(freed)
        self._forget(page, count, len(vector))
        return vector

    def held_by(self, partid: int, page: int, count: int) -> list[Range]:
        """The pages of a range that `partid` holds."""
        found = [
            base + lo + np.flatnonzero(leaf.holders[partid][lo:hi])
            for base, leaf, lo, hi in self.radix.leaves(page, count)
            if partid in leaf.holders
        ]
        return runs(np.concatenate([_NOTHING, *found]))

    def holders(self) -> dict[int, int]:
        """How many pages each partition holds."""
        counts: dict[int, int] = {}
        for _, leaf, _, _ in self.radix.leaves(0, 1 << PAGE_NUMBER_BITS):
            for partid, mask in leaf.holders.items():
                counts[partid] = counts.get(partid, 0) + int(mask.sum())
        return {partid: count for partid, count in sorted(counts.items()) if count}

    def _forget(self, page: int, count: int, forgotten: int) -> None:
        self.pages -= forgotten
        if forgotten:
            for base, leaf, _, _ in list(self.radix.leaves(page, count)):
                if not leaf.frames.any():
                    self.radix.prune(base)
