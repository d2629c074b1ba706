"""Memory that was freed, given back to the system.

What clients do not read waits in libzmq, and the requests of many at once in Python. The C library
keeps what it gets back of that for later, which here may be never: the process would stay as large
as it was in its worst moment.
"""

import ctypes
from collections.abc import Callable


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
