"""One channel to one peer: how it opens and closes, and the threads that carry its requests.

Opening takes OPENREQUEST, OPENREPLY and OPENCOMPLETE from both sides, closing CLOSEREQUEST and
CLOSEREPLY (sources 3.6):

    us                                     peer
    registered: OPENREQUEST       ->       ASKED
    OFFERED                       <-       OPENREQUEST, OPENREPLY    (it is registered too)
    REPLIED: OPENREPLY            ->       COMPLETED, OPENCOMPLETE
    COMPLETED, connected(), OPENCOMPLETE
    CONNECTED: requests may be sent

The ADMIN channel is in order, so each state says all that the historical flag word said. A side
sends requests once it is CONNECTED and accepts them from COMPLETED on, because the other side
may be one message ahead. A closing channel waits for its threads before it says CLOSEREPLY. When
the whole partition goes down nothing is said at all. Then every caller gets the reason, answers
are forgotten, and what still runs is left to finish: its reply is dropped.
"""

from collections.abc import Callable
from enum import Enum

from xpmem_emu.codec import Buffer
from xpmem_emu.errors import KernelBug
from xpmem_emu.tables import StateMachine
from xpmem_emu.xpc import events
from xpmem_emu.xpc.admin import Admin
from xpmem_emu.xpc.delivery import Host, Opening
from xpmem_emu.xpc.frame import Header
from xpmem_emu.xpc.messages import (
    CloseReply,
    CloseRequest,
    Message,
    OpenComplete,
    OpenReply,
    OpenRequest,
)
from xpmem_emu.xpc.reasons import Reason, reason_of
from xpmem_emu.xpc.wire import OPENINGS_MAX, Wire


class ChannelState(Enum):
    """Where a channel is between its offer and its last reply."""

    DISCONNECTED = "disconnected"
    OFFERED = "offered"
    ASKED = "asked"
    REPLIED = "replied"
    COMPLETED = "completed"
    CONNECTED = "connected"
    CLOSING = "closing"
    BOTH_CLOSING = "both_closing"
    PEER_CLOSED = "peer_closed"
    CLOSE_REPLIED = "close_replied"
    DRAINING = "draining"


class ChannelEvent(Enum):
    """What can happen to a channel; PEER_ events are messages from the other side."""

    OFFER = "offer"
    DISCONNECT = "disconnect"
    DEACTIVATE = "deactivate"
    DRAINED = "drained"
    PEER_OPENREQUEST = "peer_openrequest"
    PEER_OPENREPLY = "peer_openreply"
    PEER_OPENCOMPLETE = "peer_opencomplete"
    PEER_CLOSEREQUEST = "peer_closerequest"
    PEER_CLOSEREPLY = "peer_closereply"


_S, _E = ChannelState, ChannelEvent
_OPEN = (_S.OFFERED, _S.ASKED, _S.REPLIED, _S.COMPLETED, _S.CONNECTED)
_CLOSE = (_S.CLOSING, _S.BOTH_CLOSING, _S.PEER_CLOSED, _S.CLOSE_REPLIED)

CHANNEL: StateMachine[ChannelState, ChannelEvent] = StateMachine(
    "channel",
    _S.DISCONNECTED,
    {
        (_S.DISCONNECTED, _E.OFFER): _S.OFFERED,
        (_S.DISCONNECTED, _E.PEER_OPENREQUEST): _S.ASKED,
        (_S.OFFERED, _E.PEER_OPENREQUEST): _S.REPLIED,
        (_S.ASKED, _E.OFFER): _S.REPLIED,
        (_S.REPLIED, _E.PEER_OPENREPLY): _S.COMPLETED,
        (_S.COMPLETED, _E.PEER_OPENCOMPLETE): _S.CONNECTED,
        **{(state, _E.DISCONNECT): _S.CLOSING for state in _OPEN if state is not _S.ASKED},
        **{(state, _E.PEER_CLOSEREQUEST): _S.BOTH_CLOSING for state in (*_OPEN, _S.CLOSING)},
        (_S.CLOSING, _E.PEER_OPENREQUEST): _S.CLOSING,
        (_S.CLOSING, _E.PEER_OPENREPLY): _S.CLOSING,
        (_S.CLOSING, _E.PEER_OPENCOMPLETE): _S.CLOSING,
        (_S.BOTH_CLOSING, _E.DRAINED): _S.CLOSE_REPLIED,
        (_S.BOTH_CLOSING, _E.PEER_CLOSEREPLY): _S.PEER_CLOSED,
        (_S.PEER_CLOSED, _E.DRAINED): _S.DISCONNECTED,
        (_S.CLOSE_REPLIED, _E.PEER_CLOSEREPLY): _S.DISCONNECTED,
        **{(state, _E.DEACTIVATE): _S.DRAINING for state in (*_OPEN, *_CLOSE)},
        (_S.DRAINING, _E.DRAINED): _S.DISCONNECTED,
    },
)

ChannelControl = OpenRequest | OpenReply | OpenComplete | CloseRequest | CloseReply
_EVENT_OF: dict[type[ChannelControl], ChannelEvent] = {
    OpenRequest: _E.PEER_OPENREQUEST,
    OpenReply: _E.PEER_OPENREPLY,
    OpenComplete: _E.PEER_OPENCOMPLETE,
    CloseRequest: _E.PEER_CLOSEREQUEST,
    CloseReply: _E.PEER_CLOSEREPLY,
}


class Channel:
    """One channel to one peer in one session."""

    def __init__(self, number: int, wire: Wire, host: Host, admin: Admin) -> None:
        self.number = number
        self.state = CHANNEL.initial
        self.reason = Reason.SUCCESS
        self.opening: Opening | None = None
        """From REPLIED on, and after the close for as long as a thread of it runs."""
        self._host = host
        self._wire = wire
        self._local = wire.local
        self._admin = admin
        self._peer_request: OpenRequest | None = None
        """Of the opening that is being agreed on, or is."""
        self._openings = 0
        """So far in this session: no two have a number in common."""
        self._refused = False
        """The payload limits differ, which they will as long as the session lasts."""

    @property
    def connected(self) -> Opening | None:
        """The opening that requests may be sent on."""
        return self.opening if self.state is _S.CONNECTED else None

    @property
    def quiet(self) -> bool:
        """Whether no thread runs here and none will: closed, or only the peer's word missing."""
        return self.opening is None and self.state is not _S.OFFERED

    # -- opening and closing ---------------------------------------------------------------

    def offer(self) -> None:
        """Offer the channel to the peer if somebody here has registered for it."""
        if self._refused or self.number not in self._local.handlers:
            return
        if CHANNEL.accepts(self.state, _E.OFFER):
            self._apply(_E.OFFER)

    def control(self, message: ChannelControl) -> None:
        """A channel-control message of the peer. One that does not fit ends the session."""
        event = _EVENT_OF[type(message)]
        if not CHANNEL.accepts(self.state, event) or not self._sensible(message):
            self._host.deactivate(Reason.OPEN_CLOSE_ERROR, f"xpc/channel:{event.value}")
            return
        if isinstance(message, OpenRequest):
            self._peer_request = message
        if isinstance(message, CloseRequest) and self.state is not _S.CLOSING:
            self.reason = _reason_of_peer(message.reason)
        self._apply(event)

    def disconnect(self, reason: Reason) -> None:
        """Close the channel if it is open or about to be."""
        if CHANNEL.accepts(self.state, _E.DISCONNECT):
            self.reason = reason
            self._apply(_E.DISCONNECT)

    def deactivate(self, reason: Reason, place: str) -> None:
        """The session is over: no message is sent about it."""
        if CHANNEL.accepts(self.state, _E.DEACTIVATE):
            self.reason = reason
            self._end_opening(place)
            self._apply(_E.DEACTIVATE)

    def _apply(self, event: ChannelEvent) -> None:
        before, self.state = self.state, CHANNEL.next(self.state, event)
        if self.state is before:
            return
        self._local.tracer.emit(
            events.ChannelChange(peer=self._wire.peer, channel=self.number, state=self.state.value)
        )
        if self.state in _ENTER:
            _ENTER[self.state](self, before)
        self._host.changed()

    def _enter_offered(self, before: ChannelState) -> None:
        self._send_request()

    def _enter_replied(self, before: ChannelState) -> None:
        asked = self._peer_request
        if asked is None:
            raise KernelBug("channel agreed on without the peer's request")
        if before is _S.ASKED:
            self._send_request()
        xpc = self._local.image.xpc
        if asked.entry_size != xpc.payload:
            self._refused = True
            self.disconnect(Reason.UNEQUAL_MSG_SIZES)
            return
        if self._openings == OPENINGS_MAX:  # its numbers would be more than 63 bits
            self._host.deactivate(Reason.LACK_OF_RESOURCES, "xpc/channel:openings")
            return
        slots = min(xpc.slots, asked.local_nentries)
        self.opening = Opening(
            self.number, slots, self._openings, self._wire, self._host, self._drain
        )
        self._openings += 1
        self._admin.send(OpenReply(self.number, slots, slots))

    def _enter_completed(self, before: ChannelState) -> None:
        self._admin.send(OpenComplete(self.number))
        if self.opening is not None:
            self.opening.connect()

    def _enter_closing(self, before: ChannelState) -> None:
        self._end_opening("xpc/channel:disconnect")
        self._admin.send(CloseRequest(self.number, self.reason))

    def _enter_both_closing(self, before: ChannelState) -> None:
        if before is not _S.CLOSING:
            self._end_opening("xpc/channel:closed_by_peer")
            self._admin.send(CloseRequest(self.number, self.reason))
        self._drain()

    def _enter_close_replied(self, before: ChannelState) -> None:
        self._admin.send(CloseReply(self.number))

    def _enter_disconnected(self, before: ChannelState) -> None:
        if before is _S.PEER_CLOSED:
            self._admin.send(CloseReply(self.number))
        self._peer_request = None
        if before is not _S.DRAINING:
            self.offer()

    def _enter_draining(self, before: ChannelState) -> None:
        self._drain()

    def _drain(self) -> None:
        """Go on if no thread of the channel runs any more."""
        if self.opening is None or not self.opening.threads:
            self.retire()

    def retire(self) -> None:
        """Nothing is left of a closing channel, or nobody waits for what is left of it."""
        opening, self.opening = self.opening, None
        if opening is not None:
            opening.retire(self.reason)
        if CHANNEL.accepts(self.state, _E.DRAINED):
            self._apply(_E.DRAINED)

    def _send_request(self) -> None:
        xpc = self._local.image.xpc
        self._admin.send(OpenRequest(self.number, xpc.payload, xpc.slots))

    def _sensible(self, message: ChannelControl) -> bool:
        """An OPENREPLY must confirm the sizes that both sides can work out."""
        if not isinstance(message, OpenReply) or self._peer_request is None:
            return True
        slots = min(self._local.image.xpc.slots, self._peer_request.local_nentries)
        return message.local_nentries == message.remote_nentries == slots

    def _end_opening(self, place: str) -> None:
        if self.opening is not None:
            self.opening.end(self.reason, place)

    # -- messages --------------------------------------------------------------------------

    def receive(self, header: Header, message: Message, bulk: Buffer) -> None:
        """A numbered message of this channel. Dropped silently while it is not connected."""
        if self.opening is not None and self.state in (_S.COMPLETED, _S.CONNECTED):
            self.opening.receive(header, message, bulk)


_ENTER: dict[ChannelState, Callable[[Channel, ChannelState], None]] = {
    _S.DISCONNECTED: Channel._enter_disconnected,
    _S.OFFERED: Channel._enter_offered,
    _S.REPLIED: Channel._enter_replied,
    _S.COMPLETED: Channel._enter_completed,
    _S.CLOSING: Channel._enter_closing,
    _S.BOTH_CLOSING: Channel._enter_both_closing,
    _S.CLOSE_REPLIED: Channel._enter_close_replied,
    _S.DRAINING: Channel._enter_draining,
}


def _reason_of_peer(code: int) -> Reason:
    """UNREGISTERING there is OTHER_UNREGISTERING here."""
    reason = reason_of(code)
    return Reason.OTHER_UNREGISTERING if reason is Reason.UNREGISTERING else reason
