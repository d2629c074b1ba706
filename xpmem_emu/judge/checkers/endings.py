"""S17, from events and answers: forks against children, execs and ends of tasks against the calls
before them, and programs of tasks against signals.

L6: what breaks and heals is never refused for want of threads, and a kill is not while there are
fewer than the kernel keeps places for.
"""

import errno
from collections import Counter

from xpmem_emu.failpoints.events import PointSet
from xpmem_emu.judge.checkers.base import Checker
from xpmem_emu.judge.invariants import Invariant
from xpmem_emu.judge.scene import EventHandlers, Scene
from xpmem_emu.kernel.breaking import Breaking
from xpmem_emu.kernel.call import op_of
from xpmem_emu.kernel.calls import Call, Exec, Exit, Fork, Kill, Shutdown
from xpmem_emu.kernel.events import (
    KernelBoot,
    Syscall,
    SyscallDone,
    TaskExit,
    TaskSignal,
    TaskSpawn,
)
from xpmem_emu.kernel.interface import Done, Failed, Reply, Request

CALLS_KEPT = 16
"""Places for kills and shutdowns."""
_ABOUT = frozenset({"kill", "exit", "spawn", "reclaim"})
"""Calls about a task, not of it; a reclaim may be of nobody."""
_BEGIN, _ANSWER = "kernel.call.begin", "kernel.call.before_answer"


class Endings(Checker):
    """Follows calls that begin and end tasks."""

    judges = (Invariant.S17, Invariant.L6)
    looks_at = (
        "children against forks and their answers, calls that outlive an exec or the end of "
        "their task, programs of who was killed in exec; what heals or ends and was refused for "
        "want of threads"
    )

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self._calls: dict[int, tuple[int, Call]] = {}
        """Under way, in the order in which they began."""
        self._children: set[tuple[int, int]] = set()
        """Alive, and nobody was told."""
        self._killed: set[tuple[int, int]] = set()
        """Tasks that end by a signal."""
        self._working: Counter[tuple[int, int]] = Counter()
        """Calls under way of each task, but those that end it."""
        self._dying: set[tuple[int, int]] = set()
        """Tasks that got a fatal signal in the present step."""
        self._programs: dict[tuple[int, int], int] = {}
        """Tasks in exec, and which address space they had when it was asked for."""
        self._doomed: set[tuple[int, int]] = set()
        """Tasks that got one before exec had replaced their program."""
        self._armed: set[tuple[int, str]] = set()
        """(partition, failpoint): what was set since they booted."""

    def handlers(self) -> EventHandlers:
        """Begins and ends of tasks."""
        return {
            KernelBoot: self._booted,
            PointSet: self._set,
            TaskSpawn: self._spawned,
            TaskSignal: self._signalled,
            TaskExit: self._exited,
            Syscall: self._begun,
            SyscallDone: self._done,
        }

    def asked(self, partid: int, request: Request) -> None:
        """A call begins."""
        self._calls[request.call_id] = partid, request.call
        if isinstance(request.call, Exec):
            task = partid, request.call.pid
            self._programs.setdefault(task, self._program(*task))

    def answered(self, partid: int, reply: Reply) -> None:
        """A call ends."""
        known = self._calls.get(reply.call_id)
        match (known and known[1], reply.outcome):
            case (Fork(), Done(value=int(child))):
                self._children.discard((partid, child))
            case (Exec(pid=pid), Done()) if (partid, _ANSWER) not in self._armed:
                self._check_exec(partid, pid, reply.call_id)
            case (Breaking() as call, Failed(errno=errno.EAGAIN)):
                self._say_refused(partid, call)
            case (Kill() | Shutdown() as call, Failed(errno=errno.EAGAIN)):
                if (partid, _BEGIN) not in self._armed and self._ending(partid) < CALLS_KEPT:
                    self._say_refused(partid, call)
        self._calls.pop(reply.call_id, None)

    def settled(self) -> None:
        """No call is under way."""
        for partid, pid in sorted(self._children):
            self.report(
                Invariant.S17, partid, f"task {pid} lives, and no fork was answered with it"
            )

    def crashed(self, partid: int) -> None:
        """Nothing of it is left."""
        self._calls = {each: what for each, what in self._calls.items() if what[0] != partid}
        self._children = {child for child in self._children if child[0] != partid}
        self._killed = {task for task in self._killed if task[0] != partid}
        self._working = Counter({key: n for key, n in self._working.items() if key[0] != partid})
        self._programs = {key: each for key, each in self._programs.items() if key[0] != partid}
        self._doomed = {task for task in self._doomed if task[0] != partid}
        self._dying = set()

    def _booted(self, partid: int, event: KernelBoot) -> None:
        self.crashed(partid)
        self._armed = {each for each in self._armed if each[0] != partid}

    def _set(self, partid: int, event: PointSet) -> None:
        self._armed.add((partid, event.point))

    def _spawned(self, partid: int, event: TaskSpawn) -> None:
        if event.parent:
            self._children.add((partid, event.pid))
        if (partid, event.parent) in self._killed:
            text = f"task {event.pid} is born of task {event.parent}, which was killed"
            self.report(Invariant.S17, partid, text)

    def _signalled(self, partid: int, event: TaskSignal) -> None:
        if event.fatal:
            self._killed.add((partid, event.pid))
            self._dying.add((partid, event.pid))

    def _begun(self, partid: int, event: Syscall) -> None:
        if event.pid and event.op not in _ABOUT:
            self._working[partid, event.pid] += 1

    def _done(self, partid: int, event: SyscallDone) -> None:
        if event.pid and event.op not in _ABOUT:
            self._working[partid, event.pid] -= 1
        if event.op == "exec":
            self._programs.pop((partid, event.pid), None)
            if event.outcome == "ok" and (partid, event.pid) in self._doomed:
                text = f"task {event.pid} was killed in exec, and is a new program"
                self.report(Invariant.S17, partid, text)

    def stepped(self, partid: int) -> None:
        """Of whom got a fatal signal an exec that had not yet replaced the program must fail."""
        dying, self._dying = self._dying, set()
        for task in dying:
            before = self._programs.get(task)
            if before is not None and self._program(*task) == before:
                self._doomed.add(task)

    def _program(self, partid: int, pid: int) -> int:
        """Which address space a task has."""
        kernel = self.scene.kernels.get(partid)
        task = None if kernel is None else kernel.tasks.get(pid)
        return 0 if task is None else task.mm.number

    def _exited(self, partid: int, event: TaskExit) -> None:
        if (partid, _ANSWER) not in self._armed and self._working[partid, event.pid]:
            text = f"task {event.pid} has ended, and {self._working[partid, event.pid]} calls go on"
            self.report(Invariant.S17, partid, text)
        self._doomed.discard((partid, event.pid))
        self._children.discard((partid, event.pid))
        self._killed.discard((partid, event.pid))

    def _check_exec(self, partid: int, pid: int, call_id: int) -> None:
        for earlier, (home, call) in self._calls.items():
            if earlier == call_id:
                return
            of_it = home == partid and getattr(call, "pid", 0) == pid
            if of_it and not isinstance(call, Kill | Exit):
                name = op_of(call)
                self.report(
                    Invariant.S17, partid, f"task {pid} is a new program; its {name} goes on"
                )

    def _ending(self, partid: int) -> int:
        under_way = [call for home, call in self._calls.values() if home == partid]
        return sum(isinstance(call, Kill | Shutdown) for call in under_way) - 1

    def _say_refused(self, partid: int, call: Call) -> None:
        self.report(Invariant.L6, partid, f"{op_of(call)} found no place")
