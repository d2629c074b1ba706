"""Faults of a simulated cluster: the ground that its fault board stands on.

One board for all partitions, in virtual time; the texts are those of the live command. Records of
faults come in the cluster's trace with partid -1: the interconnect is no partition.
"""

import errno
from collections.abc import Callable, Sequence
from random import Random

import msgspec

from xpmem_emu.errors import KernelError
from xpmem_emu.inject.clock import Clock
from xpmem_emu.inject.injections import Fields
from xpmem_emu.inject.interconnect import Delivery, Interconnect
from xpmem_emu.inject.table import InjectionTable
from xpmem_emu.inject.throttle import Callback, Throttle
from xpmem_emu.kernel.breaking import BreakingCall
from xpmem_emu.kernel.interface import Failed, Tick
from xpmem_emu.sim.cluster import SimCluster
from xpmem_emu.trace import Event, Record

HARNESS = -1
"""The partid of records about faults."""


class _Call(msgspec.Struct, frozen=True):
    call: BreakingCall


def _unheard(record: Record) -> None:
    """Nobody wants to know."""


class SimInjections:
    """The faults of one simulated cluster. It is the Ground of its board."""

    def __init__(
        self, cluster: SimCluster, seed: int = 0, heard: Callable[[Record], None] = _unheard
    ) -> None:
        """`heard` is told of every record about faults."""
        self._cluster = cluster
        self._heard = heard
        cluster.interconnect.listen(self.emit)
        self.board = InjectionTable(self, lambda name: Random(f"{seed}/{name}").getrandbits(63))

    def add(self, text: str) -> str:
        """Put up a fault; its name. Raises KernelError."""
        return self.board.add(text)

    @property
    def interconnect(self) -> Interconnect:
        return self._cluster.interconnect

    def now_ns(self) -> int:
        return self._cluster.now_ns

    def partids(self) -> Sequence[int]:
        return sorted(self._cluster.kernels)

    def clock(self, partid: int) -> Clock:
        return self._cluster.clocks.setdefault(partid, Clock())

    def clock_changed(self, partid: int) -> None:
        self._cluster.take(partid, Tick())

    def pace(self, partid: int) -> Throttle:
        return self._cluster.paces.setdefault(partid, Throttle())

    def pace_changed(self, partid: int, waiting: list[Callback]) -> None:
        for action in waiting:
            action()

    def deliver(self, deliveries: list[Delivery]) -> None:
        self._cluster.deliver(deliveries)

    def at(self, time_ns: int, action: Callback) -> None:
        self._cluster.at(time_ns, action)

    def call(self, partid: int, fields: Fields) -> None:
        call = msgspec.convert({"call": fields}, _Call).call
        outcome = self._cluster.submit(partid, call).outcome
        if isinstance(outcome, Failed) and outcome.errno != errno.EAGAIN:  # that is judged: L6
            raise KernelError(outcome.errno, outcome.cause, outcome.remedy)

    def emit(self, event: Event) -> None:
        record = Record(0, self._cluster.now_ns, HARNESS, "fabric", event)
        self._cluster.trace.append(record)
        self._heard(record)
