"""L1 and L2: how long faults and recalls take.

The bound is the image's: for a fault its longest wait, for a recall all attempts with the time
to fence. Time in which the partition itself was stopped, or a thread of it was paused at a
failpoint, does not count, because it could not act; live partitions tell it themselves. A clock
that a fault makes fast, slow or jump excuses either way: what counts is the smaller of the time
that passed and of what its own clock showed.
"""

from typing import NamedTuple

from xpmem_emu.failpoints.events import PointCleared, PointHit
from xpmem_emu.inject.events import StoodStill
from xpmem_emu.judge.checkers.base import Checker
from xpmem_emu.judge.invariants import Invariant
from xpmem_emu.judge.scene import EventHandlers, Scene
from xpmem_emu.kernel.events import KernelBoot
from xpmem_emu.units import MILLISECOND
from xpmem_emu.xpmem import events

_SLACK_NS = MILLISECOND


class _Begun(NamedTuple):
    """When something began."""

    now_ns: int
    clock_ns: int

    def later(self, by_ns: int) -> "_Begun":
        """As if it had begun so much later."""
        return _Begun(self.now_ns + by_ns, self.clock_ns + by_ns)

    def until(self, end: "_Begun") -> int:
        """How long it took by the clock that is kinder."""
        return min(end.now_ns - self.now_ns, end.clock_ns - self.clock_ns)


class Bounds(Checker):
    """Measures faults and recalls in virtual time."""

    judges = (Invariant.L1, Invariant.L2)
    looks_at = "how long faults and recalls take"

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        times = scene.image.deadlines
        self.slack_ns = _SLACK_NS
        """What a bound may be exceeded by."""
        self._fault_ns = times.fault_wait_max
        self._recall_ns = 2 * times.recall_attempt * times.recall_tries
        self._faults: dict[tuple[int, int], _Begun] = {}
        self._recalls: dict[tuple[int, int], _Begun] = {}
        self._paused: dict[tuple[int, str], int] = {}
        """(partition, failpoint) -> since when threads are paused there."""

    def handlers(self) -> EventHandlers:
        """Begins and ends."""
        return {
            KernelBoot: self._booted,
            StoodStill: self._stood_still,
            PointHit: self._acted,
            PointCleared: self._cleared,
            events.FaultBegin: self._fault_begins,
            events.FaultEnd: self._fault_ends,
            events.RecallBegin: self._recall_begins,
            events.RecallEnd: self._recall_ends,
        }

    def crashed(self, partid: int) -> None:
        """What it was waiting for does not matter any more."""
        for table in (self._faults, self._recalls):
            for key in [key for key in table if key[0] == partid]:
                del table[key]

    def resumed(self, partid: int, stopped_ns: int) -> None:
        """It was stopped for so long."""
        for table in (self._faults, self._recalls):
            for key in table:
                if key[0] == partid:
                    table[key] = table[key].later(stopped_ns)

    def settled(self) -> None:
        """Nothing may be going on any more."""
        for (partid, number), _ in self._faults.items():
            self.report(Invariant.L1, partid, f"fault {number} has not ended")
        for (partid, number), _ in self._recalls.items():
            self.report(Invariant.L2, partid, f"recall {number} has not ended")

    def _now(self) -> _Begun:
        now_ns, clock_ns = self.scene.now_ns, self.scene.clock_ns
        return _Begun(now_ns, now_ns if clock_ns is None else clock_ns)

    def _booted(self, partid: int, event: KernelBoot) -> None:
        self.crashed(partid)

    def _stood_still(self, partid: int, event: StoodStill) -> None:
        self.resumed(partid, event.late_ns)

    def _acted(self, partid: int, event: PointHit) -> None:
        if "pause" in event.action:
            self._paused.setdefault((partid, event.point), self.scene.now_ns)

    def _cleared(self, partid: int, event: PointCleared) -> None:
        since_ns = self._paused.pop((partid, event.point), None)
        if since_ns is not None:
            self.resumed(partid, self.scene.now_ns - since_ns)

    def _fault_begins(self, partid: int, event: events.FaultBegin) -> None:
        self._faults[partid, event.fault] = self._now()

    def _fault_ends(self, partid: int, event: events.FaultEnd) -> None:
        took = self._faults.pop((partid, event.fault)).until(self._now())
        if took > self._fault_ns + self.slack_ns:
            self.report(Invariant.L1, partid, f"fault {event.fault} took {took} ns")

    def _recall_begins(self, partid: int, event: events.RecallBegin) -> None:
        self._recalls[partid, event.recall] = self._now()

    def _recall_ends(self, partid: int, event: events.RecallEnd) -> None:
        begun = self._recalls.pop((partid, event.recall), None)
        if begun is not None:
            took = begun.until(self._now())
            if took > self._recall_ns + self.slack_ns:
                self.report(Invariant.L2, partid, f"recall {event.recall} took {took} ns")
