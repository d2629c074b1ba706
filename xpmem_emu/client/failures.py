"""What the client library raises: OSErrors with a cause and a remedy, and signals of tasks.

An `XpmemError` is also the built-in subclass that its errno stands for: ENOENT is caught by
`except FileNotFoundError`, EACCES by `except PermissionError`. A signal is no OSError: the call
was not refused, the simulated task was hit, and `info` says where and why.
"""

import errno
import os
from dataclasses import replace
from functools import lru_cache

from xpmem_emu.errors import Signal, SignalInfo, errno_name
from xpmem_emu.kernel.interface import Failed, Raised
from xpmem_emu.text import visible


class XpmemError(OSError):
    """A call was refused. `errno`, and in words `cause` and `remedy` (which may be empty)."""

    def __init__(self, number: int, cause: str, remedy: str = "") -> None:
        super().__init__(number, cause)
        self.cause = cause
        self.remedy = remedy

    def __str__(self) -> str:
        text = f"{self.cause} ({errno_name(self.errno or 0)})"
        return f"{text}; try: {self.remedy}" if self.remedy else text

    def __reduce__(self) -> tuple[object, ...]:
        return xpmem_error, (self.errno, self.cause, self.remedy)


class TaskSignalled(Exception):
    """The task that made the call got a signal. A task without a handler for it is dead now."""

    def __init__(self, info: SignalInfo) -> None:
        super().__init__(info)
        self.info = info

    def __str__(self) -> str:
        return self.info.describe()


class SigBus(TaskSignalled):
    """The memory behind an address cannot be had: recalled, gone, or failed."""


class SigSegv(TaskSignalled):
    """No mapping at an address, or not with these rights."""


class SigKill(TaskSignalled):
    """The task was killed."""


class SigTerm(TaskSignalled):
    """The task was asked to end."""


_BY_SIGNAL = {
    Signal.SIGBUS: SigBus,
    Signal.SIGSEGV: SigSegv,
    Signal.SIGKILL: SigKill,
    Signal.SIGTERM: SigTerm,
}


def xpmem_error(number: int, cause: str, remedy: str = "") -> XpmemError:
    """The error for an errno, as an instance of the built-in subclass of OSError too."""
    return _class_for(number)(number, cause, remedy)


def failure_of(outcome: Failed | Raised) -> XpmemError | TaskSignalled:
    """The exception for an outcome that is not Done, in one line whatever a partition says."""
    if isinstance(outcome, Raised):
        info = replace(outcome.info, reason=visible(outcome.info.reason))
        return _BY_SIGNAL[info.signal](info)
    return xpmem_error(outcome.errno, visible(outcome.cause), visible(outcome.remedy))


class OwnProcess:
    """The process that a connection was made in. A forked child has its memory, and nothing that
    moves its messages: there it is of no use, and the parent's session goes on."""

    def __init__(self) -> None:
        self._pid = os.getpid()

    def is_ours(self) -> bool:
        """Whether this is that process."""
        return self._pid == os.getpid()

    def require(self) -> None:
        """Raises XpmemError EBADF in another one."""
        if not self.is_ours():
            raise xpmem_error(
                errno.EBADF,
                f"this connection is of process {self._pid}, which was forked",
                "connect again in the child",
            )


@lru_cache(maxsize=256)
def _class_for(number: int) -> type[XpmemError]:
    builtin = type(OSError(number, ""))
    if builtin is OSError:
        return XpmemError
    return type(f"Xpmem{builtin.__name__}", (XpmemError, builtin), {})
