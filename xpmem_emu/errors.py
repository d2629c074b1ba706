"""The three ways something ends badly, and the only three.

* `KernelError`: an expected refusal, with an errno. It answers the outside world.
* `Signalled`: the access of a task ended in a signal. It carries who, where and why.
* `KernelBug`: a broken invariant. It panics the partition that finds it, and only that one.

No layer invents a fourth. Errno numbers are Linux's, plus XPMEM's own NOPROC.
"""

import errno
from dataclasses import dataclass
from enum import IntEnum

XPMEM_ERRNO_NOPROC = 2004
"""This process has no xpmem state (sources 1.1): normal after fork, answered by opening again."""


def errno_name(number: int) -> str:
    """`EINVAL` for 22; `NOPROC` for XPMEM's own number."""
    if number == XPMEM_ERRNO_NOPROC:
        return "NOPROC"
    return errno.errorcode.get(number, str(number))


class KernelError(Exception):
    """An expected failure: Linux errno, what was wrong, and what to do about it."""

    def __init__(self, number: int, cause: str, remedy: str = "") -> None:
        super().__init__(number, cause, remedy)
        self.errno = number
        self.cause = cause
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.cause} ({errno_name(self.errno)})"


class KernelBug(Exception):
    """An invariant does not hold. The kernel that raised it must stop."""


class Signal(IntEnum):
    """The signals a simulated task can get; Linux numbers."""

    SIGBUS = 7
    SIGKILL = 9
    SIGSEGV = 11
    SIGTERM = 15


@dataclass(frozen=True, slots=True)
class SignalInfo:
    """Why a task was signalled. `partid` is -1 and `segid` 0 where no partition or segment is
    involved; `address` is the virtual address touched, in bytes."""

    signal: Signal
    reason: str
    address: int = 0
    segid: int = 0
    partid: int = -1
    page: int = -1
    """Page of the segment, -1 when the address is in no attachment."""
    forced: bool = False
    """The task's handlers are not asked: it dies."""

    def describe(self) -> str:
        """One line for people: signal, place, reason."""
        where = f" at {self.address:#x}" if self.address else ""
        if self.segid:
            where += f" (segment {self.segid:#x} page {self.page} of p{self.partid})"
        return f"{self.signal.name}{where}: {self.reason}"


class Signalled(Exception):
    """The current task was signalled while it accessed memory or slept."""

    def __init__(self, info: SignalInfo) -> None:
        super().__init__(info)
        self.info = info

    def __str__(self) -> str:
        return self.info.describe()
