"""One opening of a channel: its two rings, its user, and the kernel threads that serve requests.

A request that is new gets a thread of its own (`xpc03c0-17`: peer, channel, slot). The slots bound
how many there are, for each class its own, so no request ever lacks a thread because of others;
that threads which outlived their session are not added to without end is `partition`'s business.
A thread is never cancelled: when the opening ends under it, what it has not done yet it does not
do (`requester`), and its reply is dropped. Sources 3.9, without the idle pool, which saved a thread
creation that costs nothing here.
"""

from collections.abc import Callable
from typing import Protocol

from xpmem_emu.codec import Buffer
from xpmem_emu.errors import KernelBug
from xpmem_emu.failpoints.points import XPC_REPLY, XPC_SERVE, XPC_THREAD
from xpmem_emu.xpc import events
from xpmem_emu.xpc.answers import Arrival, ReceiveRing, receive_request
from xpmem_emu.xpc.frame import KIND, REPLY_CODES, Header
from xpmem_emu.xpc.messages import Message
from xpmem_emu.xpc.reasons import Reason, XpcError
from xpmem_emu.xpc.requester import Requester
from xpmem_emu.xpc.slots import SendRing, SlotClass
from xpmem_emu.xpc.wire import Wire


class Host(Protocol):
    """What a channel needs of the partition it leads to."""

    threads: int
    """Threads that serve this peer, whatever their session."""

    def changed(self) -> None:
        """Somebody may be waiting for what just happened to a channel."""

    def deactivate(self, reason: Reason, place: str) -> None:
        """Give the peer up."""


class Opening:
    """One life of a channel, from the agreement on its size to the end of its last thread."""

    def __init__(
        self,
        channel: int,
        slots: int,
        generation: int,
        wire: Wire,
        host: Host,
        drained: Callable[[], None],
    ) -> None:
        """`slots` per class; `drained` is called when the last thread of an ended opening ends."""
        handler = wire.local.handlers[channel]
        self.sender = SendRing(
            wire,
            channel,
            slots=slots,
            classes=len(SlotClass),
            generation=generation,
            late_reply=lambda request, reply: handler.late_reply(wire.peer, request, reply),
            give_up=host.deactivate,
        )
        self.receiver = ReceiveRing(slots * len(SlotClass), generation)
        self.threads = 0
        self._requester = Requester(wire.peer, wire.remote)
        self._handler = handler
        self._channel = channel
        self._wire = wire
        self._host = host
        self._drained = drained
        self._connected = False

    def connect(self) -> None:
        """Tell the user that the channel is open."""
        self._connected = True
        self._handler.connected(self._wire.peer)

    def end(self, reason: Reason, place: str) -> None:
        """Fail every caller with `reason`, forget all answers; threads run on."""
        if self._requester.current:
            self._requester.end()  # first: threads that wake by what follows find it over
            self.sender.end(reason, place)
            self.receiver.forget()

    def retire(self, reason: Reason) -> None:
        """Tell the user that the channel is gone, if it was ever told that it was there."""
        if self._connected:
            self._connected = False
            self._handler.disconnected(self._wire.peer, reason)

    def receive(self, header: Header, message: Message, bulk: Buffer) -> None:
        """A numbered message: an answer, or a request that may need a thread."""
        number, kind = header.number, KIND[type(message)]
        if message.code in REPLY_CODES:
            self.sender.answered(number, message, bulk)
        elif self._thread_fails():
            self._refuse(kind, number)
        else:
            arrival = receive_request(self.receiver, self._wire, kind, self._channel, number)
            if arrival is Arrival.NEW:
                self._start_thread(number, message, bulk)

    def _refuse(self, kind: str, number: int) -> None:
        wire = self._wire
        wire.counters.refused += 1
        wire.local.emit(
            events.Refused(peer=wire.peer, kind=kind, channel=self._channel, number=number)
        )

    def _thread_fails(self) -> bool:
        failpoints = self._wire.local.failpoints
        return failpoints.armed and failpoints.failing(XPC_THREAD) != 0

    def _start_thread(self, number: int, request: Message, bulk: Buffer) -> None:
        self.threads += 1
        self._host.threads += 1
        slot = self.receiver.slot_of(number)
        self._wire.local.scheduler.spawn(
            f"xpc{self._wire.peer:02}c{self._channel}-{slot}", self._serve(number, request, bulk)
        )

    async def _serve(self, number: int, request: Message, bulk: Buffer) -> None:
        """A kernel thread: let the user work, then answer, as long as anybody wants it."""
        try:
            await self._work(number, request, bulk)
        except XpcError:
            # The end of its own session, after which nobody is answered. Any other is a mistake of
            # the handler, whose refusals are replies.
            if self._requester.current:
                raise
        self.threads -= 1
        self._host.threads -= 1
        if not self._requester.current and not self.threads:
            self._drained()

    async def _work(self, number: int, request: Message, bulk: Buffer) -> None:
        failpoints = self._wire.local.failpoints
        if failpoints.armed:
            await failpoints.reach(XPC_SERVE)
        self._requester.require_current()
        # Sleeps as long as it must; the session may be over when it returns, and a new one begun.
        result = await self._handler.received(self._requester, request, bulk)
        if failpoints.armed:
            await failpoints.reach(XPC_REPLY)
        self._requester.require_current()
        reply, data = result if isinstance(result, tuple) else (result, b"")
        if reply.code != request.reply_code or len(data) > self._wire.local.image.xpc.payload:
            raise KernelBug(f"{KIND[type(reply)]} with {len(data)} bytes for {request}")
        packet = self._wire.pack(self._channel, number, reply, data)
        self.receiver.answer(number, packet)
        self._wire.send(packet)
