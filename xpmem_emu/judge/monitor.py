"""Watches a run: hands every event to who asked for it, and hashes the whole stream (D1).

The one observer of a campaign's clusters. The hash covers every record of every kernel in the
order of the steps, byte for byte.
"""

from collections import defaultdict
from hashlib import blake2b
from typing import TypeVar

import msgspec

from xpmem_emu.image import Image
from xpmem_emu.judge.checkers import all_checkers
from xpmem_emu.judge.checkers.agreement import Agreement
from xpmem_emu.judge.checkers.base import Checker
from xpmem_emu.judge.checkers.bounds import Bounds
from xpmem_emu.judge.checkers.endings import Endings
from xpmem_emu.judge.checkers.identity import Identity
from xpmem_emu.judge.checkers.permits import Permits
from xpmem_emu.judge.checkers.pins import Pins
from xpmem_emu.judge.checkers.shadow import Shadow
from xpmem_emu.judge.observer import Observed, Observer
from xpmem_emu.judge.races import Races
from xpmem_emu.judge.scene import EventHandler, Listener, Scene
from xpmem_emu.judge.sometimes import Sometimes
from xpmem_emu.kernel.calls import Shutdown
from xpmem_emu.kernel.interface import Effects, KernelEvent, ProcessGone, Receive, Request
from xpmem_emu.trace import Event as TraceEvent
from xpmem_emu.trace import Record

_C = TypeVar("_C", bound=Checker)
_encode = msgspec.msgpack.Encoder().encode


class Monitor(Observer):
    """Checkers, sometimes-properties and the hash of one run."""

    def __init__(self, image: Image) -> None:
        self.scene = Scene(image)
        self.checkers: list[Checker] = all_checkers(self.scene)
        self._ends = [
            each.stepped for each in self.checkers if type(each).stepped is not Checker.stepped
        ]
        self._askers: list[Checker | Races] = [
            each for each in self.checkers if type(each).asked is not Checker.asked
        ]
        self._answerers = [
            each for each in self.checkers if type(each).answered is not Checker.answered
        ]
        self.bounds = self._one(Bounds)
        self.pins = self._one(Pins)
        self.permits = self._one(Permits)
        self.shadow = self._one(Shadow)
        self.endings = self._one(Endings)
        self.agreement = self._one(Agreement)
        self.sometimes = Sometimes(self.scene)
        self.events = 0
        self._identity = self._one(Identity)
        self._hash = blake2b(digest_size=16)
        self._handlers: dict[type[TraceEvent], list[EventHandler]] = defaultdict(list)
        self._of_forgers: dict[type[TraceEvent], list[EventHandler]] = defaultdict(list)
        """The same for partitions that make messages up: what they say is judged by nobody."""
        races = Races(self.scene, self.sometimes)
        self._askers.append(races)
        listeners: list[Listener] = [self.scene, *self.checkers, self.sometimes, races]
        for listener in listeners:
            for kind, handler in listener.handlers().items():
                self._handlers[kind].append(handler)
                if listener is self.scene:
                    self._of_forgers[kind].append(handler)

    def follow(self, cluster: Observed) -> None:
        """The cluster whose observer this is has booted: from now on look at it as well."""
        self.scene.cluster = cluster

    @property
    def digest(self) -> str:
        """The hash of everything so far."""
        return self._hash.hexdigest()

    def arriving(self, partid: int, event: KernelEvent) -> None:
        """Note the frame, the call or the proof that the step takes."""
        self._identity.frame = b""
        if isinstance(event, Receive):
            self._identity.frame = bytes(event.frames[0])
        elif isinstance(event, Request):
            if isinstance(event.call, Shutdown):
                self.scene.leaving.add(partid)
            if partid not in self.scene.injuries.forgers:
                for checker in self._askers:
                    checker.asked(partid, event)
        elif isinstance(event, ProcessGone):
            self.scene.proofs.add((partid, event.partid, event.boot))

    def stepped(self, partid: int, effects: Effects) -> None:
        """One step's events and answers, then its end."""
        scene = self.scene
        if scene.cluster is not None:
            scene.now_ns, scene.moment = scene.cluster.now_ns, scene.cluster.steps
        if effects.trace:
            self._hash.update(_joined(effects.trace))
            self.events += len(effects.trace)
            for record in effects.trace:
                self._told(partid, record)
        if partid not in scene.injuries.forgers:
            for reply in effects.replies:
                for checker in self._answerers:
                    checker.answered(partid, reply)
        if effects.trace:
            for end in self._ends:
                end(partid)

    def crashed(self, partid: int) -> None:
        """The process of a partition vanished."""
        self.scene.injuries.went_down(self.scene.now_ns, partid)
        for checker in self.checkers:
            checker.crashed(partid)

    def resumed(self, partid: int, stopped_ns: int) -> None:
        """A partition goes on after it was stopped."""
        if self.scene.cluster is not None:
            self.scene.now_ns = self.scene.cluster.now_ns
        self.scene.injuries.stood_still(self.scene.now_ns, partid)
        for checker in self.checkers:
            checker.resumed(partid, stopped_ns)

    def take(self, record: Record) -> None:
        """A record that comes from no kernel: about a fault."""
        if self.scene.cluster is not None:
            self.scene.now_ns = self.scene.cluster.now_ns
        self._hash.update(_encode(record))
        self.events += 1
        self._told(record.partid, record)

    def _told(self, partid: int, record: Record) -> None:
        event = record.event
        judged = partid not in self.scene.injuries.forgers
        handlers = (self._handlers if judged else self._of_forgers).get(type(event))
        if handlers is not None:
            self.scene.clock_ns = record.time_ns
            self.scene.thread = record.thread
            self.sometimes.wrong_clock = record.time_ns != self.scene.now_ns
            for handler in handlers:
                handler(partid, event)

    def _one(self, kind: type[_C]) -> _C:
        for checker in self.checkers:
            if isinstance(checker, kind):
                return checker
        raise AssertionError(kind)


def _joined(records: list[Record]) -> memoryview:
    """The records encoded one after the other: an array without the header that says how many."""
    count = len(records)
    return memoryview(_encode(records))[1 if count < 16 else 3 if count < 1 << 16 else 5 :]
