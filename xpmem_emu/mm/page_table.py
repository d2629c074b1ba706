"""The page table of one address space: entries by virtual page number (vpn).

Mechanism only: it stores words and knows nothing about frames, counts, locks or notifiers.
`entries.exchange` is the one place that changes entries together with the counts; whoever calls
`write` directly changes flags, moves entries, or writes SPECIAL ones, which are not counted.

A leaf is an array of 512 words with a numpy view on the same memory: scalar reads are cheap,
and ranges are vectors. Vectors of page numbers must be ascending.
"""

from array import array

import numpy as np

from xpmem_emu.mm.extents import Frames, Ptes, groups, numbers
from xpmem_emu.mm.radix import LEAF_MASK, LEAF_SHIFT, LEAF_SIZE, RadixTree

_EMPTY = bytes(8 * LEAF_SIZE)


class _Leaf:
    __slots__ = ("vector", "words")

    def __init__(self) -> None:
        self.words = array("Q", _EMPTY)
        self.vector: Ptes = np.frombuffer(self.words, dtype=np.uint64)


class PageTable:
    """Sparse map vpn -> entry. An entry that was never written reads as 0."""

    __slots__ = ("_tree",)

    def __init__(self) -> None:
        self._tree: RadixTree[_Leaf] = RadixTree(_Leaf)

    def walk(self, vpn: int) -> int:
        """The entry of `vpn`."""
        leaf = self._tree.find(vpn)
        return 0 if leaf is None else leaf.words[vpn & LEAF_MASK]

    def levels(self, vpn: int) -> list[tuple[int, bool]]:
        """(slot, exists) of the interior levels on the way to `vpn`, for dumps."""
        return self._tree.nodes(vpn)

    def read(self, vpns: Frames) -> Ptes:
        """The entries of `vpns`."""
        ptes = np.zeros(len(vpns), dtype=np.uint64)
        for number, lo, hi in groups(vpns >> LEAF_SHIFT):
            leaf = self._tree.find(number << LEAF_SHIFT)
            if leaf is not None:
                ptes[lo:hi] = leaf.vector[vpns[lo:hi] & LEAF_MASK]
        return ptes

    def read_range(self, first: int, count: int) -> Ptes:
        """The entries of `count` pages from `first` on, as a copy."""
        ptes = np.zeros(count, dtype=np.uint64)
        slot = first & LEAF_MASK
        if slot + count <= LEAF_SIZE:
            if (only := self._tree.find(first)) is not None:
                ptes[:] = only.vector[slot : slot + count]
            return ptes
        for base, leaf, lo, hi in self._tree.leaves(first, count):
            ptes[base + lo - first : base + hi - first] = leaf.vector[lo:hi]
        return ptes

    def entries(self, first: int, count: int) -> tuple[Frames, Ptes]:
        """(vpns, entries) of all entries in the range that are not 0."""
        vpns: list[Frames] = [numbers(0, 0)]
        ptes: list[Ptes] = [np.zeros(0, dtype=np.uint64)]
        for base, leaf, lo, hi in self._tree.leaves(first, count):
            used = np.flatnonzero(leaf.vector[lo:hi]) + lo
            vpns.append(used + base)
            ptes.append(leaf.vector[used])
        return np.concatenate(vpns), np.concatenate(ptes)

    def write(self, vpns: Frames, ptes: Ptes) -> None:
        """Set the entries of `vpns`; leaves that become empty are removed."""
        for number, lo, hi in groups(vpns >> LEAF_SHIFT):
            page = number << LEAF_SHIFT
            leaf = self._tree.ensure(page)
            leaf.vector[vpns[lo:hi] & LEAF_MASK] = ptes[lo:hi]
            if not leaf.vector.any():
                self._tree.prune(page)
