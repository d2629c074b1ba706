"""L5 recalls go first: a recall is never held up by what others want.

In the step in which a recall begins its INVALIDATE leaves for each holder, however many requests of
other kinds wait for that holder, unless every slot for what gives things back is taken by such a
request, the channel is not open, or a failpoint is set at that partition.
"""

from collections.abc import Mapping

from xpmem_emu.failpoints.events import FailpointSet
from xpmem_emu.kernel.events import KernelBoot
from xpmem_emu.sim.checkers.base import Checker, Handler, Scene
from xpmem_emu.trace import Event
from xpmem_emu.xpc.events import ChannelChange, PartitionState, Received, Sent
from xpmem_emu.xpmem.events import RecallBegin

_MEM = 0
_GIVES_BACK = frozenset({"INVALIDATE", "EVICT", "DETACH", "RELEASE"})
_ANSWERS = frozenset({"INVALIDATE_ACK", "ACK"})


class Priority(Checker):
    """Follows recalls from their begin to their messages."""

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self._open: set[tuple[int, int]] = set()
        self._busy: dict[tuple[int, int], set[int]] = {}
        """(who asks, who is asked) -> numbers of requests that give something back."""
        self._armed: set[int] = set()
        """Partitions where a failpoint was set since they booted."""
        self._owed: set[int] = set()
        self._sent: set[int] = set()

    def handlers(self) -> Mapping[type[Event], Handler]:
        """Recalls, and what leaves and comes back."""
        return {
            KernelBoot: self._booted, ChannelChange: self._channel, Sent: self._sends,
            Received: self._received, RecallBegin: self._recall, FailpointSet: self._set,
            PartitionState: self._partition,
        }  # fmt: skip

    def _booted(self, partid: int, event: KernelBoot) -> None:
        self._armed.discard(partid)
        self._forget({pair for pair in (*self._busy, *self._open) if pair[0] == partid})

    def _partition(self, partid: int, event: PartitionState) -> None:
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

    def _set(self, partid: int, event: FailpointSet) -> None:
        self._armed.add(partid)

    def _sends(self, partid: int, event: Sent) -> None:
        if event.kind in _GIVES_BACK:
            self._busy.setdefault((partid, event.peer), set()).add(event.number)
            if event.kind == "INVALIDATE":
                self._sent.add(event.peer)

    def _received(self, partid: int, event: Received) -> None:
        if event.kind in _ANSWERS and event.channel == _MEM:
            busy = self._busy.get((partid, event.peer))
            if busy is not None:
                busy.discard(event.number)

    def _recall(self, partid: int, event: RecallBegin) -> None:
        self._owed |= {peer for peer in event.holders if (partid, peer) in self._open}

    def crashed(self, partid: int) -> None:
        """Nobody waits for what it did not send."""
        self._owed, self._sent = set(), set()

    def stepped(self, partid: int) -> None:
        """Every recall of the step is on its way."""
        if not self._owed:
            self._sent.clear()
            return
        owed, self._owed = self._owed - self._sent, set()
        self._sent = set()
        slots = self.scene.image.xpc.slots
        for peer in sorted(owed):
            taken = len(self._busy.get((partid, peer), ()))
            if taken < slots and partid not in self._armed and (partid, peer) in self._open:
                text = f"a recall from p{peer} waits, with {taken} of {slots} slots taken"
                self.scene.report("L5", partid, text)
