"""Memory that was freed, given back to the system.

What clients do not read waits in libzmq, and the requests of many at once in Python. The C library
keeps what it gets back of that for later, which here may be never: the process would stay as large
as it was in its worst moment.
"""

import asyncio
import ctypes
from collections.abc import Callable

_AFTER_S = (1.0, 9.0)
"""After so long what a session had in libzmq is free, too; so much later what its tasks had."""


def _found() -> Callable[[int], int]:
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):  # another C library
        return lambda pad: 0
    return trim


_trim = _found()


def give_back() -> None:
    """Return free pages of all heaps. Takes a millisecond or so for each ten MiB."""
    _trim(0)


class Giving:
    """Gives back what is free some time after somebody went."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._left_s: list[float] = []
        """How long to wait before each time that is still to come."""
        self._timer: asyncio.TimerHandle | None = None

    def soon(self) -> None:
        """Somebody went. However many go, this is done once in a while."""
        if self._timer is None:
            self._left_s = list(_AFTER_S)
            self._wait()
        else:
            self._left_s = [_AFTER_S[-1]]

    def close(self) -> None:
        """Do it no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _wait(self) -> None:
        self._timer = self._loop.call_later(self._left_s.pop(0), self._now)

    def _now(self) -> None:
        self._timer = None
        give_back()
        if self._left_s:
            self._wait()
