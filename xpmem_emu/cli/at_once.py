"""The same work for many things at once, each with an end of its own.

`concurrent.futures` does this and more, and takes `logging` along: every table that is printed
would wait for both to be imported.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Attempt(Generic[_T]):
    """What came of the work for one thing."""

    value: _T | None
    error: Exception | None

    def result(self) -> _T:
        """The value. Raises what the work raised."""
        if self.error is not None:
            raise self.error
        assert self.value is not None
        return self.value


def at_once(
    work: Callable[[str], _T], things: Iterable[str], threads_max: int
) -> dict[str, Attempt[_T]]:
    """By thing what came of `work`, which does not return None. Returns when all is done."""
    left = deque(things)
    attempts: dict[str, Attempt[_T]] = {}

    def labour() -> None:
        while True:
            try:
                thing = left.popleft()
            except IndexError:  # another thread took the last one
                return
            try:
                attempts[thing] = Attempt(work(thing), None)
            except Exception as error:
                attempts[thing] = Attempt(None, error)

    threads = [threading.Thread(target=labour) for _ in range(min(len(left), threads_max))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return attempts
