"""S7, when a call returns: what mprotect and fork promise of a lost importer.

When mprotect has returned, a partition that its home gave up has no writable entry for a page that
no task of the home may store into any more; when fork has, none for a page that two address spaces
share privately. Judged from raw entries when the last such call of the home under way returns. When
a segment was removed, or its owner has closed the device, none for a page that its owner still has
where the segment was. When a task has ended, none for what it exported and somebody else still has:
a page of a file, or one that a forked child shares.
"""

from collections import Counter
from collections.abc import Iterator

import numpy as np

from xpmem_emu.judge.checkers.base import Checker
from xpmem_emu.judge.checkers.raw import (
    FRAME_SHIFT,
    PARTID_SHIFT,
    RESIDENT,
    SPECIAL,
    stored_into,
    task_frames,
)
from xpmem_emu.judge.invariants import Invariant
from xpmem_emu.judge.scene import EventHandlers, Scene
from xpmem_emu.kernel.calls import XpmemClose, XpmemRemove
from xpmem_emu.kernel.events import KernelBoot, Syscall, SyscallDone, TaskExit
from xpmem_emu.kernel.interface import Done, Reply, Request
from xpmem_emu.kernel.kernel import Kernel
from xpmem_emu.kernel.tasks import TaskState
from xpmem_emu.mm.mm_types import Vma
from xpmem_emu.mm.vma_flags import VmaFlags
from xpmem_emu.xpmem.events import SegmentMake

_WRITE = 2
_CLOSES = frozenset({"xpmem_close", "exec"})
_JUDGED = frozenset({"mprotect", "fork"})


class Exposure(Checker):
    """Looks at the frames of a home that importers without a session can write."""

    judges = (Invariant.S7,)
    looks_at = (
        "when a call returns, entries of the lost against areas of the home: none that may "
        "write what mprotect or fork protects, none for what remove or close took away "
        "or an ended task left to others"
    )

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self._under_way: Counter[int] = Counter()
        self._returned: set[int] = set()
        self._made: dict[int, SegmentMake] = {}
        """Segments by segid, as they were made."""
        self._ending: dict[int, list[SegmentMake]] = {}
        """Calls under way that take segments away."""
        self._ended: list[tuple[int, int]] = []
        """(home, task) that has just ended."""
        self._cut_short: set[tuple[int, int]] = set()
        """(home, task) of which a close or exec was killed, so that it waited no longer."""
        self._removed: list[tuple[int, SegmentMake]] = []
        """(home, segment): a call that took it away has just returned."""

    def handlers(self) -> EventHandlers:
        """Calls that take rights away."""
        return {
            KernelBoot: self._booted,
            Syscall: self._begun,
            SyscallDone: self._done,
            SegmentMake: self._make,
            TaskExit: self._exited,
        }

    def asked(self, partid: int, request: Request) -> None:
        """A call that takes segments away begins: which ones."""
        match request.call:
            case XpmemRemove(segid=segid) if segid in self._made and segid >> 48 == partid:
                self._ending[request.call_id] = [self._made[segid]]
            case XpmemClose(pid=pid):
                self._ending[request.call_id] = [
                    each
                    for segid, each in self._made.items()
                    if (segid >> 48, each.tgid) == (partid, pid)
                ]

    def answered(self, partid: int, reply: Reply) -> None:
        """It ends."""
        segments = self._ending.pop(reply.call_id, [])
        if isinstance(reply.outcome, Done):
            self._removed += [(partid, each) for each in segments]

    def _make(self, partid: int, event: SegmentMake) -> None:
        self._made[event.segid] = event

    def _booted(self, partid: int, event: KernelBoot) -> None:
        self._under_way[partid] = 0
        self._made = {segid: each for segid, each in self._made.items() if segid >> 48 != partid}
        self._returned.discard(partid)
        self._cut_short = {each for each in self._cut_short if each[0] != partid}

    def _begun(self, partid: int, event: Syscall) -> None:
        if event.op in _JUDGED:
            self._under_way[partid] += 1

    def _done(self, partid: int, event: SyscallDone) -> None:
        if event.op in _JUDGED:
            self._under_way[partid] -= 1
            if event.outcome == "ok":
                self._returned.add(partid)

        if event.op in _CLOSES and event.outcome != "ok":
            self._cut_short.add((partid, event.pid))

    def _exited(self, partid: int, event: TaskExit) -> None:
        if (partid, event.pid) not in self._cut_short:
            self._ended.append((partid, event.pid))

    def stepped(self, partid: int) -> None:
        """Look, unless another call is about to change the same."""
        ended, self._ended = self._ended, []
        for home, pid in ended:
            self._judge_ended(home, pid)
        removed, self._removed = self._removed, []
        for home, segment in removed:
            self._judge_removed(home, segment)
        if not self._returned:
            return
        returned, self._returned = self._returned, set()
        for home in returned:
            kernel = self.scene.kernels.get(home)
            if kernel is None or kernel.stopped is not None or self._under_way[home]:
                continue
            for importer, other in self.scene.kernels.items():
                if importer != home and not self.scene.sessions.active(home, importer):
                    self._judge(home, kernel, importer, other)

    def _judge_removed(self, home: int, segment: SegmentMake) -> None:
        kernel = self.scene.kernels.get(home)
        if kernel is None or kernel.stopped is not None:
            return
        live = task_frames(kernel, segment.tgid, segment.vaddr >> 12, segment.size >> 12)
        for importer, other in self.scene.kernels.items():
            lost = importer != home and not self.scene.sessions.active(home, importer)
            if lost and _same_memory(home, kernel, other):
                for frame in stored_into(other, home).tolist():
                    if frame in live:
                        what = f"of segment {segment.segid:#x}, which was removed"
                        self._say(importer, home, frame, what)

    def _judge_ended(self, home: int, pid: int) -> None:
        """What lost importers hold of a task that ended, by the notes of the fence, is nobody's."""
        kernel = self.scene.kernels.get(home)
        if kernel is None or kernel.stopped is not None:
            return
        for (importer, _), notes in kernel.xpmem.fence._quarantine.items():
            other = self.scene.kernels.get(importer)
            if other is None or importer == home or not _same_memory(home, kernel, other):
                continue
            exposed = {f for each in notes if each.group.tgid == pid for f in each.frames.tolist()}
            for frame in sorted(exposed & set(stored_into(other, home).tolist())):
                if kernel.memory.frames.mapcount[frame] or _cached(kernel, frame):
                    self._say(importer, home, frame, f"which task {pid} left to others")

    def _judge(self, home: int, kernel: Kernel, importer: int, other: Kernel) -> None:
        if not _same_memory(home, kernel, other):
            return
        frames = stored_into(other, home)
        for frame in frames.tolist():
            areas = list(_areas(kernel, frame))
            if areas and not any(area.prot & _WRITE for area in areas):
                self._say(importer, home, frame, "which nobody of its home may change")
            if len({area.mm for area in areas if not area.flags & VmaFlags.SHARED}) > 1:
                self._say(importer, home, frame, "which two tasks share until one stores")

    def _say(self, importer: int, home: int, frame: int, what: str) -> None:
        text = f"frame {frame}, {what}, is writable in p{importer}, which was given up"
        self.report(Invariant.S7, home, text)


def _same_memory(home: int, kernel: Kernel, other: Kernel) -> bool:
    """Whether what `other` has of `home` is its memory, not that of an earlier boot."""
    window = other.memory.physical._windows.get(home)
    return window is not None and window is kernel.memory.physical._windows[home]


def _cached(kernel: Kernel, frame: int) -> bool:
    """Whether it is in the page cache of a file."""
    inodes = kernel.memory.files.inodes.values()
    return any(bool((inode.frames == frame).any()) for inode in inodes)


def _areas(kernel: Kernel, frame: int) -> Iterator[Vma]:
    """The areas of running tasks that map a frame of their kernel."""
    word = np.uint64(kernel.partid << PARTID_SHIFT | frame)
    for task in kernel.tasks:
        if task.state is TaskState.RUNNING:
            for vma in task.mm.vmas:
                entries = task.mm.page_table.read_range(vma.first, vma.pages)
                # An entry without a frame has the number of a swap slot in the same place.
                own = (entries & np.uint64(RESIDENT) != 0) & (entries & np.uint64(SPECIAL) == 0)
                if (own & (entries >> np.uint64(FRAME_SHIFT) == word)).any():
                    yield vma
