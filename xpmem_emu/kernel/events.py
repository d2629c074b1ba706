"""Trace events of tasks and of the kernel as a whole."""

from xpmem_emu.trace import Event


class KernelBoot(Event, frozen=True, tag="kernel:boot"):
    """The kernel runs."""

    boot: int
    image: str
    frames: int


class KernelPanic(Event, frozen=True, tag="kernel:panic"):
    """The kernel found itself broken; this is its last event."""

    reason: str
    place: str


class KernelHalt(Event, frozen=True, tag="kernel:halt"):
    """The kernel shut down in order; this is its last event."""

    reason: str


class TaskSpawn(Event, frozen=True, tag="task:spawn"):
    """A task exists. `parent` is 0 unless it was forked."""

    pid: int
    parent: int
    comm: str


class TaskSignal(Event, frozen=True, tag="task:signal"):
    """A task got a signal; `fatal` says that it ends now."""

    pid: int
    signal: str
    fatal: bool
    reason: str


class TaskExit(Event, frozen=True, tag="task:exit"):
    """A task and its address space are gone."""

    pid: int
    reason: str


class Syscall(Event, frozen=True, tag="task:syscall"):
    """A call begins."""

    pid: int
    op: str


class SyscallDone(Event, frozen=True, tag="task:syscall_done"):
    """A call ended: `ok`, an errno name, or a signal name."""

    pid: int
    op: str
    outcome: str
