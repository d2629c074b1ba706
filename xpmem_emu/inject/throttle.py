"""How fast a partition takes its events: as they come, one at a time, or not at all.

A throttled partition reserves a place in time for each event; a stalled one keeps them until the
stall ends. Either way nothing is lost and the order stays.
"""

from collections import deque
from collections.abc import Callable

Callback = Callable[[], None]


class Throttle:
    """The pace of one partition. `free` partitions cost one attribute test."""

    __slots__ = ("_busy_ns", "_interval_ns", "_stalled", "_waiting", "free")

    def __init__(self) -> None:
        self.free = True
        self._interval_ns = 0
        self._busy_ns = 0
        self._stalled = False
        self._waiting: deque[tuple[int, Callback]] = deque()
        """Events that were put off, and when they are due."""

    def throttle(self, interval_ns: int) -> None:
        """Take an event at most every `interval_ns`."""
        self._interval_ns = interval_ns
        self._judge()

    def unthrottle(self) -> list[Callback]:
        """End the throttle; the events that waited, in order, unless there is a stall."""
        self._interval_ns = self._busy_ns = 0
        self._judge()
        return [] if self._stalled else self._all_waiting()

    def stall(self) -> None:
        """Take no event."""
        self._stalled = True
        self._judge()

    def go_on(self) -> list[Callback]:
        """End the stall; the events that waited, in order."""
        self._stalled = False
        self._judge()
        return self._all_waiting()

    def defer(self, now_ns: int, event: Callback) -> int | None:
        """`now_ns`: take `event` now. Later: call `due` at that time. None: it is kept until the
        stall ends."""
        if self._stalled:
            self._waiting.append((now_ns, event))
            return None
        at_ns = max(now_ns, self._busy_ns)
        self._busy_ns = at_ns + self._interval_ns
        if at_ns > now_ns:
            self._waiting.append((at_ns, event))
        return at_ns

    def due(self, now_ns: int) -> None:
        """Take what was put off until now."""
        while self._waiting and self._waiting[0][0] <= now_ns and not self._stalled:
            self._waiting.popleft()[1]()

    def _all_waiting(self) -> list[Callback]:
        waiting = [event for _, event in self._waiting]
        self._waiting.clear()
        return waiting

    def _judge(self) -> None:
        self.free = not self._stalled and not self._interval_ns
