"""A file: simulated disk blocks, the page cache over them, and the areas that map it.

The cache is a vector of frames by page index, 0 where nothing is cached. A cached page holds one
reference on its frame. `dirty` is set when a writable entry is installed or pwrite touches the
page, and cleared by writeback after page_mkclean, so a page that anybody can still store into is
always dirty. Shared anonymous memory is an inode without a name; its blocks take the pages that
reclaim drops.

`mutex` serialises what changes the contents wholesale: read-in, truncate, writeback, pwrite. It
is held over the notifiers' sync, so that a page beyond a truncation cannot come back before every
holder of the old one is done. Faults take it with the mmap_lock held, never the other way round.
"""

import errno
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from xpmem_emu.errors import KernelError
from xpmem_emu.failpoints.points import FILE_READ
from xpmem_emu.mm import pte
from xpmem_emu.mm.events import Mkclean, Truncated
from xpmem_emu.mm.extents import Frames, Mask, Ptes, leading, numbers, paired_runs, runs
from xpmem_emu.mm.gather import Gather
from xpmem_emu.mm.ranges import require_offset
from xpmem_emu.mm.vma import Vma
from xpmem_emu.sched import Mutex
from xpmem_emu.units import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE, page_align_up

if TYPE_CHECKING:
    from xpmem_emu.mm.address_space import AddressSpace
    from xpmem_emu.mm.manager import MemoryManager

_UNCACHED_BIAS = 1 << 40
"""Subtracted from block indices so that they can share a vector with frame numbers."""


class Inode:
    """One file. `size` is in bytes; vectors by page index may be longer than the file."""

    def __init__(self, manager: "MemoryManager", name: str, size: int) -> None:
        self.id = manager.rmap.next_id()
        self.lock = manager.rmap.lock("i_mmap", self.id)
        self.mutex = Mutex(manager.scheduler, manager.lockdep, "i_mutex", self.id)
        self.vmas: dict[Vma, None] = {}
        self.name = name
        """Empty for shared anonymous memory."""
        self.linked = bool(name)
        """Whether a directory entry keeps it alive."""
        self.size = size
        self.frames: Frames = np.zeros(self.pages, dtype=np.int64)
        self.dirty: Mask = np.zeros(self.pages, dtype=np.bool_)
        self._blocks: npt.NDArray[np.uint8] = np.zeros((self.pages, PAGE_SIZE), dtype=np.uint8)
        self._manager = manager
        self._allocator = manager.frames
        manager.rmap.owners[self.id] = self

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

    # -- page cache ------------------------------------------------------------------------

    async def cached(self, index: int, count: int) -> Frames:
        """Frames of the pages from `index` on: at least one, at most `count`, read in where
        missing; none when the file ends before `index`. They are borrowed: valid until the
        caller next awaits. Raises KernelError ENOMEM."""
        while True:
            count = min(count, self.pages - index)
            if count <= 0:
                return self.frames[:0]
            present = self.frames[index : index + count]
            if present[0]:
                return present[: leading(present != 0)].copy()
            async with self.mutex:
                await self._read_in(index, leading(present == 0))

    async def _read_in(self, index: int, count: int) -> None:
        if self._manager.failpoints.armed:
            await self._manager.failpoints.reach(FILE_READ)
        frames = await self._manager.allocate_up_to(count)
        here = self.frames[index : min(index + len(frames), self.pages)]
        missing = np.flatnonzero(here == 0)
        chosen, indices = frames[: len(missing)], missing + index
        for block, frame, length in paired_runs(indices, chosen):
            self._allocator.pages[frame : frame + length] = self._blocks[block : block + length]
        self._allocator.set_owner(chosen, self.id, indices)
        here[missing] = chosen
        self._allocator.put(frames[len(missing) :])

    def caches(self, indices: Frames, frames: Frames) -> Mask:
        """Which of `frames` really are the cached pages `indices`. A frame that truncation
        dropped keeps its index until it is freed."""
        inside = indices < len(self.frames)
        inside[inside] = self.frames[indices[inside]] == frames[inside]
        return inside

    def replace(self, gather: Gather, indices: Frames, frames: Frames) -> None:
        """Cached pages have moved to other frames. What moved away from a lost holder is dirty: it
        may have stored there after the last writeback, unseen."""
        self._allocator.get(frames)
        self.dirty[indices] |= self._allocator.quarantined[self.frames[indices]] > 0
        gather.collect(self.frames[indices])
        self.frames[indices] = frames

    def evict(self, gather: Gather, indices: Frames) -> None:
        """Drop cached pages that nobody maps; dirty ones go to disk first."""
        self._write_blocks(indices[self.dirty[indices]])
        gather.collect(self.frames[indices])
        self.frames[indices] = 0
        self.dirty[indices] = False

    def discard(self, gather: Gather, indices: Frames) -> None:
        """Drop poisoned pages from the cache: what was not written is lost."""
        gather.collect(self.frames[indices])
        self.frames[indices] = 0
        self.dirty[indices] = False

    def _write_blocks(self, indices: Frames) -> None:
        if self._allocator.bad:
            self._allocator.require_good(self.frames[indices])
        for block, frame, count in paired_runs(indices, self.frames[indices]):
            self._blocks[block : block + count] = self._allocator.pages[frame : frame + count]

    # -- contents ----------------------------------------------------------------------------

    async def pread(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes at `offset`; short at the end of the file. Raises EINVAL."""
        require_offset(offset, "offset")
        async with self.mutex:
            size = max(min(size, self.size - offset), 0)
            return b"".join(span.tobytes() for span in self._spans(offset, size))

    async def pwrite(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write at `offset`, extending the file; no bytes change nothing, wherever. Raises EINVAL,
        EFBIG, ENOSPC, ENOENT (deleted)."""
        require_offset(offset, "offset")
        if not len(data):
            return
        async with self.mutex:
            if offset + len(data) > self.size:
                self._extend(offset + len(data))
            rest = np.frombuffer(data, dtype=np.uint8)
            for span in self._spans(offset, len(data)):
                span[:] = rest[: len(span)]
                rest = rest[len(span) :]
            touched = slice(offset >> PAGE_SHIFT, ((offset + len(data) - 1) >> PAGE_SHIFT) + 1)
            self.dirty[touched] |= self.frames[touched] != 0

    def _spans(self, offset: int, size: int) -> Iterator[npt.NDArray[np.uint8]]:
        """The bytes of the file as writable views, cache over disk. Only the bytes asked for:
        importers may be storing into the rest of the same page."""
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
                rows = self._blocks[block : block + count]
            span = rows.reshape(-1)[skip : skip + size]
            size -= len(span)
            skip = 0
            yield span

    # -- size --------------------------------------------------------------------------------

    async def truncate(self, size: int) -> None:
        """Cut or extend the file. Mappings beyond the new end are torn down, private copies
        included; accesses there are SIGBUS from now on (sources T23). Raises EINVAL, EFBIG, ENOSPC,
        ENOENT."""
        require_offset(size, "size")
        async with self.mutex:
            if size >= self.size:
                self._extend(size)
                return
            async with Gather(self._manager) as gather:
                old_pages = self.pages
                self._manager.files.charge(page_align_up(size) - page_align_up(self.size))
                self.size = size
                dropped = self._drop(gather, self.pages, old_pages - self.pages)
                self._blocks = self._blocks[: self.pages].copy()
                self.frames, self.dirty = self.frames[: self.pages], self.dirty[: self.pages]
                self._zero_tail()
                self._manager.tracer.emit(Truncated(file=self.name, size=size, pages=dropped))

    async def punch(self, index: int, count: int) -> None:
        """Make a hole: the pages read as zeros, their frames are given back. What somebody has
        copied for itself is no page of the file any more, and stays."""
        async with self.mutex, Gather(self._manager) as gather:
            count = max(min(count, self.pages - index), 0)
            cached = self.frames[index : index + count]
            self._manager.rmap.visit(
                cached[cached != 0], lambda mm, vpns, ptes: _clear(gather, mm, vpns, ptes)
            )
            self._forget(gather, index, count)
            self._blocks[index : index + count] = 0

    def _extend(self, size: int) -> None:
        self.require_alive()
        self._manager.files.charge(page_align_up(size) - page_align_up(self.size))
        self._zero_tail()
        self.size = size
        if self.pages > len(self._blocks):
            more = max(self.pages, 2 * len(self._blocks)) - len(self._blocks)
            self.frames = np.pad(self.frames, (0, more))
            self.dirty = np.pad(self.dirty, (0, more))
            self._blocks = np.pad(self._blocks, ((0, more), (0, 0)))

    def _zero_tail(self) -> None:
        """Nothing but zeros may ever show between the end of the file and the end of its page. On
        a poisoned page nothing shows."""
        rest = -self.size & PAGE_MASK
        if rest and self._allocator.spoilt(self.frames[self.pages - 1 : self.pages]).any():
            return
        for span in self._spans(self.size, rest):
            span[:] = 0
            self.dirty[self.pages - 1] = self.frames[self.pages - 1] != 0

    def _drop(self, gather: Gather, index: int, count: int) -> int:
        with self.lock:
            for vma in self.vmas:
                first = max(vma.pgoff, index)
                end = min(vma.pgoff + vma.pages, index + count)
                if first < end:
                    start = vma.start + ((first - vma.pgoff) << PAGE_SHIFT)
                    vma.mm.zap(gather, start, start + ((end - first) << PAGE_SHIFT), "truncate")
        return self._forget(gather, index, count)

    def _forget(self, gather: Gather, index: int, count: int) -> int:
        """Take pages that nobody maps out of the cache; how many there were."""
        cached = np.flatnonzero(self.frames[index : index + count]) + index
        gather.collect(self.frames[cached])
        self.frames[cached] = 0
        self.dirty[cached] = False
        return len(cached)

    # -- writeback ---------------------------------------------------------------------------

    async def writeback(self) -> int:
        """Write dirty pages to disk, after page_mkclean of each (sources T23). Returns how many.
        Raises KernelError EIO when some are poisoned: those stay dirty, all others are written."""
        # The mutex ends first: what the gather waits for last may need somebody who waits for it.
        async with Gather(self._manager) as gather, self.mutex:
            indices = np.flatnonzero(self.dirty)
            frames = self.frames[indices]
            self._allocator.get(frames)
            gather.collect(frames)
            self._mkclean(gather, indices)
            await gather.sync()
            lost = self._allocator.spoilt(self.frames[indices])
            self.dirty[indices[lost]] = True
            self._write_blocks(indices[~lost])
            if lost.any():
                raise KernelError(
                    errno.EIO, f"machine check: dirty pages of {self.title} are poisoned"
                )
            return len(indices)

    def _mkclean(self, gather: Gather, indices: Frames) -> None:
        """Write-protect every entry of the pages, so that the next store is seen as a fault."""
        self.dirty[indices] = False
        protected = np.uint64(pte.without(pte.WRITE, pte.DIRTY))

        def clean(mm: "AddressSpace", vpns: Frames, ptes: Ptes) -> None:
            writable = pte.has(ptes, pte.WRITE)
            gather.invalidate_pages(mm, vpns[writable])
            mm.page_table.write(vpns[writable], ptes[writable] & protected)

        self._manager.rmap.visit(self.frames[indices], clean)
        self._manager.tracer.emit(Mkclean(file=self.name, pages=len(indices)))

    # -- the end -----------------------------------------------------------------------------

    def require_alive(self) -> None:
        """Raise ENOENT when the inode was destroyed; who held on to it slept too long."""
        if self.id not in self._manager.rmap.owners:
            raise KernelError(errno.ENOENT, f"{self.title} was deleted")

    def destroy_if_unused(self, gather: Gather) -> None:
        """Give everything back when neither a name nor an area keeps the inode alive."""
        if not (self.linked or self.vmas) and self.id in self._manager.rmap.owners:
            self._drop(gather, 0, len(self.frames))
            del self._manager.rmap.owners[self.id]
            self._manager.files.charge(-page_align_up(self.size))
            self.size = 0
            self._blocks = self._blocks[:0].copy()


def _clear(gather: Gather, mm: "AddressSpace", vpns: Frames, ptes: Ptes) -> None:
    """Clear entries, under the page_table_lock. Who maps them is told."""
    gather.invalidate_pages(mm, vpns)
    mm.exchange(gather, vpns, ptes, np.zeros_like(ptes))
