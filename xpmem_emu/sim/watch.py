"""Watches a run: hands every event to who asked for it, and hashes the whole stream (D1).

The one observer of a campaign's clusters. The hash covers every record of every kernel in the
order of the steps, byte for byte.
"""

from collections import defaultdict
from hashlib import blake2b
from typing import TypeVar

import msgspec

from xpmem_emu.image import Image
from xpmem_emu.kernel.events import KernelBoot
from xpmem_emu.kernel.interface import Effects, Event, Receive
from xpmem_emu.sim.checkers import Checker, Scene, all_checkers
from xpmem_emu.sim.checkers.base import Handler
from xpmem_emu.sim.checkers.bounds import Bounds
from xpmem_emu.sim.checkers.identity import Identity
from xpmem_emu.sim.checkers.pins import Pins
from xpmem_emu.sim.sometimes import Sometimes
from xpmem_emu.trace import Event as TraceEvent
from xpmem_emu.trace import Record
from xpmem_emu.xpc.events import PartitionState

C = TypeVar("C", bound=Checker)
_encode = msgspec.msgpack.Encoder().encode


class Watch:
    """Checkers, sometimes-properties and the hash of one run."""

    def __init__(self, image: Image) -> None:
        self.scene = Scene(image)
        self.checkers: list[Checker] = all_checkers(self.scene)
        self._ends = [
            each.stepped for each in self.checkers if type(each).stepped is not Checker.stepped
        ]
        self.bounds = self._one(Bounds)
        self.pins = self._one(Pins)
        self.sometimes = Sometimes()
        self.events = 0
        self._identity = self._one(Identity)
        self._hash = blake2b(digest_size=16)
        self._handlers: dict[type[TraceEvent], list[Handler]] = defaultdict(list)
        for checker in self.checkers:
            for kind, handler in checker.handlers().items():
                self._handlers[kind].append(handler)
        for kind, handler in self.sometimes.handlers().items():
            self._handlers[kind].append(handler)

    @property
    def digest(self) -> str:
        """The hash of everything so far."""
        return self._hash.hexdigest()

    def arriving(self, partid: int, event: Event) -> None:
        """Observer: note the frame that the step takes."""
        self._identity.frame = bytes(event.frames[0]) if isinstance(event, Receive) else b""

    def stepped(self, partid: int, effects: Effects) -> None:
        """Observer: one step's events, then its end."""
        scene = self.scene
        if scene.cluster is not None:
            scene.now_ns, scene.moment = scene.cluster.now_ns, scene.cluster.steps
        if not effects.trace:
            return
        self._hash.update(_joined(effects.trace))
        self.events += len(effects.trace)
        for record in effects.trace:
            self._told(partid, record)
        for end in self._ends:
            end(partid)

    def crashed(self, partid: int) -> None:
        """The process of a partition vanished."""
        for checker in self.checkers:
            checker.crashed(partid)

    def take(self, record: Record) -> None:
        """A record that comes from no kernel: about a fault."""
        self._hash.update(_encode(record))
        self.events += 1
        self._told(record.partid, record)

    def _told(self, partid: int, record: Record) -> None:
        event = record.event
        kind = type(event)
        if kind is PartitionState:
            assert isinstance(event, PartitionState)
            self.scene.sessions.changed(partid, event, self.scene.moment)
        elif kind is KernelBoot:
            assert isinstance(event, KernelBoot)
            self.scene.sessions.booted(partid, event)
        handlers = self._handlers.get(kind)
        if handlers is not None:
            self.scene.clock_ns = record.time_ns
            self.sometimes.thread = record.thread
            self.sometimes.wrong_clock = record.time_ns != self.scene.now_ns
            for handler in handlers:
                handler(partid, event)

    def _one(self, kind: type[C]) -> C:
        for checker in self.checkers:
            if isinstance(checker, kind):
                return checker
        raise AssertionError(kind)


def _joined(records: list[Record]) -> memoryview:
    """The records encoded one after the other: an array without the header that says how many."""
    count = len(records)
    return memoryview(_encode(records))[1 if count < 16 else 3 if count < 1 << 16 else 5 :]
