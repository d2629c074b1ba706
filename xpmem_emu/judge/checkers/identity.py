"""S6, from events and frames.

That no frame of an earlier session is accepted is judged on raw frames: the incarnations in the
header of a numbered message that a partition says it received are compared with those of its
session; where no frames are at hand, on what the partition says of the sender's.
"""

import msgpack

from xpmem_emu.judge.checkers.base import Checker
from xpmem_emu.judge.invariants import Invariant
from xpmem_emu.judge.scene import EventHandlers, Scene
from xpmem_emu.kernel.events import KernelBoot
from xpmem_emu.xpc.events import Received
from xpmem_emu.xpmem import events

_CHECK_SIZE = 4
"""Bytes of the checksum behind the header."""


class Identity(Checker):
    """Remembers every id of the run."""

    judges = (Invariant.S6,)
    looks_at = "ids in events; incarnations in the raw frames that were accepted"

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self._made: set[int] = set()
        self._granted: set[tuple[int, int]] = set()
        self._live: dict[int, set[int]] = {}
        self.frame: bytes = b""
        """The frame that the present step takes, if it takes one."""

    def handlers(self) -> EventHandlers:
        """Ids as they come and go."""
        return {
            KernelBoot: self._booted,
            Received: self._received,
            events.SegmentMake: self._make,
            events.SegmentRemove: self._remove,
            events.PermitGet: self._get,
        }

    def _booted(self, partid: int, event: KernelBoot) -> None:
        self._live[partid] = set()

    def _make(self, partid: int, event: events.SegmentMake) -> None:
        if event.segid in self._made:
            self.report(Invariant.S6, partid, f"segid {event.segid:#x} was given before")
        self._made.add(event.segid)
        self._live[partid].add(event.segid)

    def _remove(self, partid: int, event: events.SegmentRemove) -> None:
        self._live[partid].discard(event.segid)

    def _get(self, partid: int, event: events.PermitGet) -> None:
        if event.segid not in self._live[partid]:
            self.report(Invariant.S6, partid, f"permit on {event.segid:#x}, not of this boot")
        if event.importer in self.scene.injuries.forgers:
            return  # it may name its permits as it likes
        grant = (partid, event.apid)
        if grant in self._granted:
            self.report(Invariant.S6, partid, f"permit {event.apid:#x} was granted before")
        self._granted.add(grant)

    def _received(self, partid: int, event: Received) -> None:
        src, incarnation = event.peer, event.incarnation
        if self.frame:
            _, _, src, incarnation, mine, *_ = msgpack.unpackb(self.frame[:-_CHECK_SIZE])
            if src in self.scene.injuries.forgers:
                return
            self._to_an_old_self(partid, event, mine)
        current = self.scene.sessions.incarnation(partid, src)
        if current is not None and incarnation < current:
            self.report(
                Invariant.S6,
                partid,
                f"{event.kind} {event.number} of session {incarnation:#x} of p{src} "
                f"was accepted in session {current:#x}",
            )

    def _to_an_old_self(self, partid: int, event: Received, mine: int) -> None:
        kernel = self.scene.kernels.get(partid)
        if kernel is None or not self.scene.sessions.active(partid, event.peer):
            return
        now = kernel.xpc.partitions[event.peer].mine
        if 0 < mine < now:
            self.report(
                Invariant.S6,
                partid,
                f"{event.kind} {event.number} from p{event.peer} was meant for "
                f"{mine:#x}, accepted by {now:#x}",
            )
