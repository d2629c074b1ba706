"""Files: what is dirty, what a hole and the end of a file mean, whose pages are whose."""

from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

import numpy as np

from xpmem_emu.mm import fault
from xpmem_emu.mm.gather import Gather
from xpmem_emu.mm.inode import Inode

_FAR = 1 << 16


def dirty_forgotten() -> AbstractContextManager[Any]:
    """File pages that leave the cache are not written first."""
    evict = Inode.evict

    def careless(self: Inode, gather: Gather, indices: Any) -> None:
        with patch.object(Inode, "_write_blocks", lambda self, indices: None):
            evict(self, gather, indices)

    return patch.object(Inode, "evict", careless)


def tail_shows() -> AbstractContextManager[Any]:
    """What was stored behind the end of a file shows when the file grows."""
    return patch.object(Inode, "_zero_tail", lambda self: None)


def writeback_writes_nothing() -> AbstractContextManager[Any]:
    """A writeback takes the dirty mark away, and that is all."""
    blocks = Inode._write_blocks

    def keep(self: Inode, indices: Any) -> None:
        if self.dirty[indices].all():  # an eviction: these are dirty still
            blocks(self, indices)

    return patch.object(Inode, "_write_blocks", keep)


def pwrite_leaves_clean() -> AbstractContextManager[Any]:
    """What a call writes into cached pages does not make them dirty."""
    pwrite = Inode.pwrite

    async def clean(self: Inode, offset: int, data: Any) -> None:
        before = self.dirty.copy()
        await pwrite(self, offset, data)
        size = min(len(before), len(self.dirty))
        self.dirty[:size] &= before[:size]

    return patch.object(Inode, "pwrite", clean)


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

    def kept(self: Inode, gather: Gather, index: int, count: int) -> int:
        return self._forget(gather, index, count)

    return patch.object(Inode, "_drop", kept)


def hole_takes_copies() -> AbstractContextManager[Any]:
    """A hole in a file takes the private copies of its pages as well."""

    async def greedy(self: Inode, index: int, count: int) -> None:
        async with self.mutex, Gather(self._manager) as gather:
            count = max(min(count, self.pages - index), 0)
            self._drop(gather, index, count)
            self._blocks[index : index + count] = 0

    return patch.object(Inode, "punch", greedy)


def hole_keeps_blocks() -> AbstractContextManager[Any]:
    """Behind a hole is what was written there before."""
    punch = Inode.punch

    async def shallow(self: Inode, index: int, count: int) -> None:
        blocks = self._blocks.copy()
        await punch(self, index, count)
        size = min(len(blocks), len(self._blocks))
        self._blocks[:size] = np.where(
            self._blocks[:size].any(axis=1, keepdims=True), self._blocks[:size], blocks[:size]
        )

    return patch.object(Inode, "punch", shallow)
