"""S12: what may have caused the end of a session, for slow is not dead (sources T19).

When a partition ends an ACTIVE session, something that was done to the run must explain it:

* the peer runs no more, or ended the session before, or was proven gone to this partition;
* NO_HEARTBEAT: in the last check interval so many heartbeats of the peer were hit, or kept from
  being sent or read, as fall into it for certain;
* TIMEOUT: a request, or a recall, is without an answer, and without a PENDING, for as long as the
  image says, and of each attempt the request or its answer was hit, but for the one that the peer
  is still at work on: only a later attempt is told so;
* or one of the two was, within that time, not itself (see `injuries`), or a failpoint said that
  the time was up.

Whatever else ends a session is a violation: a call that was interrupted, a message that its own
receiver refuses, a number that ran out. Requests and answers are known from send and receive
events; times count by the clock of the partition that gives up and by the world's, whichever is
longer.
"""

from dataclasses import dataclass

from xpmem_emu.judge.checkers.base import Checker
from xpmem_emu.judge.invariants import Invariant
from xpmem_emu.judge.scene import EventHandlers, Scene
from xpmem_emu.kernel.events import KernelBoot
from xpmem_emu.xpc.events import PartitionChange, Received, Sent
from xpmem_emu.xpmem.events import RecallBegin, RecallEnd

ADMIN = 2
_ANSWERS = frozenset(
    {
        "ACK",
        "PENDING",
        "GET_REPLY",
        "ATTACH_REPLY",
        "FAULT_REPLY",
        "INVALIDATE_ACK",
        "COPY_REPLY",
        "AMO_REPLY",
        "FIND_NAME_REPLY",
    }
)
_UNSENT = frozenset({"xpc.wire.send", "xpc.receive"})
"""Points at which a message is lost on either side."""
_OUT_OF_TIME = frozenset({"xpc.slot.claim", "xpmem.recall.before_send"})
"""Points whose failing stands for a deadline that passed, which nobody need wait for."""
_UNSERVED = frozenset({"xpc.serve.thread"})
_SERVES = frozenset({"xpc.serve.before_handler", "xpc.serve.before_reply"})
"""Points at which an attempt that arrived may wait: only a later one is told so."""
_SLOWS = ("delay", "pause")
_OWED = frozenset({"EVICT", "DETACH", "RELEASE"})
"""What a peer must have done within the longest wait, whatever it says meanwhile."""
_BOOT_SHIFT = 16


@dataclass(slots=True)
class _Asked:
    """A request or recall without an answer. `attempts`: how many its deadline is made of."""

    kind: str
    number: int
    now_ns: int
    clock_ns: int
    limit_ns: int
    attempts: int
    sent_ns: int
    """When it was first sent; `now_ns` is when the peer last said that it works on it."""
    reached: bool = False
    """The peer has got it."""
    said: bool = False
    """The peer has said something about it, whether that was heard or not."""


class Expulsions(Checker):
    """Judges every end of a session."""

    judges = (Invariant.S12,)
    looks_at = (
        "each end of a session against what was lost, late, dead, stopped or failed, for how long"
    )

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self._active: set[tuple[int, int]] = set()
        self._asked: dict[tuple[int, int], dict[tuple[int, int], _Asked]] = {}
        """(who asks, who is asked) -> (channel, number) -> what."""
        self._recalls: dict[tuple[int, int], tuple[list[int], _Asked]] = {}
        times, xpc = scene.image.deadlines, scene.image.xpc
        self._fault = times.fault_attempt * times.fault_tries, times.fault_tries
        self._recall = times.recall_attempt * times.recall_tries, times.recall_tries
        self._wait_max_ns = times.fault_wait_max
        self._admin = xpc.control_attempt * xpc.control_tries, xpc.control_tries

    def handlers(self) -> EventHandlers:
        """Sessions, and what is asked in them."""
        return {
            KernelBoot: self._booted,
            PartitionChange: self._partition,
            Sent: self._sent,
            Received: self._received,
            RecallBegin: self._recall_begins,
            RecallEnd: self._recall_ends,
        }

    def crashed(self, partid: int) -> None:
        """Whatever it asked, it does not any more."""
        self._active = {pair for pair in self._active if pair[0] != partid}
        for table in (self._asked, self._recalls):
            for key in [key for key in table if key[0] == partid]:
                del table[key]

    def _booted(self, partid: int, event: KernelBoot) -> None:
        self.crashed(partid)

    # -- what is asked ---------------------------------------------------------------------

    def _sent(self, partid: int, event: Sent) -> None:
        if event.kind not in _ANSWERS:
            asked = self._asked.get((partid, event.peer))
            if asked is None:
                asked = self._asked[partid, event.peer] = {}
            key = event.channel, event.number
            asked[key] = self._begun(event.kind, *key)
        elif (one := self._one(event.peer, partid, event)) is not None:
            one.said = True

    def _one(self, partid: int, peer: int, event: Sent | Received) -> _Asked | None:
        """What `partid` asked of `peer`, by the message that is about it."""
        return self._asked.get((partid, peer), {}).get((event.channel, event.number))

    def _received(self, partid: int, event: Received) -> None:
        if event.kind not in _ANSWERS:
            if (one := self._one(event.peer, partid, event)) is not None:
                one.reached = True
            return
        asked = self._asked.get((partid, event.peer))
        if asked is None:
            return
        key = event.channel, event.number
        if event.kind != "PENDING":
            asked.pop(key, None)
        elif key in asked and asked[key].kind != "INVALIDATE":  # a recall waits no longer for that
            sent_ns = asked[key].sent_ns
            asked[key] = self._begun(asked[key].kind, *key)
            asked[key].sent_ns, asked[key].said = sent_ns, True

    def _recall_begins(self, partid: int, event: RecallBegin) -> None:
        begun = self._begun("INVALIDATE", -1, -1)
        self._recalls[partid, event.recall] = event.holders, begun

    def _recall_ends(self, partid: int, event: RecallEnd) -> None:
        self._recalls.pop((partid, event.recall), None)

    def _begun(self, kind: str, channel: int, number: int) -> _Asked:
        limit = self._admin if channel == ADMIN else self._fault
        if kind == "INVALIDATE":
            limit = self._recall
        now_ns = self.scene.now_ns
        return _Asked(kind, number, now_ns, self._clock_ns(), *limit, now_ns)

    def _clock_ns(self) -> int:
        clock_ns = self.scene.clock_ns
        return self.scene.now_ns if clock_ns is None else clock_ns

    # -- the judgement ---------------------------------------------------------------------

    def _partition(self, partid: int, event: PartitionChange) -> None:
        pair = partid, event.peer
        if event.state == "ACTIVE":
            self._active.add(pair)
        elif pair in self._active:
            self._active.discard(pair)
            if not self._explained(partid, event):
                self.report(
                    Invariant.S12,
                    partid,
                    f"gave p{event.peer} up without a cause: {event.reason} at {event.place}",
                )
            self._asked.pop(pair, None)

    def _explained(self, partid: int, event: PartitionChange) -> bool:
        scene, peer = self.scene, event.peer
        boot = event.incarnation >> _BOOT_SHIFT
        if scene.injuries.down(peer) or {partid, peer} & scene.injuries.forgers:
            return True
        if scene.boots.get(peer, 0) != boot or not scene.sessions.active(peer, partid):
            return True  # that session had ended at its other end
        if event.reason == "PARTITION_DOWN":
            return (partid, peer, boot) in scene.proofs
        if event.reason == "NO_HEARTBEAT":
            return self._beatless(partid, peer)
        if event.reason == "PHYS_ADDR_REG_FAILED":
            return any(
                shot.point == "kernel.window.map"
                for shot in scene.injuries.shots(partid, scene.now_ns)
            )
        if event.place == "xpc/xpc:shutdown":
            return partid in scene.leaving
        return event.reason == "TIMEOUT" and self._silent(partid, peer)

    def _beatless(self, partid: int, peer: int) -> bool:
        xpc, injuries = self.scene.image.xpc, self.scene.injuries
        since = self.scene.now_ns - xpc.heartbeat_check - xpc.heartbeat_interval
        if self.scene.unwell(partid, since) or self.scene.unwell(peer, since):
            return True
        lost = sum(hit.kind == "HEARTBEAT" for hit in injuries.hits(peer, partid, since))
        lost += sum(shot.point == "xpc.receive" for shot in injuries.shots(partid, since))
        lost += sum(shot.point == "xpc.heartbeat.beat" for shot in injuries.shots(peer, since))
        return lost >= max(1, xpc.heartbeat_check // xpc.heartbeat_interval - 1)

    def _silent(self, partid: int, peer: int) -> bool:
        now = self.scene.injuries.shots(partid, self.scene.now_ns)
        if any(shot.point in _OUT_OF_TIME for shot in now):
            return True
        asked = list(self._asked.get((partid, peer), {}).values())
        asked += [
            each
            for (home, _), (holders, each) in self._recalls.items()
            if home == partid and peer in holders
        ]
        return any(self._silent_for(partid, peer, each) for each in asked)

    def _silent_for(self, partid: int, peer: int, asked: _Asked) -> bool:
        now_ns, injuries = self.scene.now_ns, self.scene.injuries
        since = asked.now_ns
        if (
            asked.kind in _OWED
            and now_ns - asked.sent_ns >= self._wait_max_ns
            and any(shot.action.startswith(_SLOWS) for shot in injuries.shots(peer, asked.sent_ns))
        ):
            return True
        if max(now_ns - since, self._clock_ns() - asked.clock_ns) < asked.limit_ns:
            return False
        if self.scene.unwell(partid, since) or self.scene.unwell(peer, since):
            return True
        hurts = sum(
            asked.number in (-1, hit.number)
            for ends in ((partid, peer), (peer, partid))
            for hit in injuries.hits(*ends, since)
        )
        hurts += sum(shot.point in _UNSENT for shot in injuries.shots(partid, since))
        # A recall waits for nothing at its importer: of that an answer is due at once.
        hurts += asked.reached and not asked.said and asked.kind != "INVALIDATE"
        for shot in injuries.shots(peer, since):
            if asked.kind == "INVALIDATE" and shot.action == "pause":
                return True  # its thread stands still, for all attempts
            slow = shot.action.startswith(_SLOWS) and (
                asked.kind == "INVALIDATE" or shot.point in _SERVES
            )
            hurts += shot.point in _UNSENT or shot.point in _UNSERVED or slow
        return hurts >= asked.attempts
