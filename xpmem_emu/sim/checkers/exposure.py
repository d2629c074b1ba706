"""S7 fenced means fenced, when a call returns: what mprotect and fork promise of a lost importer.

When mprotect has returned, a partition that its home gave up has no writable entry for a page that
no task of the home may store into any more; when fork has, none for a page that two address spaces
share privately. Judged from raw entries when the last such call of the home under way returns.
"""

from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np

from xpmem_emu.kernel.events import KernelBoot, Syscall, SyscallDone
from xpmem_emu.kernel.kernel import Kernel
from xpmem_emu.kernel.tasks import TaskState
from xpmem_emu.mm.vma import Vma, VmaFlags
from xpmem_emu.sim.checkers.base import Checker, Handler, Scene
from xpmem_emu.sim.checkers.raw import FRAME_SHIFT, PARTID_SHIFT, RESIDENT, SPECIAL, stored_into
from xpmem_emu.trace import Event

_WRITE = 2
_JUDGED = frozenset({"mprotect", "fork"})


class Exposure(Checker):
    """Looks at the frames of a home that importers without a session can write."""

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self._under_way: Counter[int] = Counter()
        self._returned: set[int] = set()

    def handlers(self) -> Mapping[type[Event], Handler]:
        """Calls that take rights away."""
        return {KernelBoot: self._booted, Syscall: self._begun, SyscallDone: self._done}

    def _booted(self, partid: int, event: KernelBoot) -> None:
        self._under_way[partid] = 0
        self._returned.discard(partid)

    def _begun(self, partid: int, event: Syscall) -> None:
        if event.op in _JUDGED:
            self._under_way[partid] += 1

    def _done(self, partid: int, event: SyscallDone) -> None:
        if event.op in _JUDGED:
            self._under_way[partid] -= 1
            if event.outcome == "ok":
                self._returned.add(partid)

    def stepped(self, partid: int) -> None:
        """Look, unless another call is about to change the same."""
        if not self._returned:
            return
        returned, self._returned = self._returned, set()
        cluster = self.scene.cluster
        if cluster is None:
            return
        for home in returned:
            kernel = cluster.kernels.get(home)
            if kernel is None or kernel.stopped is not None or self._under_way[home]:
                continue
            for importer, other in cluster.kernels.items():
                if importer != home and not self.scene.sessions.active(home, importer):
                    self._judge(home, kernel, importer, other)

    def _judge(self, home: int, kernel: Kernel, importer: int, other: Kernel) -> None:
        window = other.memory.physical._windows.get(home)
        if window is None or window is not kernel.memory.physical._windows[home]:
            return  # the memory of an earlier boot
        frames = stored_into(other, home)
        for frame in frames.tolist():
            areas = list(_areas(kernel, frame))
            if areas and not any(area.prot & _WRITE for area in areas):
                self._say(importer, home, frame, "which nobody of its home may change")
            if len({area.mm for area in areas if not area.flags & VmaFlags.SHARED}) > 1:
                self._say(importer, home, frame, "which two tasks share until one stores")

    def _say(self, importer: int, home: int, frame: int, what: str) -> None:
        text = f"frame {frame}, {what}, is writable in p{importer}, which was given up"
        self.scene.report("S7", home, text)


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
