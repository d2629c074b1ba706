"""Requests in flight: numbered, on slots, sent again until answered, and every caller learns.

A request occupies a slot from the moment it is sent until it is answered, however long
that takes; the number of a request is `slot + k * slots` with k counting up, so a number names
both the slot and the request. Slots are split into classes that cannot take each other's: faults
that all wait for memory still leave room for the recall that would free it. A request is sent
again each `attempt_ns`; after `tries` silent attempts the peer is given up. A peer that answers
PENDING is alive and gets as long as `wait_max_ns`; then the caller leaves, and so may a killed
one. The slot of an abandoned request stays taken, because the peer may still carry it out.

A ring lives for one opening of a channel; `generation` keeps the numbers of two openings apart.
It knows no channel states and no sessions; the receiving end is in `answers`. Source: facts 3.8,
with the credits kept and the waits for ever left out.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from msgspec import Struct

from xpmem_emu.sched import Completion, RemoteAnswer, Wake
from xpmem_emu.sched.scheduler import Timer
from xpmem_emu.xpc import events
from xpmem_emu.xpc.frame import KIND, Buffer
from xpmem_emu.xpc.messages import Detach, Evict, Invalidate, Message, Pending, Release
from xpmem_emu.xpc.reasons import Reason, XpcError
from xpmem_emu.xpc.wire import GENERATION_SHIFT, Packet, Wire, count_duplicate


class SlotClass(IntEnum):
    """DEMAND wants something, COHERENCE gives something back; the second never waits for the
    first."""

    DEMAND = 0
    COHERENCE = 1


_COHERENCE = frozenset({Invalidate, Evict, Detach, Release})


def slot_class(kind: type[Message]) -> SlotClass:
    """Which slots a request of this type may use."""
    return SlotClass.COHERENCE if kind in _COHERENCE else SlotClass.DEMAND


class Patience(Struct, frozen=True):
    """How long to wait for a peer: `tries` attempts of `attempt_ns` each without any sign of
    life, and `wait_max_ns` in all even if it keeps saying PENDING."""

    attempt_ns: int
    tries: int
    wait_max_ns: int


Answer = tuple[Message, Buffer]
Outcome = Answer | XpcError
Notify = Callable[[Outcome], None]
"""Called exactly once for each request that was sent, in atomic context."""


@dataclass(slots=True, eq=False)
class Flight:
    """A request that occupies its slot. `notify` is None once its caller has gone."""

    packet: Packet
    request: Message
    patience: Patience
    give_up_ns: int
    notify: Notify | None
    attempt_end_ns: int
    timer: Timer
    attempts: int = 1


class SendRing:
    """The requests of one channel that are in flight to one peer."""

    def __init__(
        self,
        wire: Wire,
        channel: int,
        slots: int,
        classes: int,
        generation: int,
        late_reply: Callable[[Message, Message], None],
        silent: Callable[[], None],
    ) -> None:
        """`slots` in each of `classes`; `silent` is called when the peer answers nothing."""
        self._wire = wire
        self._scheduler = wire.local.scheduler
        self._channel = channel
        self.slots = total = slots * classes
        """Of all classes together."""
        first = total * (generation << GENERATION_SHIFT)
        self._next = [first + slot for slot in range(total)]
        self._free = [deque(range(slots * c, slots * (c + 1))) for c in range(classes)]
        self._waiting: list[deque[Completion[int]]] = [deque() for _ in range(classes)]
        self._flights: dict[int, Flight] = {}
        self._late_reply = late_reply
        self._silent = silent
        self._ended: tuple[Reason, str] | None = None

    @property
    def in_use(self) -> int:
        """Slots that are taken by unanswered requests."""
        return len(self._flights)

    @property
    def waiting(self) -> int:
        """Threads that wait for a slot."""
        return sum(len(queue) for queue in self._waiting)

    def number_from(self, number: int) -> None:
        """Let later requests have at least this number, as far as one opening has numbers."""
        end = (self._next[0] // self.slots >> GENERATION_SHIFT) + 1 << GENERATION_SHIFT
        k = min(-(-number // self.slots), end - 1)
        self._next = [max(old, slot + k * self.slots) for slot, old in enumerate(self._next)]

    # -- asking ----------------------------------------------------------------------------

    async def call(
        self, request: Message, bulk: Buffer, patience: Patience, give_up_ns: int
    ) -> Answer:
        """Send `request` and wait for its answer. Raises XpcError."""
        slot = await self._claim(slot_class(type(request)), give_up_ns)
        answer: RemoteAnswer[Outcome] = RemoteAnswer(self._scheduler)
        flight = self._launch(slot, request, bulk, patience, give_up_ns, answer.complete)
        why = await answer.wait_killable(give_up_ns)
        if why is not Wake.WOKEN:
            flight.notify = None
            raise self._error(*_WHY_LEFT[why])
        outcome = answer.value
        if self._ended is not None:
            raise self._error(*self._ended)
        if isinstance(outcome, XpcError):
            raise outcome
        return outcome

    def post(self, request: Message, bulk: Buffer, patience: Patience, notify: Notify) -> None:
        """Send `request` without waiting; `notify` gets the outcome. XpcError NO_WAIT, and no
        notification, when no slot is free."""
        kind = slot_class(type(request)) if len(self._free) > 1 else SlotClass.DEMAND
        if not self._free[kind]:
            raise self._error(Reason.NO_WAIT, "xpc/slots:post")
        give_up_ns = self._scheduler.now_ns + patience.wait_max_ns
        self._launch(self._free[kind].popleft(), request, bulk, patience, give_up_ns, notify)

    async def _claim(self, kind: SlotClass, give_up_ns: int) -> int:
        if self._ended is not None:
            raise self._error(*self._ended)
        if self._free[kind]:
            return self._free[kind].popleft()
        granted: Completion[int] = Completion(self._scheduler)
        queue = self._waiting[kind]
        queue.append(granted)
        why = await granted.wait_killable(give_up_ns)
        if self._ended is not None:
            raise self._error(*self._ended)
        if why is not Wake.WOKEN:
            queue.remove(granted)
            raise self._error(*_WHY_LEFT[why])
        return granted.value

    def _launch(
        self,
        slot: int,
        request: Message,
        bulk: Buffer,
        patience: Patience,
        give_up_ns: int,
        notify: Notify,
    ) -> Flight:
        number = self._next[slot]
        self._next[slot] = number + self.slots
        packet = self._wire.pack(self._channel, number, request, bulk)
        attempt_end_ns = self._scheduler.now_ns + patience.attempt_ns
        timer = self._scheduler.call_at(
            min(attempt_end_ns, give_up_ns), lambda: self._expire(flight)
        )
        flight = Flight(packet, request, patience, give_up_ns, notify, attempt_end_ns, timer)
        self._flights[number] = flight
        self._wire.send(packet)
        return flight

    # -- answers ---------------------------------------------------------------------------

    def answered(self, number: int, message: Message, bulk: Buffer) -> None:
        """An answer for `number` arrived. Not for anything in flight: counted, dropped."""
        flight = self._flights.get(number)
        if flight is None:
            count_duplicate(self._wire, KIND[type(message)], self._channel, number)
        elif isinstance(message, Pending):
            self._wire.counters.pendings += 1
            flight.attempts = 0
            flight.attempt_end_ns = self._scheduler.now_ns + flight.patience.attempt_ns
        elif message.code != flight.request.reply_code:
            self._wire.counters.bad_frames += 1
            cause = f"{KIND[type(message)]} as answer to {flight.packet.kind}"
            self._wire.local.emit(events.BadFrame(cause=cause))
        else:
            self._land(number, flight, (message, bulk))

    def end(self, reason: Reason, place: str) -> None:
        """Nothing is sent or answered any more; every caller gets `reason`."""
        self._ended = reason, place
        flights, self._flights = self._flights, {}
        for flight in flights.values():
            self._scheduler.cancel(flight.timer)
            if flight.notify is not None:
                flight.notify(self._error(reason, place))
        for queue in self._waiting:
            while queue:
                queue.popleft().complete(-1)

    def _land(self, number: int, flight: Flight, answer: Answer) -> None:
        del self._flights[number]
        self._scheduler.cancel(flight.timer)
        self._release(number % self.slots)
        if flight.notify is not None:
            flight.notify(answer)
            return
        self._wire.counters.late_replies += 1
        packet = flight.packet
        self._wire.local.emit(
            events.LateReply(
                peer=self._wire.peer, kind=packet.kind, channel=packet.channel, number=number
            )
        )
        self._late_reply(flight.request, answer[0])

    def _release(self, slot: int) -> None:
        kind = slot * len(self._free) // self.slots
        if self._waiting[kind]:
            self._waiting[kind].popleft().complete(slot)
        else:
            self._free[kind].append(slot)

    # -- silence ---------------------------------------------------------------------------

    def _expire(self, flight: Flight) -> None:
        """An attempt is over, or the caller's patience is."""
        now_ns = self._scheduler.now_ns
        if now_ns >= flight.give_up_ns and flight.notify is not None:
            notify, flight.notify = flight.notify, None
            notify(self._error(*_WHY_LEFT[Wake.TIMEOUT]))
            if self._ended is not None:
                return
        if now_ns >= flight.attempt_end_ns:
            if flight.attempts >= flight.patience.tries:
                self._silent()
                return
            flight.attempts += 1
            flight.attempt_end_ns = now_ns + flight.patience.attempt_ns
            self._wire.resend(flight.packet)
        wake_ns = flight.attempt_end_ns
        if flight.notify is not None:
            wake_ns = min(wake_ns, flight.give_up_ns)
        flight.timer = self._scheduler.call_at(wake_ns, lambda: self._expire(flight))

    def _error(self, reason: Reason, place: str) -> XpcError:
        return XpcError(reason, self._wire.peer, place, "request not answered")


_WHY_LEFT = {
    Wake.TIMEOUT: (Reason.TIMEOUT, "xpc/slots:wait_max"),
    Wake.KILLED: (Reason.INTERRUPTED, "xpc/slots:killed"),
}
