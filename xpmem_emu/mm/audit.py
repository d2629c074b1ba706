"""The audit: recompute every count from page tables, caches and swap, and compare.

Mapping counts and swap counts must always agree. References of running operations cannot be
seen from outside, so the reference counts must agree exactly only when nothing is running.
"""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from xpmem_emu.errors import KernelBug
from xpmem_emu.mm import pte
from xpmem_emu.mm.extents import Frames
from xpmem_emu.mm.inode import Inode
from xpmem_emu.units import PAGE_SHIFT, TASK_SIZE

if TYPE_CHECKING:
    from xpmem_emu.mm.manager import MemoryManager


def audit(manager: "MemoryManager") -> dict[str, int]:
    """Counts of what is in use. Raises KernelBug with the first difference."""
    frames, swap = manager.frames, manager.swap
    mapped = np.zeros(frames.total, dtype=np.int64)
    slots = np.zeros(swap.total, dtype=np.int64)
    rss = 0
    for mm in manager.address_spaces.values():
        ptes = mm.page_table.entries(0, TASK_SIZE >> PAGE_SHIFT)[1]
        held = pte.frame_field(ptes[pte.counted(ptes)]) & pte.LOCAL_MASK
        np.add.at(mapped, held, 1)
        np.add.at(slots, pte.frame_field(ptes[pte.has(ptes, pte.SWAP)]), 1)
        _compare(f"rss of task {mm.pid}", len(held), mm.rss)
        rss += len(held)
    cached = _cached(manager)
    expected = mapped + cached + frames.pins + frames.quarantined
    _compare("mapcount of frame", mapped, frames.mapcount)
    _compare("count of swap slot", slots, swap.count)
    if manager.operations == 0:
        _compare("refcount of frame", expected, frames.refcount)
        _compare("frames in use, counter", np.count_nonzero(expected), frames.in_use)
    return {
        "frames_total": frames.total - 1,
        "frames_in_use": frames.in_use,
        "frames_pinned": frames.pinned,
        "frames_quarantined": int(np.count_nonzero(frames.quarantined)),
        "frames_mapped": rss,
        "frames_cached": int(cached.sum()),
        "swap_in_use": swap.in_use,
        "disk_used": manager.files.used,
        "address_spaces": len(manager.address_spaces),
        "areas": sum(len(mm.vmas) for mm in manager.address_spaces.values()),
        "operations": manager.operations,
    }


def _cached(manager: "MemoryManager") -> Frames:
    cached = np.zeros(manager.frames.total, dtype=np.int64)
    for owner in manager.rmap.owners.values():
        if isinstance(owner, Inode):
            np.add.at(cached, owner.frames[owner.cached_pages()], 1)
    return cached


def _compare(what: str, expected: npt.ArrayLike, actual: npt.ArrayLike) -> None:
    expected, actual = np.atleast_1d(expected), np.atleast_1d(actual)
    wrong = np.flatnonzero(expected != actual)
    if len(wrong):
        at = int(wrong[0])
        raise KernelBug(
            f"audit: {what} {at} is {int(actual[at])}, should be {int(expected[at])} "
            f"({len(wrong)} differences)"
        )
