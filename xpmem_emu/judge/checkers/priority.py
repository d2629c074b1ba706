"""L5, from the steps in which messages leave.

In the step in which a recall begins its INVALIDATE leaves for each holder, however many requests of
other kinds wait for that holder, unless every slot for what gives things back is taken by such a
request, the channel is not open, or a failpoint is set at that partition. The same for a fault and
its FAULT, with the slots for what wants something, in every step until it leaves.
"""

from collections.abc import Mapping

from xpmem_emu.failpoints.events import PointSet
from xpmem_emu.judge.checkers.base import Checker
from xpmem_emu.judge.invariants import Invariant
from xpmem_emu.judge.scene import EventHandlers, Scene
from xpmem_emu.kernel.events import KernelBoot
from xpmem_emu.xpc.events import ChannelChange, PartitionChange, Received, Sent
from xpmem_emu.xpmem.events import FaultBegin, FaultEnd, RecallBegin

_MEM = 0
_BACK = {"INVALIDATE": "INVALIDATE_ACK", "EVICT": "ACK", "DETACH": "ACK", "RELEASE": "ACK"}
"""Requests that give something back, and their answers."""
_WANTS = {kind: f"{kind}_REPLY" for kind in ("GET", "ATTACH", "FAULT", "COPY", "AMO", "FIND_NAME")}
"""Requests that want something, and theirs."""
_ANSWERS = _BACK | _WANTS
_PARTID_SHIFT = 48
"""Of a segid."""


class Priority(Checker):
    """Follows recalls and faults from their begin to their messages."""

    judges = (Invariant.L5,)
    looks_at = (
        "the INVALIDATE of each recall leaves in the step that begins it, the FAULT of each "
        "fault as soon as a slot for it is free"
    )

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self._open: set[tuple[int, int]] = set()
        self._busy: dict[tuple[int, int], dict[int, str]] = {}
        """(who asks, who is asked) -> requests that are not answered, by number."""
        self._armed: set[int] = set()
        """Partitions where a failpoint was set since they booted."""
        self._owed: set[int] = set()
        self._sent: set[int] = set()
        self._waits: dict[tuple[int, str], int] = {}
        """(partition, thread) -> whom a fault of it is going to ask."""

    def handlers(self) -> EventHandlers:
        """Recalls, and what leaves and comes back."""
        return {
            KernelBoot: self._booted,
            ChannelChange: self._channel,
            Sent: self._sends,
            Received: self._received,
            RecallBegin: self._recall,
            PointSet: self._set,
            PartitionChange: self._partition,
            FaultBegin: self._fault,
            FaultEnd: self._fault_ends,
        }

    def _booted(self, partid: int, event: KernelBoot) -> None:
        self._armed.discard(partid)
        self._forget({pair for pair in (*self._busy, *self._open) if pair[0] == partid})
        self._waits = {each: home for each, home in self._waits.items() if each[0] != partid}

    def _partition(self, partid: int, event: PartitionChange) -> None:
        self._forget({(partid, event.peer)})

    def _channel(self, partid: int, event: ChannelChange) -> None:
        if event.channel == _MEM:
            self._forget({(partid, event.peer)})
            if event.state == "connected":
                self._open.add((partid, event.peer))

    def _forget(self, pairs: set[tuple[int, int]]) -> None:
        self._open -= pairs
        for pair in pairs:
            self._busy.pop(pair, None)
            self._owed.discard(pair[1])

    def _set(self, partid: int, event: PointSet) -> None:
        self._armed.add(partid)

    def _sends(self, partid: int, event: Sent) -> None:
        if event.kind in _ANSWERS:
            self._busy.setdefault((partid, event.peer), {})[event.number] = event.kind
        if event.kind == "INVALIDATE":
            self._sent.add(event.peer)
        elif event.kind == "FAULT":
            self._waits.pop((partid, self.scene.thread), None)

    def _received(self, partid: int, event: Received) -> None:
        busy = self._busy.get((partid, event.peer), {}) if event.channel == _MEM else {}
        if _ANSWERS.get(busy.get(event.number, "")) == event.kind:
            del busy[event.number]

    def _recall(self, partid: int, event: RecallBegin) -> None:
        self._owed |= {peer for peer in event.holders if (partid, peer) in self._open}

    def _fault(self, partid: int, event: FaultBegin) -> None:
        home = event.segid >> _PARTID_SHIFT
        if home != partid:
            self._waits[partid, self.scene.thread] = home

    def _fault_ends(self, partid: int, event: FaultEnd) -> None:
        self._waits.pop((partid, self.scene.thread), None)

    def crashed(self, partid: int) -> None:
        """Nobody waits for what it did not send."""
        self._owed, self._sent = set(), set()

    def stepped(self, partid: int) -> None:
        """Every recall of the step is on its way, and every fault that has a place."""
        owed, self._owed = self._owed - self._sent, set()
        self._sent.clear()
        if partid in self._armed:
            return
        for peer in sorted(owed):
            self._check(partid, peer, _BACK, "recall")
        if self._waits:
            for peer in {home for each, home in self._waits.items() if each[0] == partid}:
                self._check(partid, peer, _WANTS, "fault")

    def _check(self, partid: int, peer: int, requests: Mapping[str, str], what: str) -> None:
        busy = self._busy.get((partid, peer), {})
        taken = sum(kind in requests for kind in busy.values())
        slots = self.scene.image.xpc.slots
        if taken < slots and (partid, peer) in self._open:
            text = f"a {what} towards p{peer} waits, with {taken} of {slots} slots taken"
            self.report(Invariant.L5, partid, text)
