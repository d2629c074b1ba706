"""L1 every fault ends within its bound, L2 every recall does.

The bound is the image's: for a fault its longest wait, for a recall all attempts with the time
to fence. Time in which the partition itself was stopped does not count, because it could not act.
"""

from collections.abc import Mapping

from xpmem_emu.kernel.events import KernelBoot
from xpmem_emu.sim.checkers.base import Checker, Handler, Scene
from xpmem_emu.trace import Event
from xpmem_emu.units import MILLISECOND
from xpmem_emu.xpmem import events

_SLACK_NS = MILLISECOND


class Bounds(Checker):
    """Measures faults and recalls in virtual time."""

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        times = scene.image.deadlines
        self._fault_ns = times.fault_wait_max + _SLACK_NS
        self._recall_ns = 2 * times.recall_attempt * times.recall_tries + _SLACK_NS
        self._faults: dict[tuple[int, int], int] = {}
        self._recalls: dict[tuple[int, int], int] = {}

    def handlers(self) -> Mapping[type[Event], Handler]:
        """Begins and ends."""
        return {
            KernelBoot: self._booted,
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
                    table[key] += stopped_ns

    def settled(self) -> None:
        """Nothing may be going on any more."""
        for (partid, number), _ in self._faults.items():
            self.scene.report("L1", partid, f"fault {number} has not ended")
        for (partid, number), _ in self._recalls.items():
            self.scene.report("L2", partid, f"recall {number} has not ended")

    def _booted(self, partid: int, event: KernelBoot) -> None:
        self.crashed(partid)

    def _fault_begins(self, partid: int, event: events.FaultBegin) -> None:
        self._faults[partid, event.fault] = self.scene.now_ns

    def _fault_ends(self, partid: int, event: events.FaultEnd) -> None:
        took = self.scene.now_ns - self._faults.pop((partid, event.fault))
        if took > self._fault_ns:
            self.scene.report("L1", partid, f"fault {event.fault} took {took} ns")

    def _recall_begins(self, partid: int, event: events.RecallBegin) -> None:
        self._recalls[partid, event.recall] = self.scene.now_ns

    def _recall_ends(self, partid: int, event: events.RecallEnd) -> None:
        begun = self._recalls.pop((partid, event.recall), None)
        if begun is not None and self.scene.now_ns - begun > self._recall_ns:
            took = self.scene.now_ns - begun
            self.scene.report("L2", partid, f"recall {event.recall} took {took} ns")
