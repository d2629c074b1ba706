"""A file: simulated disk blocks, and the page cache over them.

The cache is a vector of frames by page index, 0 where nothing is cached. A cached page holds one
reference on its frame. `dirty` is set when a writable entry is installed or pwrite touches the
page, and cleared by writeback after page_mkclean, so a page that anybody can still store into is
always dirty. Shared anonymous memory is an inode without a name; its blocks take the pages that
reclaim drops. The areas that map a file are with its owner number (`MemoryContext.owners`).

`mutex` serialises what changes the contents wholesale: read-in, truncate, writeback, pwrite. It
is held over the notifiers' sync, so that a page beyond a truncation cannot come back before every
holder of the old one is done. Faults take it with the mmap_lock held, never the other way round.
Without it pages still leave the cache, or change frames: reclaim and migration, which hold every
entry of theirs BUSY; a fence, with poisoned ones; and the end of the inode. Whoever has it looks
again after each sleep.
"""

import errno
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from xpmem_emu.errors import KernelError
from xpmem_emu.mm.extents import Frames, Mask, numbers, paired_runs, runs
from xpmem_emu.mm.frames import FrameAllocator
from xpmem_emu.sched import Mutex
from xpmem_emu.units import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE

_UNCACHED_BIAS = 1 << 40
"""Subtracted from block indices so that they can share a vector with frame numbers."""


class Inode:
    """One file. `size` is in bytes; vectors by page index may be longer than the file."""

    def __init__(
        self, number: int, mutex: Mutex, allocator: FrameAllocator, name: str, size: int
    ) -> None:
        self.id = number
        """Its frames are marked with it."""
        self.mutex = mutex
        self.name = name
        """Empty for shared anonymous memory."""
        self.linked = bool(name)
        """Whether a directory entry keeps it alive."""
        self.size = size
        """Guarded by `mutex`, as are the lengths of the vectors."""
        self.frames: Frames = np.zeros(self.pages, dtype=np.int64)
        """Filled under `mutex`; emptied without it, as said above."""
        self.dirty: Mask = np.zeros(self.pages, dtype=np.bool_)
        """Set in one step with what makes it so, under no lock; cleared by writeback, under
        `mutex`, and by whoever takes the page out of the cache."""
        self.blocks: npt.NDArray[np.uint8] = np.zeros((self.pages, PAGE_SIZE), dtype=np.uint8)
        self._allocator = allocator

    @property
    def pages(self) -> int:
        """Pages that the file has, the last one counted whole."""
        return (self.size + PAGE_MASK) >> PAGE_SHIFT

    @property
    def title(self) -> str:
        """For messages to people."""
        return f"file {self.name}" if self.name else "the shared memory object"

    def cached_pages(self) -> Frames:
        """Indices of the pages in the cache."""
        return np.flatnonzero(self.frames)

    def caches(self, indices: Frames, frames: Frames) -> Mask:
        """Which of `frames` really are the cached pages `indices`. A frame that truncation
        dropped keeps its index until it is freed."""
        inside = indices < len(self.frames)
        inside[inside] = self.frames[indices[inside]] == frames[inside]
        return inside

    # -- bytes -------------------------------------------------------------------------------

    def read_blocks(self, indices: Frames, frames: Frames) -> None:
        """Copy blocks into frames, in runs."""
        for block, frame, count in paired_runs(indices, frames):
            self._allocator.pages[frame : frame + count] = self.blocks[block : block + count]

    def write_blocks(self, indices: Frames) -> None:
        """Copy cached pages to their blocks, in runs."""
        if self._allocator.bad:
            self._allocator.require_good(self.frames[indices])
        for block, frame, count in paired_runs(indices, self.frames[indices]):
            self.blocks[block : block + count] = self._allocator.pages[frame : frame + count]

    def spans(self, offset: int, size: int) -> Iterator[npt.NDArray[np.uint8]]:
        """The bytes of the file as writable views, cache over disk. Only the bytes asked for:
        importers may be storing into the rest of the same page. Raises EIO (poisoned)."""
        if size == 0:
            return
        first, last = offset >> PAGE_SHIFT, (offset + size - 1) >> PAGE_SHIFT
        frames = self.frames[first : last + 1]
        if self._allocator.spoilt(frames).any():
            raise KernelError(errno.EIO, f"machine check: a page of {self.title} is poisoned")
        blocks = numbers(first, len(frames)) - _UNCACHED_BIAS
        skip = offset & PAGE_MASK
        for place, count in runs(np.where(frames != 0, frames, blocks)):
            if place > 0:
                rows = self._allocator.pages[place : place + count]
            else:
                block = place + _UNCACHED_BIAS
                rows = self.blocks[block : block + count]
            span = rows.reshape(-1)[skip : skip + size]
            size -= len(span)
            skip = 0
            yield span

    # -- size --------------------------------------------------------------------------------

    def grow(self, size: int) -> None:
        """Make the file `size` bytes long; the new ones are zero."""
        self.zero_tail()
        self.size = size
        if self.pages > len(self.blocks):
            more = max(self.pages, 2 * len(self.blocks)) - len(self.blocks)
            self.frames = np.pad(self.frames, (0, more))
            self.dirty = np.pad(self.dirty, (0, more))
            self.blocks = np.pad(self.blocks, ((0, more), (0, 0)))

    def cut(self) -> None:
        """Give up the vectors beyond the end, where nothing is cached any more."""
        self.blocks = self.blocks[: self.pages].copy()
        self.frames, self.dirty = self.frames[: self.pages], self.dirty[: self.pages]
        self.zero_tail()

    def zero_tail(self) -> None:
        """Nothing but zeros may ever show between the end of the file and the end of its page. On
        a poisoned page nothing shows."""
        rest = -self.size & PAGE_MASK
        if rest and self._allocator.spoilt(self.frames[self.pages - 1 : self.pages]).any():
            return
        for span in self.spans(self.size, rest):
            span[:] = 0
            self.dirty[self.pages - 1] = self.frames[self.pages - 1] != 0
