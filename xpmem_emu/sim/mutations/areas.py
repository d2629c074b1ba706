"""Areas and entries of one partition: protection, moves, pins, swap slots, frames."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

import numpy as np

from xpmem_emu.mm import access, fault, gup, pte, remap, rmap
from xpmem_emu.mm import protect as protection
from xpmem_emu.mm.entries import zap
from xpmem_emu.mm.frames import FrameAllocator
from xpmem_emu.mm.gather import Gather
from xpmem_emu.mm.memory_failure import poison_frame
from xpmem_emu.mm.mm_types import MemoryContext
from xpmem_emu.mm.swap import SwapArea
from xpmem_emu.mm.transit import Transit
from xpmem_emu.mm.vma_flags import Prot
from xpmem_emu.sim.mutations.patches import everywhere
from xpmem_emu.sim.mutations.slip import slip
from xpmem_emu.units import PAGE_SIZE, TASK_SIZE, page_align_up


def _silently(function: Callable[..., Any]) -> AbstractContextManager[Any]:
    """That function tells no notifier of what it changes."""

    def silent(*given: Any, **named: Any) -> Any:
        with patch.object(Gather, "invalidate", lambda self, mm, start, end: None):
            return function(*given, **named)

    return everywhere(function, silent)


def protect_without_recall() -> AbstractContextManager[Any]:
    """mprotect changes its own entries and tells nobody."""
    return _silently(protection._change_entries)


def move_without_recall() -> AbstractContextManager[Any]:
    """mremap takes the entries along and tells nobody."""
    return _silently(remap._move_entries)


def zap_without_recall() -> AbstractContextManager[Any]:
    """munmap, DONTNEED and truncation clear entries and tell nobody."""
    return _silently(zap)


def protect_keeps_entries() -> AbstractContextManager[Any]:
    """A read-only area keeps its writable entries."""
    protected = protection._protected

    def lax(ptes: Any, prot: Prot) -> Any:
        return protected(ptes, prot if prot == Prot.NONE else Prot.READ | Prot.WRITE)

    return patch.object(protection, "_protected", lax)


pin_without_breaking = slip(
    gup, "_ready", "pte.PRESENT | pte.WRITE if vma.writable else pte.PRESENT", "pte.PRESENT"
)
"""Pages are pinned as they are: whoever shares them by copy on write still does."""


def hidden_pages_pinned() -> AbstractContextManager[Any]:
    """What its owner may not touch is given to others all the same."""
    refusal = gup._refusal

    def lax(vma: Any) -> Any:
        return None if vma.ops is None and vma.prot == Prot.NONE else refusal(vma)

    return patch.object(gup, "_refusal", lax)


def private_store_reaches_file() -> AbstractContextManager[Any]:
    """A private page of a file that nobody else maps is stored into, not copied."""
    protected = fault._write_protected

    async def reuse(vma: Any, first: int, ptes: Any) -> None:
        allocator = vma.mm.context.frames
        frames = pte.frame_field(ptes[:1]) & pte.LOCAL_MASK
        if not vma.shared and allocator.mapcount[frames[0]] == 1:
            fault._make_writable(vma, first, ptes[:1])
        else:
            await protected(vma, first, ptes)

    return patch.object(fault, "_write_protected", reuse)


def access_checks_neighbours() -> AbstractContextManager[Any]:
    """An access asks whole pages, and the one behind, whether they are usable."""
    check = access.check_special

    def wide(mm: Any, start: int, end: int) -> None:
        check(mm, start, min(page_align_up(end) + PAGE_SIZE, TASK_SIZE))

    return patch.object(access, "check_special", wide)


def zeros_not_written() -> AbstractContextManager[Any]:
    """A new page shows what its frame held before."""
    fill = FrameAllocator.fill

    def stale(self: FrameAllocator, frames: Any, value: int) -> None:
        if value:
            fill(self, frames, value)

    return patch.object(FrameAllocator, "fill", stale)


def copies_before_sync() -> AbstractContextManager[Any]:
    """Contents move while importers may still store into the old frame."""

    async def hasty(self: Transit) -> None:
        return None

    return patch.object(Transit, "sync", hasty)


def one_mapping_found() -> AbstractContextManager[Any]:
    """The reverse map stops at the first area that maps a frame."""
    visit = rmap._visit_owner

    def lazy(owner: Any, frames: Any, indices: Any, visitor: Any) -> None:
        found: list[Any] = []

        def first(mm: Any, vpns: Any, ptes: Any) -> None:
            if not found:
                found.append(mm)
                visitor(mm, vpns, ptes)

        visit(owner, frames, indices, first)

    return patch.object(rmap, "_visit_owner", lazy)


def slots_not_counted() -> AbstractContextManager[Any]:
    """fork does not count that the child names the parent's swap slots."""
    return patch.object(SwapArea, "get", lambda self, slots: None)


def poison_forgotten() -> AbstractContextManager[Any]:
    """Who moves pages does not ask whether they can be read."""

    def good(self: FrameAllocator, frames: Any) -> Any:
        return np.zeros(len(frames), dtype=np.bool_)

    return patch.object(FrameAllocator, "spoilt", good)


def poison_anywhere() -> AbstractContextManager[Any]:
    """A frame of a peer that goes bad takes ours of that number with it."""

    def alias(context: MemoryContext, home: int, frame: int) -> None:
        poison_frame(context, home, frame)
        if frame < context.frames.total:
            context.frames.poison(frame)

    return everywhere(poison_frame, alias)
