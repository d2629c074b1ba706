"""What all peers of one XPC share, and the way to one of them within one session.

`Local` is what a partition knows of itself. `Wire` stamps numbered messages with the two
incarnations of its session, encodes them once (a retransmission sends the same bytes), tells the
event stream and hands them to the transport. It keeps nothing it has sent.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from xpmem_emu.codec import Buffer
from xpmem_emu.failpoints import Failpoints
from xpmem_emu.failpoints.points import XPC_SEND
from xpmem_emu.image import Image
from xpmem_emu.sched import Scheduler, WaitQueue
from xpmem_emu.trace import Tracer
from xpmem_emu.xpc import events
from xpmem_emu.xpc.frame import KIND, Header, encode_frame
from xpmem_emu.xpc.messages import Message, RsvdPage
from xpmem_emu.xpc.reasons import Ending, Reason, XpcError

GENERATION_SHIFT = 40
"""Bits of how often one slot may be used in one opening of a channel. A session ends before a slot
is used more often."""
OPENINGS_MAX = 1 << 10
"""Openings of one channel in one session. With at most 2^13 slots a number has 63 bits."""


class Requester:
    """Who asked for a piece of work, and in which session: `session` is its incarnation there.

    The thread that does the work may sleep for long, past the end of that session and past every
    limit on how long such an end is waited for. What it does then would be done to the next
    session, to which it means something else. So work carries its requester and asks it again after
    every sleep; no clock is trusted for this:

        old session                       new session
        EVICT(5) received, sleeps
        session ends: all is given back
                                          FAULT(5): page 5 is held again
        wakes: require_current() raises
                                          page 5 is still held
    """

    __slots__ = ("current", "partid", "session")

    def __init__(self, partid: int, session: int) -> None:
        self.partid = partid
        self.session = session
        self.current = True
        """Whether it can still get an answer. The end of the session takes it away, for good."""

    def require_current(self) -> None:
        """To be asked after every sleep. Raises XpcError SESSION_ENDED."""
        if not self.current:
            raise XpcError(
                Ending.SESSION_ENDED,
                Reason.DISCONNECTED,
                self.partid,
                "xpc/wire:requester",
                "whoever asked for this has gone",
            )


class Transport(Protocol):
    """The interconnect as XPC sees it: may lose, repeat, delay and reorder whatever it is given."""

    def send(self, partid: int, kind: str, number: int, frames: list[Buffer]) -> None:
        """Put `frames` on the way to `partid`; returns at once."""

    def link_down(self, partid: int, reason: str) -> None:
        """Forget everything still queued towards `partid`."""


class ChannelHandler(Protocol):
    """The user of one channel."""

    def connected(self, partid: int) -> None:
        """The channel to `partid` is open. Atomic."""

    def disconnected(self, partid: int, reason: Reason) -> None:
        """The channel to `partid` is gone and none of its threads runs. Atomic."""

    async def received(
        self, requester: Requester, message: Message, bulk: Buffer
    ) -> Message | tuple[Message, Buffer]:
        """Carry out a request, in a kernel thread of its own; the result is the reply. To be left
        by `require_current` when the session ends under it."""

    def late_reply(self, partid: int, request: Message, reply: Message) -> None:
        """`reply` came after the caller of `request` had given up. Atomic."""


class PartitionListener(Protocol):
    """Who must know when a peer appears and disappears. All calls are atomic."""

    def partition_up(self, partid: int, page: RsvdPage, incarnation: int) -> None:
        """A session with `incarnation` of `partid` became ACTIVE."""

    def partition_down(self, partid: int, incarnation: int, reason: Reason, place: str) -> None:
        """That session is over for us; called before anybody who waits for the peer wakes."""

    def partition_gone(self, partid: int, incarnation: int) -> None:
        """The same boot of the peer has shown a newer incarnation, so it has left that session."""


@dataclass(slots=True)
class PeerCounters:
    """What happened to the messages of one peer since boot; they outlive its sessions."""

    sent: int = 0
    received: int = 0
    stale_frames: int = 0
    bad_frames: int = 0
    """Well-formed, but not what the protocol allows here."""
    duplicates: int = 0
    retransmissions: int = 0
    pendings: int = 0
    late_replies: int = 0
    refused: int = 0
    """Requests dropped for want of a thread; the peer sends them again."""
    activations: int = 0
    disengage_timeouts: int = 0


@dataclass(slots=True)
class Local:
    """This partition, as shared by everything in XPC."""

    partid: int
    boot: int
    image: Image
    page: RsvdPage
    scheduler: Scheduler
    tracer: Tracer
    failpoints: Failpoints
    transport: Transport
    listener: PartitionListener
    beat: Callable[[], tuple[int, bool]]
    """The next heartbeat value and whether it is the offline form."""
    handlers: dict[int, ChannelHandler] = field(default_factory=dict)
    """By channel. An opening keeps the one that it began with: what runs is its business."""
    stopping: bool = False
    """Nobody is activated any more."""
    halted: bool = False
    """The kernel threads of XPC end."""
    wakeup: WaitQueue = field(init=False)
    """Where the kernel threads of XPC pause."""

    def __post_init__(self) -> None:
        self.wakeup = WaitQueue(self.scheduler)

    async def pause(self, until_ns: int) -> bool:
        """Sleep until `until_ns`; False, possibly at once, when the thread must end."""
        while not self.halted and self.scheduler.now_ns < until_ns:
            await self.wakeup.wait(until_ns)
        return not self.halted


@dataclass(slots=True, frozen=True)
class Packet:
    """A numbered message, encoded for its session."""

    kind: str
    channel: int
    number: int
    frames: list[Buffer]


class Wire:
    """Numbered messages to one peer in one session."""

    __slots__ = ("_dst_incarnation", "_src_incarnation", "counters", "local", "peer")

    def __init__(
        self, local: Local, peer: int, counters: PeerCounters, *, mine: int, remote: int
    ) -> None:
        self.local = local
        self.peer = peer
        self.counters = counters
        self._src_incarnation = mine
        self._dst_incarnation = remote

    @property
    def remote(self) -> int:
        """The peer's incarnation in this session."""
        return self._dst_incarnation

    def pack(self, channel: int, number: int, message: Message, bulk: Buffer = b"") -> Packet:
        """`message` with its place in the session. Sends nothing."""
        header = Header(
            self.local.partid, self._src_incarnation, self._dst_incarnation, channel, number
        )
        frames: list[Buffer] = [encode_frame(header, message)]
        if len(bulk):
            frames.append(bulk)
        return Packet(KIND[type(message)], channel, number, frames)

    def send(self, packet: Packet) -> None:
        """Hand over `packet` for the first time."""
        self.counters.sent += 1
        self._hand_over(packet, events.Sent)

    def resend(self, packet: Packet) -> None:
        """Hand over `packet` again."""
        self.counters.retransmissions += 1
        self._hand_over(packet, events.Retransmit)

    def _hand_over(
        self, packet: Packet, event: type[events.Sent] | type[events.Retransmit]
    ) -> None:
        self.local.tracer.emit(
            event(
                peer=self.peer,
                kind=packet.kind,
                channel=packet.channel,
                number=packet.number,
                incarnation=self._src_incarnation,
            )
        )
        if self.local.failpoints.armed and self.local.failpoints.failing(XPC_SEND):
            return
        self.local.transport.send(self.peer, packet.kind, packet.number, packet.frames)


def count_duplicate(wire: Wire, kind: str, channel: int, number: int) -> None:
    """A numbered message came again and nothing was applied."""
    wire.counters.duplicates += 1
    wire.local.tracer.emit(
        events.Duplicate(peer=wire.peer, kind=kind, channel=channel, number=number)
    )
