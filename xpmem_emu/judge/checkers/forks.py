"""S19, until fork_end is asked for: raw entries at the return of fork_begin, then every fault and
every access by message that is served (sources 1.12).
"""

from xpmem_emu.judge.checkers.base import Checker
from xpmem_emu.judge.checkers.raw import stored_into, task_frames
from xpmem_emu.judge.invariants import Invariant
from xpmem_emu.judge.scene import EventHandlers, Scene
from xpmem_emu.kernel.calls import Exec, Exit, Kill, XpmemClose, XpmemForkBegin, XpmemForkEnd
from xpmem_emu.kernel.events import KernelBoot, TaskExit, TaskSignal
from xpmem_emu.kernel.interface import Done, Reply, Request
from xpmem_emu.xpmem.events import CopyServe, FaultServe, SegmentMake, SegmentRemove

_PARTID_SHIFT = 48
_Task = tuple[int, int]


class Forks(Checker):
    """Follows the two calls around a fork."""

    judges = (Invariant.S19,)
    looks_at = "entries when fork_begin returns; what is served until fork_end"

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self._beginning: dict[int, _Task] = {}
        self._forking: set[_Task] = set()
        self._begun: list[_Task] = []
        """Tasks whose fork_begin has just returned."""
        self._made: dict[int, SegmentMake] = {}

    def handlers(self) -> EventHandlers:
        """Segments, what is served of them, and ends of tasks."""
        return {
            KernelBoot: self._booted,
            SegmentMake: self._make,
            SegmentRemove: self._remove,
            FaultServe: self._served,
            CopyServe: self._served,
            TaskExit: self._ends,
            TaskSignal: self._ends,
        }

    def asked(self, partid: int, request: Request) -> None:
        """A call begins."""
        match request.call:
            case XpmemForkBegin(pid=pid):
                self._beginning[request.call_id] = partid, pid
            case XpmemForkEnd(pid=pid):  # of a fork_begin, perhaps, that has not returned yet
                self._over((partid, pid))
            case XpmemClose(pid=pid) | Exec(pid=pid) | Exit(pid=pid) | Kill(pid=pid):
                self._over((partid, pid))

    def answered(self, partid: int, reply: Reply) -> None:
        """A call ends."""
        task = self._beginning.pop(reply.call_id, None)
        if task is not None and isinstance(reply.outcome, Done):
            self._forking.add(task)
            self._begun.append(task)

    def crashed(self, partid: int) -> None:
        """Nobody forks there any more."""
        self._beginning = {n: task for n, task in self._beginning.items() if task[0] != partid}
        self._begun = []
        self._forking = {task for task in self._forking if task[0] != partid}
        self._made = {n: made for n, made in self._made.items() if n >> _PARTID_SHIFT != partid}

    def stepped(self, partid: int) -> None:
        """What was recalled is out of reach of who has a session."""
        begun, self._begun = self._begun, []
        for home, pid in begun:
            kernel = self.scene.kernels.get(home)
            if kernel is None or (home, pid) not in self._forking:
                continue
            frames: set[int] = set()
            for segid, made in self._made.items():
                if (segid >> _PARTID_SHIFT, made.tgid) == (home, pid):
                    frames |= task_frames(kernel, pid, made.vaddr >> 12, made.size >> 12)
            for importer, other in self.scene.kernels.items():
                if other.stopped is None and self.scene.sessions.active(home, importer):
                    left = frames & set(stored_into(other, home).tolist())
                    if left:
                        text = f"task {pid} forks; p{importer} can store into frames {sorted(left)}"
                        self.report(Invariant.S19, home, text)

    def _booted(self, partid: int, event: KernelBoot) -> None:
        self.crashed(partid)

    def _make(self, partid: int, event: SegmentMake) -> None:
        self._made[event.segid] = event

    def _remove(self, partid: int, event: SegmentRemove) -> None:
        self._made.pop(event.segid, None)

    def _served(self, partid: int, event: FaultServe | CopyServe) -> None:
        made = self._made.get(event.segid)
        if made is not None and (partid, made.tgid) in self._forking:
            text = f"segment {event.segid:#x} was served while task {made.tgid} forks"
            self.report(Invariant.S19, partid, text)

    def _ends(self, partid: int, event: TaskExit | TaskSignal) -> None:
        self._over((partid, event.pid))

    def _over(self, task: _Task) -> None:
        self._forking.discard(task)
        self._beginning = {n: each for n, each in self._beginning.items() if each != task}
