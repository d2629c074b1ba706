"""Fail the Nth failpoint that an operation passes, for N = 1, 2, 3 ... (Linux: fail-nth).

Only points where something can fail are counted, and only in threads that belong to the
operation. A run in which the Nth point was never reached says that every failure of the operation
has been tried. One counter may watch several kernels, so that a failure at the peer is the Nth
as well. It decides nothing but which point fails; the errno is the point's own.
"""

from collections.abc import Callable

from xpmem_emu.failpoints.points import Point

Filter = Callable[[Point, str], bool]
"""Whether a point passed in a thread of that name belongs to the operation."""


class FailNth:
    """Counts the points passed and fails one of them."""

    def __init__(self, nth: int, counts: Filter) -> None:
        self.passed: list[str] = []
        """Names of the points passed so far."""
        self._nth = nth
        self._counts = counts

    @property
    def failed(self) -> str:
        """The point that failed; empty while none did."""
        return self.passed[self._nth - 1] if len(self.passed) >= self._nth else ""

    def fails(self, point: Point, thread: str) -> bool:
        """Whether this passage of `point` is the one to fail."""
        if not point.errno or not self._counts(point, thread):
            return False
        self.passed.append(point.name)
        return len(self.passed) == self._nth
