"""The page cache: which frames hold pages of files, and what becomes of them there.

Atomic, all of it. References of frames that leave the cache are put by the Gather, after the
notifiers' sync.
"""

from collections.abc import Iterator

import numpy as np

from xpmem_emu.mm.extents import Frames, Mask, groups
from xpmem_emu.mm.gather import Gather
from xpmem_emu.mm.inode import Inode
from xpmem_emu.mm.mm_types import MemoryContext


def by_inode(context: MemoryContext, frames: Frames) -> Iterator[tuple[Inode, Frames]]:
    """(inode, positions in `frames`) of the frames that are in a page cache now."""
    owner, index = context.frames.owner[frames], context.frames.index[frames]
    order = np.lexsort((index, owner))
    for number, lo, hi in groups(owner[order]):
        inode = context.files.inodes.get(number)
        if inode is not None:
            part = order[lo:hi]
            yield inode, part[inode.caches(index[part], frames[part])]


def in_page_cache(context: MemoryContext, frames: Frames) -> Mask:
    """Which frames are in a page cache now."""
    cached = np.zeros(len(frames), dtype=np.bool_)
    for _, positions in by_inode(context, frames):
        cached[positions] = True
    return cached


def movable(context: MemoryContext, frames: Frames) -> Frames:
    """Those of `frames` that may be asked for: all but the pages of mspec."""
    fixed = context.files.fixed
    return frames[~np.isin(context.frames.owner[frames], list(fixed))] if fixed else frames


def replace(gather: Gather, inode: Inode, indices: Frames, frames: Frames) -> None:
    """Cached pages have moved to other frames. What moved away from a lost holder is dirty: it
    may have stored there after the last writeback, unseen."""
    allocator = gather.context.frames
    allocator.get(frames)
    inode.dirty[indices] |= allocator.quarantined[inode.frames[indices]] > 0
    gather.collect(inode.frames[indices])
    inode.frames[indices] = frames


def evict_pages(gather: Gather, inode: Inode, indices: Frames) -> None:
    """Drop cached pages that nobody maps; dirty ones go to disk first."""
    inode.write_blocks(indices[inode.dirty[indices]])
    discard(gather, inode, indices)


def discard(gather: Gather, inode: Inode, indices: Frames) -> None:
    """Drop pages from the cache: what was not written is lost."""
    gather.collect(inode.frames[indices])
    inode.frames[indices] = 0
    inode.dirty[indices] = False


def forget(gather: Gather, inode: Inode, index: int, count: int) -> int:
    """Take pages that nobody maps out of the cache, their contents too; how many there were."""
    cached = np.flatnonzero(inode.frames[index : index + count]) + index
    discard(gather, inode, cached)
    return len(cached)


def unpin_pages(context: MemoryContext, frames: Frames) -> None:
    """Give back frames that `pin_pages` pinned. File pages are dirty from now on: whoever held
    them may have stored into them after the last writeback, unseen by this kernel."""
    for inode, positions in by_inode(context, frames):
        inode.dirty[context.frames.index[frames[positions]]] = True
    context.frames.unpin(frames)
