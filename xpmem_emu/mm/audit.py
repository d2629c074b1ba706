"""The audit of memory: recompute every index and count from what it stands for, and compare.

Pure readers: nothing is changed, a difference is a KernelBug that names both numbers. Called
whenever all threads sleep, which may be in the middle of any operation; what is compared holds at
every await. References of running operations cannot be seen from outside, so reference counts are
at least what is known of them, and exactly that when nothing runs. Entries and areas: audit_areas.
"""

import numpy as np
import numpy.typing as npt

from xpmem_emu.errors import KernelBug
from xpmem_emu.mm import pte
from xpmem_emu.mm.audit_areas import check_areas
from xpmem_emu.mm.extents import Frames
from xpmem_emu.mm.mm_types import MemoryContext
from xpmem_emu.units import PAGE_SHIFT, TASK_SIZE, page_align_up


def audit_memory(context: MemoryContext) -> dict[str, int]:
    """Counts of what is in use. Raises KernelBug with the first difference."""
    frames, swap = context.frames, context.swap
    mapped = check_counts(context)
    check_areas(context)
    return {
        "frames_total": frames.total - 1,
        "frames_in_use": frames.in_use,
        "frames_pinned": frames.pinned,
        "frames_quarantined": int(np.count_nonzero(frames.quarantined)),
        "frames_shadowed": int(frames.shadowed.sum()),
        "frames_mapped": int(mapped.sum()),
        "frames_cached": int(_cached(context).sum()),
        "swap_in_use": swap.in_use,
        "disk_used": context.files.used,
        "address_spaces": len(context.address_spaces),
        "areas": sum(len(mm.vmas) for mm in context.address_spaces.values()),
        "operations": context.operations,
    }


def check_counts(context: MemoryContext) -> Frames:
    """Frames and swap slots against page tables, page cache, pins and quarantine. Returns how many
    entries map each frame."""
    frames, swap = context.frames, context.swap
    mapped = np.zeros(frames.total, dtype=np.int64)
    slots = np.zeros(swap.total, dtype=np.int64)
    for mm in context.address_spaces.values():
        ptes = mm.page_table.entries(0, TASK_SIZE >> PAGE_SHIFT)[1]
        held = pte.frame_field(ptes[pte.counted(ptes)]) & pte.LOCAL_MASK
        np.add.at(mapped, held, 1)
        np.add.at(slots, pte.frame_field(ptes[pte.has(ptes, pte.SWAP)]), 1)
        compare(f"rss of task {mm.pid}", len(held), mm.rss)
    compare("mapcount of frame", mapped, frames.mapcount)
    compare("count of swap slot", slots, swap.count)
    known = mapped + _cached(context) + frames.pins + frames.quarantined + frames.shadowed
    if context.operations == 0 and context.loans == 0:
        compare("refcount of frame", known, frames.refcount)
    compare("refcount of frame, at least", np.maximum(known, frames.refcount), frames.refcount)
    _check_free(context)
    return mapped


def _check_free(context: MemoryContext) -> None:
    """The free lists hold exactly what nobody refers to, each once."""
    frames, swap = context.frames, context.swap
    unused = np.flatnonzero(frames.refcount[1:] == 0) + 1
    compare("frames that are free", len(unused), frames.free)
    compare("free frame at place", unused, np.sort(frames._stack[: frames.free]))
    compare("owner of free frame at place", np.zeros(len(unused)), frames.owner[unused])
    slots = np.flatnonzero(swap.count == 0)
    compare("swap slots that are free", len(slots), swap.free)
    compare("free swap slot at place", slots, np.sort(swap._stack[: swap.free]))
    compare(
        "poisoned frames in quarantine",
        len(frames.bad),
        int(np.count_nonzero(frames.quarantined[sorted(frames.bad)])),
    )


def _cached(context: MemoryContext) -> Frames:
    """How often each frame is in a page cache; checks the caches on the way."""
    cached = np.zeros(context.frames.total, dtype=np.int64)
    used = 0
    for number, inode in context.files.inodes.items():
        vectors = [len(inode.frames), len(inode.dirty), len(inode.blocks)]
        compare(f"lengths of the vectors of {inode.title}, at", [max(vectors)] * 3, vectors)
        pages = inode.cached_pages()
        held = inode.frames[pages]
        np.add.at(cached, held, 1)
        used += page_align_up(inode.size)
        compare(
            f"owner of frame cached by {inode.title}, at place",
            np.full(len(held), number),
            context.frames.owner[held],
        )
        compare(
            f"index of frame cached by {inode.title}, at place", pages, context.frames.index[held]
        )
        compare(
            f"dirty pages of {inode.title} that are cached",
            int(inode.dirty.sum()),
            int(inode.dirty[pages].sum()),
        )
        compare(
            f"cached pages of {inode.title} that it has",
            len(pages),
            int(np.count_nonzero(pages < inode.pages)),
        )
    compare("bytes of disk in use", used, context.files.used)
    return cached


def compare(what: str, expected: npt.ArrayLike, actual: npt.ArrayLike) -> None:
    """KernelBug at the first place where two vectors, or numbers, differ."""
    expected, actual = np.atleast_1d(expected), np.atleast_1d(actual)
    if len(expected) != len(actual):
        raise KernelBug(f"audit: {len(actual)} times {what}, should be {len(expected)}")
    wrong = np.flatnonzero(expected != actual)
    if len(wrong):
        at = int(wrong[0])
        raise KernelBug(
            f"audit: {what} {at} is {int(actual[at])}, should be {int(expected[at])} "
            f"({len(wrong)} differences)"
        )
