"""Vectors of page numbers and their runs: the arithmetic that all range work shares.

A run is (first, count): `count` consecutive numbers. Copies, fills and notifications are made
once per run, so that ten thousand contiguous pages cost what one page costs.
"""

from itertools import pairwise

import numpy as np
import numpy.typing as npt

Frames = npt.NDArray[np.int64]
"""Frame numbers, page numbers, slots or indices."""
Ptes = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]


def numbers(first: int, count: int) -> Frames:
    """`first`, `first + 1`, ... as a vector."""
    return np.arange(first, first + count, dtype=np.int64)


def distinct(values: Frames) -> Frames:
    """Each of `values` once, ascending. Ten times as fast as np.unique, which hashes."""
    ordered: Frames = np.sort(values)
    first: Mask = np.diff(ordered, prepend=-1) != 0
    return ordered[first]


def _bounds(breaks: npt.NDArray[np.intp], length: int) -> list[tuple[int, int]]:
    return list(pairwise([0, *(breaks + 1).tolist(), length]))


def runs(values: Frames) -> list[tuple[int, int]]:
    """The runs of `values`, in order."""
    if len(values) <= 1:
        return [(int(value), 1) for value in values]
    bounds = _bounds(np.flatnonzero(np.diff(values) != 1), len(values))
    return [(int(values[lo]), hi - lo) for lo, hi in bounds]


def paired_runs(left: Frames, right: Frames) -> list[tuple[int, int, int]]:
    """(first left, first right, count) of the stretches in which both sides are consecutive."""
    if len(left) == 0:
        return []
    breaks = np.flatnonzero((np.diff(left) != 1) | (np.diff(right) != 1))
    return [(int(left[lo]), int(right[lo]), hi - lo) for lo, hi in _bounds(breaks, len(left))]


def groups(keys: Frames) -> list[tuple[int, int, int]]:
    """(key, lo, hi) of each stretch of equal keys; `keys` must be ascending."""
    if len(keys) == 0:
        return []
    if keys[0] == keys[-1]:
        return [(int(keys[0]), 0, len(keys))]
    return [(int(keys[lo]), lo, hi) for lo, hi in _bounds(np.flatnonzero(np.diff(keys)), len(keys))]


def locate(keys: Frames, wanted: Frames) -> tuple[Frames, Mask]:
    """(places, found): where each of `wanted` stands in the ascending `keys`, if it does. The
    place of one that is not found is meaningless but valid, unless there are no keys."""
    places = np.searchsorted(keys, wanted)
    if len(keys) == 0:
        return places, np.zeros(len(wanted), dtype=np.bool_)
    places[places == len(keys)] = 0
    return places, keys[places] == wanted


def leading(mask: Mask) -> int:
    """How many elements at the front of `mask` are true."""
    first = int(mask.argmin()) if len(mask) else 0
    return len(mask) if len(mask) and mask[first] else first
