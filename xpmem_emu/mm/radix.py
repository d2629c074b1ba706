"""A sparse radix tree over 36-bit page numbers: 4 levels, 512 ways, leaves of 512 entries.

The shape of an x86-64 page table, and of XPMEM's PFN table (sources 2.2). Interior nodes hold only
the children that exist, so a walk over a range never touches an absent subtree. What a leaf is,
the owner says: a factory makes empty ones. The tree does not look into leaves.
"""

from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from xpmem_emu.errors import KernelBug

LEAF_SHIFT = 9
LEAF_SIZE = 1 << LEAF_SHIFT
LEAF_MASK = LEAF_SIZE - 1
PAGE_NUMBER_BITS = 36
_INTERIOR_SHIFTS = (27, 18, 9)

_L = TypeVar("_L")
_Node = dict[int, Any]
"""Children by slot: nodes above the lowest interior level, leaves at it."""


class RadixTree(Generic[_L]):
    """Leaves by leaf number, which is the page number without its low 9 bits."""

    def __init__(self, make_leaf: Callable[[], _L]) -> None:
        self._make_leaf = make_leaf
        self._root: _Node = {}

    def find(self, page: int) -> _L | None:
        """The leaf that covers `page`, None when there is none."""
        node = self._root.get(page >> 27)
        if node is None:
            return None
        node = node.get(page >> 18 & LEAF_MASK)
        if node is None:
            return None
        leaf: _L | None = node.get(page >> 9 & LEAF_MASK)
        return leaf

    def ensure(self, page: int) -> _L:
        """The leaf that covers `page`, made when there is none."""
        if page >> PAGE_NUMBER_BITS:
            raise KernelBug(f"page number {page:#x} has more than {PAGE_NUMBER_BITS} bits")
        node = self._root
        for shift in _INTERIOR_SHIFTS[:-1]:
            node = node.setdefault(page >> shift & LEAF_MASK, {})
        slot = page >> LEAF_SHIFT & LEAF_MASK
        leaf: _L | None = node.get(slot)
        if leaf is None:
            leaf = node[slot] = self._make_leaf()
        return leaf

    def prune(self, page: int) -> None:
        """Remove the leaf that covers `page`, and every node that this leaves empty."""
        path = [self._root]
        for shift in _INTERIOR_SHIFTS[:-1]:
            path.append(path[-1][page >> shift & LEAF_MASK])
        for node, shift in zip(reversed(path), reversed(_INTERIOR_SHIFTS), strict=True):
            del node[page >> shift & LEAF_MASK]
            if node:
                return

    def leaves(self, first: int, count: int) -> Iterator[tuple[int, _L, int, int]]:
        """(page of the leaf's entry 0, leaf, lo, hi) for each leaf that meets the range of
        pages, ascending; [lo, hi) are the entries inside the range."""
        end = first + count
        if first >> LEAF_SHIFT == end - 1 >> LEAF_SHIFT:
            only = self.find(first)
            if only is not None:
                yield first & ~LEAF_MASK, only, first & LEAF_MASK, (end - 1 & LEAF_MASK) + 1
            return
        for base, leaf in self._walk(self._root, 0, 0, first, end):
            yield base, leaf, max(first - base, 0), min(end - base, LEAF_SIZE)

    def nodes(self, page: int) -> list[tuple[int, bool]]:
        """(slot, exists) at each interior level on the way to `page`, for dumps."""
        steps: list[tuple[int, bool]] = []
        node: _Node = self._root
        for shift in _INTERIOR_SHIFTS:
            slot = page >> shift & (LEAF_MASK if steps else -1)
            steps.append((slot, slot in node))
            if slot not in node:
                break
            node = node[slot]
        return steps

    def _walk(
        self, node: _Node, level: int, base: int, first: int, end: int
    ) -> Iterator[tuple[int, _L]]:
        shift = _INTERIOR_SHIFTS[level]
        for slot in sorted(node):
            page = base + (slot << shift)
            if page >= end:
                return
            if page + (1 << shift) <= first:
                continue
            if level == len(_INTERIOR_SHIFTS) - 1:
                yield page, node[slot]
            else:
                yield from self._walk(node[slot], level + 1, page, first, end)
