"""The ADMIN channel: channel-control messages, reliable and in order, one at a time.

A slot ring of size one in each direction with a bounded backlog in front: the next message is
sent when the one before it was acknowledged. Receivers act on a message in interrupt context and
acknowledge it, so whatever `channel` sends arrives once and in the order in which it was sent;
that is what lets the channel table do without the delayed and re-queued flags of sources 3.6.
"""

from collections import deque
from collections.abc import Callable

from xpmem_emu.xpc.delivery import Arrival, ReceiveRing, receive_request
from xpmem_emu.xpc.frame import KIND, REPLY_CODES, ChannelNumber, Header
from xpmem_emu.xpc.messages import Ack, Message
from xpmem_emu.xpc.reasons import Reason, XpcError
from xpmem_emu.xpc.slots import Obligation, Patience, RequestOutcome, SendRing, terms_of
from xpmem_emu.xpc.wire import Wire

BACKLOG_MAX = 64
"""A channel has at most five control messages outstanding in an opening and a close."""


class Admin:
    """Both directions of ADMIN within one session."""

    def __init__(
        self,
        wire: Wire,
        deliver: Callable[[Message], None],
        deactivate: Callable[[Reason, str], None],
    ) -> None:
        self._wire = wire
        self._deliver = deliver
        self._deactivate = deactivate
        xpc = wire.local.image.xpc
        self._patience = Patience(
            xpc.control_attempt, xpc.control_tries, xpc.control_attempt * (xpc.control_tries + 1)
        )
        self._sender = SendRing(
            wire,
            ChannelNumber.ADMIN,
            slots=1,
            classes=1,
            generation=0,
            late_reply=lambda request, reply: None,
            give_up=deactivate,
        )
        self._receiver = ReceiveRing(slots=1, generation=0)
        self._backlog: deque[Message] = deque()
        """What waits for the one in flight; empty unless one is."""
        self._ended = False

    @property
    def in_use(self) -> int:
        """Messages that are not acknowledged yet."""
        return self._sender.in_use + len(self._backlog)

    @property
    def remembered(self) -> int:
        """Acknowledgements kept for repetition."""
        return self._receiver.remembered

    def send(self, message: Message) -> None:
        """Queue `message`; too many of them is a peer that does not keep up."""
        if self._ended:
            return
        if len(self._backlog) >= BACKLOG_MAX:
            self._deactivate(Reason.LACK_OF_RESOURCES, "xpc/admin:backlog")
            return
        self._backlog.append(message)
        if not self._sender.in_use:
            self._send_next()

    def receive(self, header: Header, message: Message) -> None:
        """A message of this session's ADMIN channel."""
        if message.code in REPLY_CODES:
            self._sender.answered(header.number, message, b"")
            return
        kind = KIND[type(message)]
        arrival = receive_request(
            self._receiver, self._wire, kind, ChannelNumber.ADMIN, header.number
        )
        if arrival is Arrival.NEW:
            ack = self._wire.pack(ChannelNumber.ADMIN, header.number, Ack())
            # Before it is acted on: that may end the session or be answered by the next message,
            # and the peer, waiting for this one to be acknowledged, would send it again.
            self._receiver.answer(header.number, ack)
            self._wire.send(ack)
            self._deliver(message)

    def end(self, reason: Reason, place: str) -> None:
        """The session is over: nothing more is sent, nothing is remembered."""
        self._ended = True
        self._backlog.clear()
        self._sender.end(reason, place)
        self._receiver.forget()

    def _send_next(self) -> None:
        if self._backlog:
            owed = terms_of(Obligation.OWED, self._patience, self._wire.local.scheduler.now_ns)
            self._sender.post(self._backlog.popleft(), b"", owed, self._acknowledged)

    def _acknowledged(self, outcome: RequestOutcome) -> None:
        if not isinstance(outcome, XpcError):  # else the session is over
            self._send_next()
