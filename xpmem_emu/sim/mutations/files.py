"""Files: what is dirty, what a hole and the end of a file mean, whose pages are whose."""

from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

import numpy as np

from xpmem_emu.mm import fault, page_cache, truncate
from xpmem_emu.mm.files import pwrite
from xpmem_emu.mm.gather import Gather
from xpmem_emu.mm.inode import Inode
from xpmem_emu.mm.mm_types import MemoryContext
from xpmem_emu.sim.mutations.patches import everywhere


def dirty_forgotten() -> AbstractContextManager[Any]:
    """File pages that leave the cache are not written first."""
    evict = page_cache.evict_pages

    def careless(gather: Gather, inode: Inode, indices: Any) -> None:
        with patch.object(Inode, "write_blocks", lambda self, indices: None):
            evict(gather, inode, indices)

    return everywhere(evict, careless)


def tail_shows() -> AbstractContextManager[Any]:
    """What was stored behind the end of a file shows when the file grows."""
    return patch.object(Inode, "zero_tail", lambda self: None)


def writeback_writes_nothing() -> AbstractContextManager[Any]:
    """A writeback takes the dirty mark away, and that is all."""
    blocks = Inode.write_blocks

    def keep(self: Inode, indices: Any) -> None:
        if self.dirty[indices].all():  # an eviction: these are dirty still
            blocks(self, indices)

    return patch.object(Inode, "write_blocks", keep)


def pwrite_leaves_clean() -> AbstractContextManager[Any]:
    """What a call writes into cached pages does not make them dirty."""

    async def clean(context: MemoryContext, inode: Inode, offset: int, data: Any) -> None:
        before = inode.dirty.copy()
        await pwrite(context, inode, offset, data)
        size = min(len(before), len(inode.dirty))
        inode.dirty[:size] &= before[:size]

    return everywhere(pwrite, clean)


def store_leaves_clean() -> AbstractContextManager[Any]:
    """The first store into a shared page that was only read does not make it dirty."""
    protected = fault._write_protected

    async def clean(vma: Any, first: int, ptes: Any) -> None:
        before = vma.inode.dirty.copy() if vma.shared else None
        await protected(vma, first, ptes)
        if before is not None:
            vma.inode.dirty[:] = before

    return patch.object(fault, "_write_protected", clean)


def truncate_keeps_mappings() -> AbstractContextManager[Any]:
    """Who maps the end of a file still sees what was cut off."""

    async def kept(gather: Gather, inode: Inode, index: int, count: int) -> int:
        return page_cache.forget(gather, inode, index, count)

    return patch.object(truncate, "_drop", kept)


def hole_takes_copies() -> AbstractContextManager[Any]:
    """A hole in a file takes the private copies of its pages as well."""

    async def greedy(context: MemoryContext, inode: Inode, index: int, count: int) -> None:
        async with inode.mutex, Gather(context) as gather:
            count = max(min(count, inode.pages - index), 0)
            await truncate._drop(gather, inode, index, count)
            inode.blocks[index : index + count] = 0

    return everywhere(truncate.punch, greedy)


def hole_keeps_blocks() -> AbstractContextManager[Any]:
    """Behind a hole is what was written there before."""
    punch = truncate.punch

    async def shallow(context: MemoryContext, inode: Inode, index: int, count: int) -> None:
        blocks = inode.blocks.copy()
        await punch(context, inode, index, count)
        size = min(len(blocks), len(inode.blocks))
        inode.blocks[:size] = np.where(
            inode.blocks[:size].any(axis=1, keepdims=True), inode.blocks[:size], blocks[:size]
        )

    return everywhere(punch, shallow)
