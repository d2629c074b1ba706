"""Simulated processes: made by spawn and fork, ended by exit and by signals, in one way.

A task is an address space with an identity; every call made for it runs as a thread of it. A
fatal signal first stops the threads (their killable waits end, their accesses fail), then tears
the address space down from a thread of the kernel's own, where mmu notifiers release XPMEM's
state before the pages go (sources 1.2). Nothing a peer does or fails to do can keep a task alive.

exec ends the other threads first, as Linux's de_thread does, so no call ever has two address
spaces in its hands. They are killed as threads; the task is not. Calls that come while an exec is
under way would be of the old program and are refused. Places in the table are reserved before
anything sleeps: a fork under way counts.
"""

import errno
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum

from xpmem_emu.errors import KernelError, Signal, SignalInfo
from xpmem_emu.failpoints.points import TASK_REAP, TASK_SPAWN
from xpmem_emu.fields import UID_END
from xpmem_emu.image import Image
from xpmem_emu.kernel import events
from xpmem_emu.kernel.calls import Call, Exit, Kill, Reclaim
from xpmem_emu.mm.lifecycle import exit_mmap, fork
from xpmem_emu.mm.mm_types import AddressSpace, MemoryContext
from xpmem_emu.sched import Completion, Scheduler, Thread, WaitQueue, Wake
from xpmem_emu.tables import StateMachine
from xpmem_emu.trace import Tracer
from xpmem_emu.xpmem.ids import LastUniq

PID_MAX = (1 << 20) - 1
TASK_GRAVES = 256
"""How many ended tasks are remembered, so that a late call is told why its task is gone."""


class TaskState(Enum):
    """A task's life."""

    RUNNING = "running"
    EXITING = "exiting"
    DEAD = "dead"


class TaskEvent(Enum):
    """What moves a task through its life."""

    END = "end"
    REAPED = "reaped"


TASK_STATES: StateMachine[TaskState, TaskEvent] = StateMachine(
    "task",
    TaskState.RUNNING,
    {
        (TaskState.RUNNING, TaskEvent.END): TaskState.EXITING,
        (TaskState.EXITING, TaskEvent.REAPED): TaskState.DEAD,
    },
)


@dataclass(eq=False)
class Task:
    """One simulated process."""

    pid: int
    parent: int
    name: str
    uid: int
    gids: Sequence[int]
    cap_ipc_owner: bool
    handled: frozenset[int]
    """Signals that fail the access and leave the task alive."""
    mm: AddressSpace
    idle: WaitQueue
    gone: Completion[str]
    state: TaskState = TASK_STATES.initial
    threads: dict[Thread, None] = field(default_factory=dict)
    """In the order in which they began: they are killed in this order (D1). Each enters in the
    step that finds the task, and leaves when its call is answered."""
    executing: Thread | None = None
    """The call that is replacing the address space. While there is one, no other call begins."""
    fate: SignalInfo | None = None
    """The fatal signal, once there is one."""
    last_signal: SignalInfo | None = None
    last_uniq: LastUniq = field(default_factory=LastUniq)

    def apply(self, event: TaskEvent) -> None:
        """Move along the task table."""
        self.state = TASK_STATES.next(self.state, event)

    def ending(self) -> str:
        """Why a thread of this task was killed, when no signal says it."""
        which = "is in exec, which ends its other calls" if self.executing else "is exiting"
        return f"task {self.pid} {which}"

    def become(self, uid: int, gids: Sequence[int]) -> None:
        """seteuid and setgroups: capabilities go with root and come back with it, as in Linux.
        Raises KernelError EINVAL."""
        _require_ids(uid, gids)
        if (self.uid == 0) != (uid == 0):
            self.cap_ipc_owner = uid == 0
        self.uid, self.gids = uid, tuple(gids)


class TaskTable:
    """The tasks of one kernel."""

    def __init__(
        self, image: Image, scheduler: Scheduler, tracer: Tracer, memory: MemoryContext
    ) -> None:
        self._image = image
        self._scheduler = scheduler
        self._tracer = tracer
        self._memory = memory
        self._tasks: dict[int, Task] = {}
        """By pid, EXITING ones included."""
        self._forking: set[int] = set()
        """Pids of children that are being made."""
        self._graves: OrderedDict[int, str] = OrderedDict()
        self._last_pid = 0

    def __iter__(self) -> Iterator[Task]:
        return iter(list(self._tasks.values()))

    def __len__(self) -> int:
        return len(self._tasks)

    def caller(self, call: Call) -> Task | None:
        """The task that makes the call. Exit and Kill are done to a task, not by it; a Reclaim that
        names no task is for all. Raises KernelError ESRCH, EINTR."""
        pid = getattr(call, "pid", None)
        if pid is None or isinstance(call, Exit | Kill) or (isinstance(call, Reclaim) and not pid):
            return None
        task = self.find(pid)
        if task.executing is not None:
            raise KernelError(errno.EINTR, task.ending(), "wait for the answer of the exec")
        return task

    def find(self, pid: int) -> Task:
        """The running task `pid`. Raises KernelError ESRCH, saying what became of it."""
        task = self._tasks.get(pid)
        if task is not None and task.state is TaskState.RUNNING:
            return task
        if task is not None:
            end = task.fate.describe() if task.fate else "it is exiting"
        else:
            end = self._graves.get(pid, "there never was one")
        raise KernelError(
            errno.ESRCH, f"no task {pid}: {end}", "`xpmem-emu task ls` shows the tasks there are"
        )

    def get(self, pid: int) -> Task | None:
        """The task `pid`, exiting ones included."""
        return self._tasks.get(pid)

    def forking(self, pid: int) -> bool:
        """Whether `pid` is of a child that is being made."""
        return pid in self._forking

    def spawn(
        self, name: str, uid: int, gids: Sequence[int], cap_ipc_owner: bool, handled: Iterable[int]
    ) -> Task:
        """A task with an empty address space. Raises KernelError EAGAIN, EINVAL."""
        _require_ids(uid, gids)
        fatal_only = {Signal.SIGKILL, Signal.SIGTERM}
        signals = frozenset(handled)
        if not signals <= {Signal.SIGBUS, Signal.SIGSEGV}:
            names = ", ".join(str(signal) for signal in sorted(signals & fatal_only) or signals)
            raise KernelError(errno.EINVAL, f"only SIGBUS and SIGSEGV can be handled, not {names}")
        pid = self._free_pid()
        mm = self._memory.new_address_space(pid)
        return self._add(
            Task(
                pid,
                0,
                name,
                uid,
                tuple(gids),
                cap_ipc_owner,
                signals,
                mm,
                WaitQueue(self._scheduler),
                Completion(self._scheduler),
            )
        )

    async def fork(self, parent: Task) -> Task:
        """A copy of `parent` with a copy-on-write address space."""
        pid = self._free_pid()
        self._forking.add(pid)
        try:
            mm = await fork(parent.mm, pid)
            # While the copy slept the parent may have been ended: its child would be nobody's, and
            # of a kernel that shuts down nobody would end it.
            if self._me.killed:
                await exit_mmap(mm)
                raise _killed(parent)
        finally:
            self._forking.remove(pid)
        return self._add(
            Task(
                pid,
                parent.pid,
                parent.name,
                parent.uid,
                parent.gids,
                parent.cap_ipc_owner,
                parent.handled,
                mm,
                WaitQueue(self._scheduler),
                Completion(self._scheduler),
            )
        )

    async def exec(self, task: Task) -> None:
        """End the other calls of `task`, then replace the address space with an empty one; same
        teardown as at exit. Raises KernelError EINTR when killed before there was a new one.

            exec                               another call, say a close of the device
            | executing: none begins any more  | asleep in its teardown
            | kills it, waits for `idle`       | its killable waits end; it comes to its end
            | new space; the old one ends <--- | answered
        """
        if self._me.killed:
            raise _killed(task)
        task.executing = self._me
        try:
            for thread in list(task.threads):
                if thread is not self._me:
                    self._scheduler.kill(thread)
            while len(task.threads) > 1:
                if await task.idle.wait_killable() is Wake.KILLED:
                    raise _killed(task)
            assert list(task.threads) == [self._me]
            old, task.mm = task.mm, self._memory.new_address_space(task.pid)
            await exit_mmap(old)  # after the exchange: no RUNNING task is in a dead address space
        finally:
            task.executing = None

    @property
    def _me(self) -> Thread:
        thread = self._scheduler.current
        assert thread is not None
        return thread

    def end(self, task: Task, fate: SignalInfo | None, why: str) -> None:
        """Begin to end `task`; its `gone` completes when it is over. Atomic, idempotent. In one
        step it is EXITING and its calls are killed, so that none begins unkilled."""
        if task.state is not TaskState.RUNNING:
            return
        task.apply(TaskEvent.END)
        task.fate = fate
        for thread in list(task.threads):
            self._scheduler.kill(thread)
        self._scheduler.spawn(f"exit/{task.pid}", self._reap(task, why))

    async def _reap(self, task: Task, why: str) -> None:
        # Its calls first: they have its memory in their hands, and one may be in exec, after which
        # `mm` is another. No new one begins: the task is not RUNNING.
        while task.threads:
            await task.idle.wait()
        if self._memory.failpoints.armed:
            await self._memory.failpoints.reach(TASK_REAP)
        await exit_mmap(task.mm)
        task.apply(TaskEvent.REAPED)
        del self._tasks[task.pid]
        self._graves[task.pid] = why
        if len(self._graves) > TASK_GRAVES:
            self._graves.popitem(last=False)
        self._tracer.emit(events.TaskExit(pid=task.pid, reason=why))
        task.gone.complete(why)

    def _add(self, task: Task) -> Task:
        assert self._memory.address_spaces[task.mm.number] is task.mm
        self._tasks[task.pid] = task
        self._tracer.emit(events.TaskSpawn(pid=task.pid, parent=task.parent, comm=task.name))
        return task

    def _free_pid(self) -> int:
        if self._memory.failpoints.armed:
            self._memory.failpoints.check(TASK_SPAWN)
        limit = self._image.limits.tasks
        if len(self._tasks) + len(self._forking) >= limit:
            raise KernelError(
                errno.EAGAIN, f"{limit} tasks, the image's limit", "end some, or raise limits.tasks"
            )
        for _ in range(PID_MAX):
            self._last_pid = self._last_pid % PID_MAX + 1
            if self._last_pid not in self._tasks and self._last_pid not in self._forking:
                return self._last_pid
        raise KernelError(errno.EAGAIN, "no free pid")


def _require_ids(uid: int, gids: Sequence[int]) -> None:
    for number in (uid, *gids):
        if not 0 <= number < UID_END:
            raise KernelError(errno.EINVAL, f"{number:#x} is no uid or gid")


def _killed(task: Task) -> KernelError:
    return KernelError(errno.EINTR, task.ending())
