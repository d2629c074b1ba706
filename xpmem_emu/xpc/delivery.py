"""Requests received: each is carried out once, in a kernel thread of its own, and answered.

Each slot knows the last number it saw and, once there is one, the answer:

    new number          run it, forget the answer of the number before
    last one, running   PENDING
    last one, answered  the remembered answer again
    an older one        drop it, its sender had its answer long ago

The sender reuses a slot only after its answer (`slots`), so one answer per slot is all the memory
that at-most-once needs.

The thread (`xpc03c0-17`: peer, channel, slot) is one of as many as there are slots, each class with
its own, so no request ever lacks a thread because of others; that threads which outlived their
session are not added to without end is `partition`'s business. A thread is never cancelled: when
the opening ends under it, what it has not done yet it does not do (`wire`'s Requester), and its
reply is dropped. Sources 3.9, without the idle pool: to make a thread costs nothing here.
"""

from collections.abc import Callable
from enum import Enum
from typing import Protocol

from xpmem_emu.codec import Buffer
from xpmem_emu.errors import KernelBug
from xpmem_emu.failpoints.points import XPC_REPLY, XPC_SERVE, XPC_THREAD
from xpmem_emu.xpc import events
from xpmem_emu.xpc.frame import KIND, REPLY_CODES, Header
from xpmem_emu.xpc.messages import Message, Pending
from xpmem_emu.xpc.reasons import Reason, XpcError
from xpmem_emu.xpc.slots import SendRing, SlotClass
from xpmem_emu.xpc.wire import GENERATION_SHIFT, Packet, Requester, Wire, count_duplicate


class Arrival(Enum):
    """What a received number is to its slot."""

    NEW = "new"
    RUNNING = "running"
    ANSWERED = "answered"
    OLD = "old"
    IMPOSSIBLE = "impossible"


class ReceiveRing:
    """The requests of one channel that came from one peer, with the answers they got."""

    def __init__(self, slots: int, generation: int) -> None:
        """`slots` in all classes together."""
        self.slots = slots
        self._generation = generation
        self._last: dict[int, int] = {}
        """Slot -> the newest number that was admitted: it only grows."""
        self._answers: dict[int, Packet] = {}
        """Slot -> the answer to that number; none while it is being worked on."""

    @property
    def remembered(self) -> int:
        """How many answers are kept."""
        return len(self._answers)

    def admit(self, number: int) -> Arrival:
        """Judge a request. NEW occupies its slot until `answer`; the others change nothing."""
        slot, k = number % self.slots, number // self.slots
        last = self._last.get(slot, -1)
        if number < last or k >> GENERATION_SHIFT < self._generation:
            return Arrival.OLD
        if number == last:
            return Arrival.ANSWERED if slot in self._answers else Arrival.RUNNING
        busy = last >= 0 and slot not in self._answers
        if busy or k >> GENERATION_SHIFT > self._generation:
            return Arrival.IMPOSSIBLE
        self._last[slot] = number
        self._answers.pop(slot, None)
        return Arrival.NEW

    def answer(self, number: int, packet: Packet) -> None:
        """Remember the answer of a running request."""
        slot = number % self.slots
        if self._last.get(slot) != number or slot in self._answers:
            raise KernelBug(f"answer to request {number}, which is not running")
        self._answers[slot] = packet

    def answer_of(self, number: int) -> Packet:
        """The remembered answer of an ANSWERED request."""
        return self._answers[number % self.slots]

    def forget(self) -> None:
        """Drop all answers; the opening is over."""
        self._answers.clear()


def receive_request(ring: ReceiveRing, wire: Wire, kind: str, channel: int, number: int) -> Arrival:
    """Judge a request and answer it right away unless it is NEW."""
    arrival = ring.admit(number)
    if arrival is Arrival.RUNNING:
        wire.send(wire.pack(channel, number, Pending()))
    elif arrival is Arrival.ANSWERED:
        wire.resend(ring.answer_of(number))
    if arrival is Arrival.IMPOSSIBLE:
        wire.counters.bad_frames += 1
        wire.local.tracer.emit(events.BadFrame(cause=f"{kind} number {number} in a busy slot"))
    elif arrival is not Arrival.NEW:
        count_duplicate(wire, kind, channel, number)
    return arrival


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
        """Those that serve a request of this opening; the channel drains when the last one ends."""
        self._requester = Requester(wire.peer, wire.remote)
        self._handler = handler
        self._channel = channel
        self._wire = wire
        self._failpoints = wire.local.failpoints
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
            self._requester.current = False  # first: who wakes by what follows finds it over
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
        elif self._failpoints.armed and self._failpoints.failing(XPC_THREAD):
            self._refuse(kind, number)
        else:
            arrival = receive_request(self.receiver, self._wire, kind, self._channel, number)
            if arrival is Arrival.NEW:
                self._start_thread(number, message, bulk)

    def _refuse(self, kind: str, number: int) -> None:
        wire = self._wire
        wire.counters.refused += 1
        wire.local.tracer.emit(
            events.Refused(peer=wire.peer, kind=kind, channel=self._channel, number=number)
        )

    def _start_thread(self, number: int, request: Message, bulk: Buffer) -> None:
        self.threads += 1
        self._host.threads += 1
        slot = number % self.receiver.slots
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
        if self._failpoints.armed:
            await self._failpoints.reach(XPC_SERVE)
        self._requester.require_current()
        # Sleeps as long as it must; the session may be over when it returns, and a new one begun.
        result = await self._handler.received(self._requester, request, bulk)
        if self._failpoints.armed:
            await self._failpoints.reach(XPC_REPLY)
        self._requester.require_current()
        reply, data = result if isinstance(result, tuple) else (result, b"")
        if reply.code != request.reply_code or len(data) > self._wire.local.image.xpc.payload:
            raise KernelBug(f"{KIND[type(reply)]} with {len(data)} bytes for {request}")
        packet = self._wire.pack(self._channel, number, reply, data)
        self.receiver.answer(number, packet)
        self._wire.send(packet)
