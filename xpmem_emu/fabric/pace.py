"""How fast a partition takes its events: as they come, one at a time, or not at all.

A throttled partition reserves a place in time for each event; a stalled one keeps them until the
stall ends. Either way nothing is lost and the order stays.
"""

from collections import deque
from collections.abc import Callable

Action = Callable[[], None]


class Pace:
    """The pace of one partition. `free` partitions cost one attribute test."""

    __slots__ = ("_busy_ns", "_interval_ns", "_stalled", "_waiting", "free")

    def __init__(self) -> None:
        self.free = True
        self._interval_ns = 0
        self._busy_ns = 0
        self._stalled = False
        self._waiting: deque[Action] = deque()

    def throttle(self, interval_ns: int) -> None:
        """Take an event at most every `interval_ns`; 0 ends it."""
        self._interval_ns = interval_ns
        self._judge()

    def stall(self) -> None:
        """Take no event."""
        self._stalled = True
        self._judge()

    def go_on(self) -> list[Action]:
        """End the stall; the events that waited, in order."""
        self._stalled = False
        waiting = list(self._waiting)
        self._waiting.clear()
        self._judge()
        return waiting

    def defer(self, now_ns: int, event: Action) -> int | None:
        """When `event` is to be taken, or None: it is kept until the stall ends."""
        if self._stalled:
            self._waiting.append(event)
            return None
        at_ns = max(now_ns, self._busy_ns)
        self._busy_ns = at_ns + self._interval_ns
        return at_ns

    def _judge(self) -> None:
        self.free = not self._stalled and not self._interval_ns
