"""XPC, the cross-partition communication of one kernel: the only way in for everybody else.

Frames come in through `receive`, go out through the transport; requests come in through `call`
and `post`, and reach the handler that registered for their channel at the other side. Nothing
here knows what the messages of a channel mean. Whatever arrives, `receive` does not raise: a frame
that nobody can have meant is counted, told to the event stream and dropped.

Requests, sessions, channels and partitions have modules of their own; this one only composes.
"""

from dataclasses import asdict

from xpmem_emu.codec import BadMessage, Buffer
from xpmem_emu.failpoints import Failpoints
from xpmem_emu.failpoints.points import XPC_CALL, XPC_CLAIM, XPC_RECEIVE, Point
from xpmem_emu.image import Image
from xpmem_emu.sched import LockDep, Mutex, Scheduler
from xpmem_emu.trace import Tracer
from xpmem_emu.xpc import events
from xpmem_emu.xpc.activation import ActState
from xpmem_emu.xpc.control import admit, receive_control
from xpmem_emu.xpc.discovery import look_for_peers, make_page
from xpmem_emu.xpc.frame import (
    DATA_CHANNELS,
    FIRST_ADMIN_CODE,
    KIND,
    ChannelNumber,
    Header,
    decode_frame,
)
from xpmem_emu.xpc.heartbeat import Heart, beat_and_check
from xpmem_emu.xpc.messages import Message
from xpmem_emu.xpc.partition import Partition
from xpmem_emu.xpc.peers import Peers
from xpmem_emu.xpc.reasons import Ending, Reason, XpcError
from xpmem_emu.xpc.slots import Notify, Obligation, Patience, ReplyWithBulk, RequestTerms, terms_of
from xpmem_emu.xpc.wire import ChannelHandler, Local, PartitionListener, Transport

__all__ = [
    "ChannelHandler",
    "Ending",
    "PartitionListener",
    "Patience",
    "Reason",
    "Transport",
    "Xpc",
    "XpcError",
]

_STOP_ROUND_NS = 300_000_000
"""Sources 3.3: how often the unload path looks whether anybody is left."""


class Xpc:
    """The communication layer of one partition."""

    def __init__(
        self,
        *,
        partid: int,
        boot: int,
        image: Image,
        arena: str,
        peers: Peers,
        scheduler: Scheduler,
        lockdep: LockDep,
        tracer: Tracer,
        transport: Transport,
        listener: PartitionListener,
        failpoints: Failpoints | None = None,
    ) -> None:
        """`boot` is larger than that of any earlier boot of `partid`; `arena` is opaque here."""
        self.heart = Heart()
        self.bad_frames = 0
        self._local = Local(
            partid=partid,
            boot=boot,
            image=image,
            page=make_page(partid, boot, image, arena),
            scheduler=scheduler,
            tracer=tracer,
            failpoints=failpoints or Failpoints(scheduler, tracer),
            transport=transport,
            listener=listener,
            beat=self.heart.next,
        )
        self._peers = peers
        self.partitions = {peer: Partition(self._local, peer) for peer in peers.standing}
        """Standing peers, and who was met since."""
        for partition in self.partitions.values():
            partition.standing = True
        self._registration = Mutex(scheduler, lockdep, "xpc_registration")

    # -- life ------------------------------------------------------------------------------

    def start(self) -> None:
        """Start looking for peers."""
        scheduler, partitions = self._local.scheduler, self.partitions.values()
        scheduler.spawn("xpc_discovery", look_for_peers(self._local, partitions))
        scheduler.spawn("xpc_hb", beat_and_check(self._local, partitions, self._peers.crowd))

    async def shutdown(self, reason: Reason) -> None:
        """Leave every peer in order. Ends within the disengage limit, whatever they do."""
        local = self._local
        local.stopping = True
        everybody = self.partitions.values()
        while remaining := [each for each in everybody if each.state is not ActState.INACTIVE]:
            # All of them each time, those as well that were still on their way to ACTIVE before.
            for partition in remaining:
                partition.deactivate(reason, "xpc/xpc:shutdown")
            await remaining[0].left_state(local.scheduler.now_ns + _STOP_ROUND_NS)
        self.heart.go_offline()
        local.halted = True
        local.wakeup.wake_all()

    def crash(self) -> None:
        """The kernel is dying: tell every peer that is not INACTIVE, once, and wait for nobody."""
        self._local.stopping = True
        for partition in self.partitions.values():
            if partition.state is not ActState.INACTIVE:
                partition.dismiss(Reason.SYSTEM_GOING_DOWN)

    # -- frames ----------------------------------------------------------------------------

    def receive(self, frames: list[Buffer]) -> None:
        """Frames from the interconnect, in interrupt context. Never raises for what they hold."""
        if self._local.failpoints.armed and self._local.failpoints.failing(XPC_RECEIVE):
            return
        try:
            header, message, bulk = decode_frame(frames, self._local.image.xpc.payload)
            partition = self.partitions.get(header.src) or self._meet(header.src)
            if partition is None:
                raise BadMessage(f"from p{header.src}, which is no peer")
        except BadMessage as error:
            self.bad_frames += 1
            self._local.tracer.emit(events.BadFrame(cause=str(error)))
            return
        if not admit(self._local, partition, header, message):
            return
        partition.counters.received += 1
        if message.code < FIRST_ADMIN_CODE:
            receive_control(self._local, partition, header, message)
        else:
            self._receive_numbered(partition, header, message, bulk)

    def _receive_numbered(
        self, partition: Partition, header: Header, message: Message, bulk: Buffer
    ) -> None:
        self._local.tracer.emit(
            events.Received(
                peer=header.src,
                kind=KIND[type(message)],
                channel=header.channel,
                number=header.number,
                incarnation=header.src_incarnation,
            )
        )
        session = partition.session
        if session is None or partition.state is not ActState.ACTIVE:
            return
        if header.channel == ChannelNumber.ADMIN:
            session.admin.receive(header, message)
        else:
            session.channels[header.channel].receive(header, message, bulk)

    # -- channels --------------------------------------------------------------------------

    def register(self, channel: int, handler: ChannelHandler) -> None:
        """Offer `channel` to every peer, now and whenever one becomes ACTIVE. XpcError."""
        self._check_channel(channel, self._local.partid)
        if channel in self._local.handlers:
            raise self._refusal(Reason.ALREADY_REGISTERED, self._local.partid, f"c{channel}")
        self._local.handlers[channel] = handler
        for partition in self.partitions.values():
            if partition.session is not None:
                partition.session.channels[channel].offer()

    async def unregister(self, channel: int) -> None:
        """Close `channel` to every peer; returns when no thread of it runs any more."""
        self._check_channel(channel, self._local.partid)
        async with self._registration:
            # In one step: a channel that closes offers itself again if somebody is registered for
            # it, and one that stayed offered while we sleep would open with nobody behind it.
            self._local.handlers.pop(channel, None)
            for partition in self.partitions.values():
                partition.close_channel(channel)
            for partition in list(self.partitions.values()):  # others may be met meanwhile
                await partition.channel_closed(channel)

    async def call(
        self, partid: int, channel: int, session: int, request: Message, *, patience: Patience
    ) -> Message:
        """Have `partid` do what it owes us in `session`, and wait, whatever happens here.

        No signal ends it. Ends with the answer, or with an XpcError and that session over: a peer
        that does not take or do it within `patience` is given up. Sent again when the channel
        was closed under it, so it must be harmless to do twice while the caller waits.
        """
        partition = self._reachable(partid, channel, b"")
        owed = terms_of(Obligation.OWED, patience, self._local.scheduler.now_ns)
        while True:
            try:
                return (await self._ask(partition, channel, session, request, b"", owed))[0]
            except XpcError as error:
                if self._local.scheduler.now_ns >= owed.give_up_ns:
                    self.condemn(partid, session, Reason.TIMEOUT, f"xpc/xpc:not_taken: {error}")
                # The session lives, so the peer still owes it: no slot in time, or the channel was
                # closed and opens again.
                if not self.is_active(partid, session):
                    raise
            await self._local.scheduler.sleep_until(
                min(self._local.scheduler.now_ns + patience.attempt_ns, owed.give_up_ns)
            )

    async def call_killable(
        self,
        partid: int,
        channel: int,
        request: Message,
        *,
        patience: Patience,
        session: int | None = None,
        bulk: Buffer = b"",
    ) -> ReplyWithBulk:
        """Ask `partid`, in `session` if it makes sense in no other, and wait for the answer.
        Raises XpcError, which says nothing about the peer unless the session ended.

        A thread that is killed, now or while it waits, gets KILLED_BEFORE if nothing was sent, else
        INTERRUPTED; then the request completes without it (`late_reply`), and so does one whose
        patience is over.
        """
        partition = self._reachable(partid, channel, bulk)
        current = self._local.scheduler.current
        if current is not None and current.killed:
            raise self._error(Ending.KILLED_BEFORE, Reason.INTERRUPTED, partid, "killed before")
        asked = terms_of(Obligation.ASKED, patience, self._local.scheduler.now_ns)
        return await self._ask(partition, channel, session, request, bulk, asked)

    async def _ask(
        self,
        partition: Partition,
        channel: int,
        session: int | None,
        request: Message,
        bulk: Buffer,
        terms: RequestTerms,
    ) -> ReplyWithBulk:
        if self._local.failpoints.armed:
            await self._reach(XPC_CALL, partition.partid, Reason.NOT_CONNECTED)
        # An opening that ends before the request is on its ring refuses it there: NOT_SENT.
        opening = await partition.opening(channel, session, terms)
        if self._local.failpoints.armed:
            await self._reach(XPC_CLAIM, partition.partid, Reason.TIMEOUT)
        return await opening.sender.call(request, bulk, terms)

    def post(
        self,
        partid: int,
        channel: int,
        request: Message,
        notify: Notify,
        *,
        patience: Patience,
        bulk: Buffer = b"",
    ) -> None:
        """Ask `partid` without waiting. Either XpcError, or `notify` is called exactly once, in
        atomic context, with the answer or with the XpcError that stands for it."""
        partition = self._reachable(partid, channel, bulk)
        asked = terms_of(Obligation.ASKED, patience, self._local.scheduler.now_ns)
        partition.opening_now(channel).sender.post(request, bulk, asked, notify)

    def _reachable(self, partid: int, channel: int, bulk: Buffer) -> Partition:
        self._check_channel(channel, partid)
        partition = self.partitions.get(partid) or self._meet(partid)
        if partition is None:
            raise self._refusal(Reason.INVALID_PARTID, partid, "no such peer")
        if len(bulk) > self._local.image.xpc.payload:
            raise self._refusal(Reason.PAYLOAD_TOO_BIG, partid, f"{len(bulk)} bytes of bulk")
        return partition

    def _check_channel(self, channel: int, partid: int) -> None:
        if channel not in DATA_CHANNELS:
            raise self._refusal(Reason.BAD_CHANNEL_NUMBER, partid, f"channel {channel}")

    async def _reach(self, point: Point, partid: int, reason: Reason) -> None:
        """Pass a failpoint of `call`; failing there is that XpcError, whatever the errno."""
        if await self._local.failpoints.reached(point):
            text = f"failpoint {point.name} said so"
            raise self._error(Ending.NOT_SENT, reason, partid, text)

    def _refusal(self, reason: Reason, partid: int, text: str) -> XpcError:
        return self._error(Ending.REFUSED, reason, partid, text)

    def _error(self, ending: Ending, reason: Reason, partid: int, text: str) -> XpcError:
        return XpcError(ending, reason, partid, "xpc/xpc", text)

    # -- peers -----------------------------------------------------------------------------

    def is_peer(self, partid: int) -> bool:
        """Whether the machine has that partition, and it is not this one."""
        return partid != self._local.partid and partid in self._peers.machine

    def _meet(self, partid: int) -> Partition | None:
        """A peer that was not met before; None when there is none."""
        if not self.is_peer(partid):
            return None
        partition = self.partitions[partid] = Partition(self._local, partid)
        return partition

    async def seek(self, partid: int) -> None:
        """Have a session with a peer that is not standing, if it can be had in the time of a first
        contact. Killable. At once for a standing one, which discovery looks for."""
        partition = self.partitions.get(partid) or self._meet(partid)
        if partition is not None and not partition.standing:
            await partition.seek()

    def incarnation(self, partid: int) -> int | None:
        """The incarnation of `partid` in its ACTIVE session with us, None when there is none."""
        partition = self.partitions.get(partid)
        return None if partition is None else partition.incarnation

    def is_active(self, partid: int, incarnation: int) -> bool:
        """Whether we have an ACTIVE session with exactly that incarnation of `partid`."""
        partition = self.partitions.get(partid)
        return partition is not None and partition.incarnation == incarnation

    def deactivate(self, partid: int, reason: Reason, place: str) -> None:
        """Give the peer up. It may come back with a new session, unless the kernel stops."""
        self.partitions[partid].deactivate(reason, place)

    def condemn(self, partid: int, session: int, reason: Reason, place: str) -> None:
        """Give the peer up for what it did, or failed to do, in `session`. A verdict on a session
        that is over is void: a new one is not charged with it."""
        if self.is_active(partid, session):
            self.deactivate(partid, reason, place)

    def number_from(self, number: int) -> None:
        """Let the numbers of later requests, and heartbeats, be at least this."""
        self.heart.count_from(number)
        for partition in self.partitions.values():
            for channel in partition.session.channels if partition.session else ():
                if channel.opening is not None:
                    channel.opening.sender.number_from(number)

    # -- accounts --------------------------------------------------------------------------

    @property
    def counters(self) -> dict[str, int]:
        """What happened to messages since boot, over all peers."""
        totals = {"bad_frames": self.bad_frames}
        for partition in self.partitions.values():
            for name, value in asdict(partition.counters).items():
                totals[name] = totals.get(name, 0) + value
        return totals

    def check(self) -> None:
        """Compare what is counted with what it stands for. KernelBug at the first difference."""
        for partition in self.partitions.values():
            for channel in partition.session.channels if partition.session else ():
                if channel.opening is not None:
                    channel.opening.sender.check()

    def audit(self) -> dict[str, int]:
        """What is held for peers now. All zero when every peer is INACTIVE and no thread runs."""
        totals = dict.fromkeys(("slots", "waiting", "remembered", "admin", "threads"), 0)
        for partition in self.partitions.values():
            totals["threads"] += partition.threads
            if partition.session is not None:
                for name, value in partition.session.audit().items():
                    totals[name] += value
        return totals
