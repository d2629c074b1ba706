"""S9, from what a partition says of each arrival.

Of a numbered request that is received again within a session, every copy but the first must be
told apart as a duplicate in the same step; one that found no thread never was there. Messages that
arrive while there is no session do not count, nor do answers: a second answer has nobody to go to.
"""

from xpmem_emu.judge.checkers.base import Checker
from xpmem_emu.judge.invariants import Invariant
from xpmem_emu.judge.scene import EventHandlers, Scene
from xpmem_emu.kernel.events import KernelBoot
from xpmem_emu.trace import Event
from xpmem_emu.xpc.events import (
    BadFrame,
    ChannelChange,
    Duplicate,
    PartitionChange,
    Received,
    Refused,
)

_REQUESTS = frozenset(
    {"GET", "RELEASE", "ATTACH", "DETACH", "FAULT", "INVALIDATE", "EVICT", "AMO", "COPY"}
)


class Once(Checker):
    """Counts arrivals by (receiver, sender, channel, number)."""

    judges = (Invariant.S9,)
    looks_at = "arrivals of numbered requests"

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self._seen: set[tuple[int, int, int, int]] = set()
        self._open: set[tuple[int, int]] = set()
        self._again: tuple[int, int, int, int] | None = None

    def handlers(self) -> EventHandlers:
        """Arrivals."""
        return {
            KernelBoot: self._booted,
            PartitionChange: self._partition,
            ChannelChange: self._channel,
            Received: self._received,
            Refused: self._refused,
            Duplicate: self._told_apart,
            BadFrame: self._told_apart,
        }

    def _booted(self, partid: int, event: KernelBoot) -> None:
        self._forget({pair for pair in self._open if pair[0] == partid})

    def _partition(self, partid: int, event: PartitionChange) -> None:
        self._forget({(partid, event.peer)})

    def _channel(self, partid: int, event: ChannelChange) -> None:
        if event.channel != 0:
            return
        if event.state in ("completed", "connected"):
            self._open.add((partid, event.peer))
        else:
            self._forget({(partid, event.peer)})

    def _forget(self, pairs: set[tuple[int, int]]) -> None:
        self._open -= pairs
        self._seen = {each for each in self._seen if each[:2] not in pairs}

    def _received(self, partid: int, event: Received) -> None:
        if event.kind not in _REQUESTS or (partid, event.peer) not in self._open:
            return
        key = (partid, event.peer, event.channel, event.number)
        if key in self._seen:
            self._again = key
        self._seen.add(key)

    def _refused(self, partid: int, event: Refused) -> None:
        if self._again is None:
            self._seen.discard((partid, event.peer, event.channel, event.number))
        self._again = None

    def _told_apart(self, partid: int, event: Event) -> None:
        self._again = None

    def crashed(self, partid: int) -> None:
        """It cannot say any more what it makes of a request."""
        self._again = None

    def stepped(self, partid: int) -> None:
        """A repeated request that nobody noticed was carried out twice."""
        if self._again is not None:
            _, peer, channel, number = self._again
            self.report(
                Invariant.S9,
                partid,
                f"request {number} of p{peer} on channel {channel} was taken twice",
            )
            self._again = None
