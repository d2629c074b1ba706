"""One peer: its act_state, its sessions, and the thread that keeps both going.

Every change happens in atomic context, at the message or timer that causes it; the thread xpcNN
only repeats what may have been lost and watches the two deadlines, first contact and disengage.

`mine`, our incarnation towards the peer, is boot << 16 | epoch. The epoch moves on at each
activation and never before everything of the session before was withdrawn, so a peer that sees a
newer incarnation knows that the old session is dead on our side too (decision 003). A session
ends in this order: the listener hears of it, the connection is dropped, the peer is told, callers
wake with the reason, threads finish; then both sides say that they have let go, or the disengage
limit passes. What arrives is judged in `control`. Sources 3.3.
"""

from xpmem_emu.codec import Buffer
from xpmem_emu.sched import WaitQueue, Wake
from xpmem_emu.xpc import events
from xpmem_emu.xpc.activation import ACTIVATION, UP, ActEvent, ActState, replaces
from xpmem_emu.xpc.delivery import Opening
from xpmem_emu.xpc.frame import DATA_CHANNELS, KIND, ChannelNumber, Header, encode_frame
from xpmem_emu.xpc.messages import (
    ActivateReq,
    DeactivateReq,
    Heartbeat,
    Message,
    RsvdPageRead,
    SyncActState,
)
from xpmem_emu.xpc.reasons import Ending, Reason, XpcError
from xpmem_emu.xpc.remote import EPOCH_BITS, EPOCH_MAX, Remote
from xpmem_emu.xpc.session import Session
from xpmem_emu.xpc.slots import RequestTerms, SlotClass
from xpmem_emu.xpc.wire import Local, PeerCounters


class Partition:
    """What this partition knows of the partition `partid`."""

    def __init__(self, local: Local, partid: int) -> None:
        self.partid = partid
        self.mine = local.boot << EPOCH_BITS
        """Our incarnation towards this peer: the epoch in it moves on at each activation."""
        self.state = ACTIVATION.initial
        """Moved by `_move` alone, at a message or a timer; who slept asks it again."""
        self.reason = Reason.SUCCESS
        self.place = ""
        """Why it is in that state, and who decided that."""
        self.counters = PeerCounters()
        self.remote = Remote()
        self.session: Session | None = None
        """From contact to the end of the disengagement: it outlives ACTIVE, to be wound up."""
        self.standing = False
        """Whether discovery looks for it as long as we run; for others while somebody needs one."""
        self._seekers = 0
        self.threads = 0
        """Those that serve this peer, of all its sessions."""
        self._capacity = len(SlotClass) * local.image.xpc.slots * len(DATA_CHANNELS)
        self._local = local
        self._disengage_ns = 0
        """When DEACTIVATING ends, whatever the peer does."""
        self._changes = WaitQueue(local.scheduler)
        """Woken at each change of a state, a channel's as well, and when the peer has let go."""

    @property
    def incarnation(self) -> int | None:
        """The peer's incarnation in our ACTIVE session with it, which no other session has; None
        when there is none."""
        return self.remote.seen if self.state is ActState.ACTIVE else None

    # -- changes of state ------------------------------------------------------------------

    def activate(self) -> None:
        """Start a new epoch towards the peer, if we are INACTIVE and not stopping. Not while the
        threads of old sessions are more than the slots of one: there are never more than twice
        as many."""
        if self.state is not ActState.INACTIVE or self._local.stopping:
            return
        if self.mine & EPOCH_MAX == EPOCH_MAX:
            self.reason, self.place = Reason.LACK_OF_RESOURCES, "xpc/partition:epoch"
            return
        if self.threads > self._capacity:
            # A session must find a thread for each of its slots, or what still sleeps for the old
            # ones could keep a recall of the new one waiting. Discovery tries again.
            self.reason, self.place = Reason.LACK_OF_RESOURCES, "xpc/partition:threads"
            return
        assert self.session is None, "an epoch begins when nothing of the one before is left"
        self.mine += 1
        self.counters.activations += 1
        self.remote.knows_us = False
        self._move(ActEvent.ACTIVATE, Reason.CLONE_KTHREAD, "xpc/partition:activate")
        self._local.scheduler.spawn(f"xpc{self.partid:02}", self._run())

    def deactivate(self, reason: Reason, place: str) -> None:
        """Withdraw everything from the peer; `place` says who decided it."""
        if self.state is ActState.INACTIVE:
            self.reason, self.place = reason, place
            if reason is Reason.REACTIVATING:
                self.activate()
        elif self.state is ActState.DEACTIVATING:
            if replaces(self.reason, reason):
                self.reason, self.place = reason, place
        else:
            self._withdraw(reason, place)

    def contact(self) -> None:
        """Become ACTIVE, if the peer knows our incarnation and we know its page."""
        remote = self.remote
        if remote.seen == remote.left:
            self.sync()
            return
        if not remote.knows_us or remote.page is None:
            return
        assert self.session is None
        remote.let_go, remote.checked = False, -1
        self.session = Session(
            self._local, self.partid, self.counters, self, mine=self.mine, remote=remote.seen
        )
        self._move(ActEvent.CONTACT, Reason.SUCCESS, "xpc/partition:contact")
        self._local.listener.partition_up(self.partid, remote.page, remote.seen)
        if self.state is ActState.ACTIVE:  # else the listener could not do with it and gave it up
            self.sync()
            self.session.offer()

    def _withdraw(self, reason: Reason, place: str) -> None:
        session, remote = self.session, self.remote
        self._disengage_ns = self._local.scheduler.now_ns + self._local.image.xpc.disengage_limit
        # In one step, and in this order: nobody begins anything with the peer any more; its memory
        # is out of reach; nothing is sent; and only then do callers wake, who look at all that.
        self._move(ActEvent.DEACTIVATE, reason, place)
        if session is not None:
            remote.left = session.remote
            self._local.listener.partition_down(self.partid, session.remote, reason, place)
        self._local.transport.link_down(self.partid, reason.name)
        self.dismiss(reason)
        if session is not None:
            session.end(reason, place)

    def _move(self, event: ActEvent, reason: Reason, place: str) -> None:
        self.state = ACTIVATION.next(self.state, event)
        self.reason, self.place = reason, place
        self._local.tracer.emit(
            events.PartitionChange(
                peer=self.partid,
                state=self.state.name,
                reason=reason.name,
                place=place,
                incarnation=self._incarnation(),
            )
        )
        self.changed()

    def _incarnation(self) -> int:
        """The peer's, in the session that this is about."""
        return self.remote.seen if self.session is None else self.session.remote

    def changed(self) -> None:
        """Wake whoever waits for a state, of this partition or of a channel to it."""
        self._changes.wake_all()

    # -- the thread xpcNN ------------------------------------------------------------------

    async def _run(self) -> None:
        if self.state is ActState.ACTIVATION_REQ:
            self._move(ActEvent.THREAD_RUNS, Reason.SUCCESS, "xpc/partition:run")
        await self._first_contact()
        while self.state is ActState.ACTIVE:  # woken for channels, too; no deadline: see xpc_hb
            await self._changes.wait()
        await self._disengage()
        if self.reason is Reason.REACTIVATING:
            self.activate()

    async def _first_contact(self) -> None:
        xpc = self._local.image.xpc
        for _ in range(xpc.control_tries):
            # In the sleep before, contact was made, the peer was given up, or its page arrived.
            if self.state is not ActState.ACTIVATING:
                return
            if self.remote.page is None:
                self.tell(RsvdPageRead(), 0)
            self.tell(ActivateReq(self.state), 0)
            self.sync()
            await self.left_state(self._local.scheduler.now_ns + xpc.control_attempt)
        if self.state is ActState.ACTIVATING:
            self.deactivate(Reason.TIMEOUT, "xpc/partition:first_contact")

    async def _disengage(self) -> None:
        """DEACTIVATING: until nothing runs here and the peer has let go, or the limit passed."""
        attempt_ns = self._local.image.xpc.control_attempt
        while not self._disengaged():
            now_ns = self._local.scheduler.now_ns
            if now_ns >= self._disengage_ns:
                self.counters.disengage_timeouts += 1
                self._local.tracer.emit(
                    events.DisengageTimeout(peer=self.partid, incarnation=self._incarnation())
                )
                break
            self.say_heartbeat()
            await self._changes.wait(min(now_ns + attempt_ns, self._disengage_ns))
        # Threads of the session may run on: from here on they are on their own (`Requester`).
        # The peer may still wait for this, and whoever halts now answers it no more.
        self.say_heartbeat()
        session, self.session = self.session, None
        if session is not None:
            session.retire()
        self._move(ActEvent.DISENGAGED, self.reason, self.place)

    def _disengaged(self) -> bool:
        return self.session is None or (self.remote.let_go and not self.session.engaged)

    # -- what the peer is told -------------------------------------------------------------

    def tell(self, message: Message, dst_incarnation: int) -> None:
        """Send an unnumbered control message."""
        header = Header(self._local.partid, self.mine, dst_incarnation, ChannelNumber.ADMIN, 0)
        frames: list[Buffer] = [encode_frame(header, message)]
        self._local.transport.send(self.partid, KIND[type(message)], 0, frames)

    def sync(self) -> None:
        """Tell the peer our state, or, if it still lives in a session that we left, to go."""
        remote = self.remote
        if remote.seen and remote.seen == remote.left:
            self.tell(DeactivateReq(Reason.REACTIVATING), remote.seen)
        elif remote.seen:
            self.tell(SyncActState(self.state), remote.seen)

    def say_heartbeat(self) -> None:
        """The next heartbeat, with our state and whether we still hold the peer's things."""
        if self.remote.seen:
            value, offline = self._local.beat()
            engaged = self.session is not None and self.session.engaged
            self.tell(Heartbeat(value, offline, self.state, engaged), self._incarnation())

    def dismiss(self, reason: Reason) -> None:
        """Tell the peer, if it wants us, that it is being deactivated. Changes nothing here."""
        if self.remote.act_state in UP:
            self.tell(DeactivateReq(reason), self._incarnation())

    # -- what callers need -----------------------------------------------------------------

    @property
    def sought(self) -> bool:
        """Whether discovery looks for it."""
        return self.standing or self._seekers > 0

    async def seek(self) -> None:
        """Have discovery look for it, until it is ACTIVE or a first contact would have failed,
        after the end of a session before. Killable; the caller looks what came of it."""
        xpc, why = self._local.image.xpc, Wake.WOKEN
        until_ns = self._local.scheduler.now_ns + xpc.control_tries * xpc.control_attempt
        if self.state is ActState.DEACTIVATING:
            until_ns += xpc.disengage_limit
        self._seekers += 1
        try:
            if self.state is ActState.INACTIVE:
                self.tell(RsvdPageRead(), 0)
            while self.state is not ActState.ACTIVE and why is Wake.WOKEN:
                why = await self._changes.wait_killable(until_ns)
        finally:
            self._seekers -= 1

    def opening_now(self, channel: int) -> Opening:
        """The connected channel. Raises XpcError NOT_SENT."""
        connected = self._connected(channel)
        if connected is None:
            raise self._not_connected(Ending.NOT_SENT, Reason.NOT_CONNECTED)
        return connected

    async def opening(self, channel: int, session: int | None, terms: RequestTerms) -> Opening:
        """The connected channel of that session, or of whichever there is. While it is being
        connected, wait as the terms say. Raises XpcError."""
        while True:
            # Each turn comes after a sleep: the session may be another one, the channel closed.
            if self.state not in UP or session not in (None, self.incarnation):
                raise self._not_connected(Ending.NOT_SENT, Reason.NOT_CONNECTED)
            connected = self._connected(channel)
            if connected is not None:
                return connected
            why = await terms.obligation.sleep(self._changes, terms.give_up_ns)
            if why is Wake.KILLED:
                raise self._not_connected(Ending.KILLED_BEFORE, Reason.INTERRUPTED)
            if why is Wake.TIMEOUT:
                raise self._not_connected(Ending.NOT_SENT, Reason.NOT_CONNECTED)

    def close_channel(self, number: int) -> None:
        """Begin to close a channel that nobody is registered for any more."""
        if self.session is not None:
            self.session.channels[number].disconnect(Reason.UNREGISTERING)

    async def channel_closed(self, number: int) -> None:
        """Wait until nothing of a closing channel is left here, or its session is over."""
        session = self.session
        while session and session is self.session and not session.channels[number].quiet:
            await self._changes.wait()

    async def left_state(self, until_ns: int) -> None:
        """Sleep until the state changes or `until_ns`."""
        state = self.state
        while self.state is state and self._local.scheduler.now_ns < until_ns:
            await self._changes.wait(until_ns)

    def _connected(self, channel: int) -> Opening | None:
        return None if self.session is None else self.session.channels[channel].connected

    def _not_connected(self, ending: Ending, reason: Reason) -> XpcError:
        place = self.place or "xpc/partition:opening"
        return XpcError(ending, reason, self.partid, place, f"not connected ({self.state.name})")
