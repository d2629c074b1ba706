"""The frames of one partition: who holds them, and when they are free again.

Per frame, as vectors: references (`refcount`), page-table entries (`mapcount`), pins held for
users outside this kernel (`pins`), quarantine marks, and the reverse-map key (owner id, index).
Invariants: refcount = mapcount + pins + quarantine + page cache + running operations; a frame is
free exactly when refcount is 0; a free frame has no pin, no mapping and no owner, and is filled
with junk so that a use after free shows. Frame 0 is reserved: 0 means "unknown".

No lock: mapcount changes in one step with the entry, under its page_table_lock; everything else in
a step of its own. So what was read here before a sleep is read again after it.

The free list is a stack, so a freed frame is the next one handed out and a stale mapping is
noticed at once; a batch comes out in ascending order, contiguous when it was freed together.
"""

import errno

import numpy as np
import numpy.typing as npt

from xpmem_emu.errors import KernelBug, KernelError
from xpmem_emu.mm.events import FramesFree
from xpmem_emu.mm.extents import Frames, Mask, distinct, numbers, paired_runs, runs
from xpmem_emu.mm.pte import PARTID_SHIFT
from xpmem_emu.trace import Tracer
from xpmem_emu.units import PAGE_SIZE

JUNK = 0x6B
Counts = npt.NDArray[np.int32]


class FrameAllocator:
    """All vectors of frames here are local frame numbers (int64); duplicates count twice."""

    def __init__(self, partid: int, arena: memoryview, tracer: Tracer) -> None:
        self.total = len(arena) // PAGE_SIZE
        self.base = partid << PARTID_SHIFT
        """Global number of local frame 0."""
        self.pages = np.frombuffer(arena, dtype=np.uint8, count=self.total * PAGE_SIZE).reshape(
            self.total, PAGE_SIZE
        )
        """The memory, one row per frame."""
        self.refcount: Counts = np.zeros(self.total, dtype=np.int32)
        self.mapcount: Counts = np.zeros(self.total, dtype=np.int32)
        self.pins: Counts = np.zeros(self.total, dtype=np.int32)
        self.quarantined: Counts = np.zeros(self.total, dtype=np.int32)
        self.shadowed: Counts = np.zeros(self.total, dtype=np.int32)
        self.owner: Frames = np.zeros(self.total, dtype=np.int64)
        self.index: Frames = np.zeros(self.total, dtype=np.int64)
        self.bad: set[int] = set()
        """Poisoned frames; each is in quarantine, so that nobody gets it anew."""
        self._tracer = tracer
        self._stack = numbers(1, self.total - 1)[::-1].copy()
        self.free = self.total - 1
        """Frames on the free list."""

    @property
    def in_use(self) -> int:
        """Frames that somebody holds."""
        return self.total - 1 - self.free

    @property
    def pinned(self) -> int:
        """Sum of all pins."""
        return int(self.pins.sum())

    # -- taking and giving back --------------------------------------------------------------

    def allocate(self, count: int) -> Frames:
        """`count` frames with one reference each, contents undefined. KernelError ENOMEM."""
        if count > self.free:
            raise KernelError(errno.ENOMEM, f"{count} frames wanted, {self.free} are free")
        self.free -= count
        frames = np.sort(self._stack[self.free : self.free + count])
        self.refcount[frames] = 1
        return frames

    def get(self, frames: Frames) -> None:
        """One more reference to each."""
        if not self.refcount[frames].all():
            raise KernelBug(f"reference taken to a free frame among {runs(frames)[:4]}")
        np.add.at(self.refcount, frames, 1)

    def put(self, frames: Frames) -> None:
        """One reference less to each; frames that nobody holds become free."""
        self._decrease(self.refcount, frames, "refcount")
        unused = frames[self.refcount[frames] == 0]
        if len(unused):
            self._free(distinct(unused))

    def pin(self, frames: Frames) -> None:
        """A user outside of this kernel holds each frame where it is."""
        self.get(frames)
        np.add.at(self.pins, frames, 1)

    def unpin(self, frames: Frames) -> None:
        """The opposite of pin; a frame that nobody else holds becomes free."""
        self._decrease(self.pins, frames, "pin count")
        self.put(frames)

    def quarantine(self, frames: Frames) -> None:
        """Keep frames out of the allocator although their contents may leave them: somebody
        who was given up may still write there."""
        self.get(frames)
        np.add.at(self.quarantined, frames, 1)

    def release_quarantined(self, frames: Frames) -> None:
        """The opposite of quarantine."""
        self._decrease(self.quarantined, frames, "quarantine count")
        self.put(frames)

    def shadow(self, frames: Frames) -> None:
        """A secondary MMU that holds references translates to each frame."""
        self.get(frames)
        np.add.at(self.shadowed, frames, 1)

    def unshadow(self, frames: Frames) -> None:
        """The opposite of shadow."""
        self._decrease(self.shadowed, frames, "count of shadows")
        self.put(frames)

    # -- mappings ------------------------------------------------------------------------------

    def add_mappings(self, frames: Frames) -> None:
        """Each frame got one more page-table entry, which holds a reference."""
        self.get(frames)
        np.add.at(self.mapcount, frames, 1)

    def drop_mappings(self, frames: Frames) -> None:
        """Each frame lost a page-table entry; the caller puts the reference when it may."""
        self._decrease(self.mapcount, frames, "mapcount")

    def set_owner(self, frames: Frames, owner: int, indices: Frames) -> None:
        """Record where the reverse map finds the mappings of each frame."""
        self.owner[frames] = owner
        self.index[frames] = indices

    # -- poison --------------------------------------------------------------------------------

    def poison(self, frame: int) -> None:
        """The frame went bad: it leaves the allocator, now or when its users are gone."""
        if frame in self.bad:
            return
        self.bad.add(frame)
        if self.refcount[frame] == 0:
            rest = self._stack[: self.free]
            self.free -= 1
            self._stack[: self.free] = rest[rest != frame]
            self.refcount[frame] = self.quarantined[frame] = 1
        else:
            self.quarantine(numbers(frame, 1))

    def unpoison(self, frame: int) -> None:
        """The opposite of poison."""
        if frame in self.bad:
            self.bad.remove(frame)
            self.release_quarantined(numbers(frame, 1))

    def spoilt(self, frames: Frames) -> Mask:
        """Which of `frames` are poisoned: their contents are lost, and whoever reads them, this
        kernel too, gets a machine check."""
        if not self.bad:
            return np.zeros(len(frames), dtype=np.bool_)
        return np.isin(frames, list(self.bad))

    def require_good(self, frames: Frames) -> None:
        """The kernel itself is about to read these frames, and whoever lets it has left out what
        is spoilt. KernelBug when one is."""
        for frame in self.bad.intersection(frames.tolist()):
            raise KernelBug(f"machine check in kernel mode: frame {frame:#x} is poisoned")

    # -- contents ------------------------------------------------------------------------------

    def fill(self, frames: Frames, value: int) -> None:
        """Set every byte of the frames (ascending vector) to `value`."""
        for first, count in runs(frames):
            self.pages[first : first + count] = value

    def copy(self, source: Frames, target: Frames) -> None:
        """Copy contents frame by frame, in runs."""
        if self.bad:
            self.require_good(source)
        for old, new, count in paired_runs(source, target):
            self.pages[new : new + count] = self.pages[old : old + count]

    def _decrease(self, counts: Counts, frames: Frames, name: str) -> None:
        np.subtract.at(counts, frames, 1)
        if (counts[frames] < 0).any():
            bad = frames[counts[frames] < 0]
            raise KernelBug(f"{name} of frame {int(bad[0])} fell below zero")

    def _free(self, frames: Frames) -> None:
        if self.pins[frames].any() or self.mapcount[frames].any():
            raise KernelBug(f"freed while pinned or mapped, among frames {runs(frames)[:4]}")
        self.fill(frames, JUNK)
        self.owner[frames] = 0
        self._stack[self.free : self.free + len(frames)] = frames[::-1]
        self.free += len(frames)
        self._tracer.emit(FramesFree(count=len(frames), extents=runs(frames)))
