"""Requests in flight: numbered, on slots, sent again until answered, and every caller learns.

A request occupies a slot from the moment it is sent until it is answered, however long
that takes; the number of a request is `slot + k * slots` with k counting up, so a number names
both the slot and the request. Slots are split into classes that cannot take each other's: faults
that all wait for memory still leave room for the recall that would free it.

A peer is judged by what it owes, never by what a caller of ours could not wait for:

    asked    a task wants something. It may be killed and it has a patience of its own; then it
             leaves, the request is sent on until it is answered, and the peer is not judged by it
    owed     the peer must do it, or pages stay where they may not: no signal ends the wait, and
             a peer that does not answer within the patience is given up

A request is sent again each `attempt_ns`, until it is answered or the session ends:

    somebody waits, `tries` attempts were silent    the peer is given up: not even PENDING came
    somebody waits, `wait_max_ns` are over          asked: the caller leaves, TIMED_OUT
                                                    owed: the peer is given up
    nobody waits any more                           the peer is not judged by this request

The slot of an abandoned request stays taken, because the peer may still carry it out:

    caller                    ring                                peer
    | asks ------------------>| slot 3 taken, sent ------------->| works
    | killed, leaves -------->| in flight for nobody
    |                         |<------------------------- answer | done
    |                         | slot 3 free; `late_reply` undoes what was done

A ring lives for one opening of a channel; `generation` keeps the numbers of two openings apart.
It knows no channel states and no sessions; the receiving end is in `delivery`. Sources 3.8 and 3.3,
with the credits kept and the waits for ever left out.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Any

from msgspec import Struct

from xpmem_emu.codec import Buffer
from xpmem_emu.errors import KernelBug
from xpmem_emu.sched import Completion, RemoteAnswer, WaitQueue, Wake
from xpmem_emu.sched.scheduler import Timer
from xpmem_emu.xpc import events
from xpmem_emu.xpc.frame import KIND
from xpmem_emu.xpc.messages import Detach, Evict, Invalidate, Message, Pending, Release
from xpmem_emu.xpc.reasons import Ending, Reason, XpcError
from xpmem_emu.xpc.wire import GENERATION_SHIFT, Packet, Wire, count_duplicate


class Obligation(Enum):
    """Whether a request is a wish of ours or a duty of the peer."""

    ASKED = "asked"
    OWED = "owed"

    async def sleep(self, on: WaitQueue | Completion[Any], until_ns: int | None) -> Wake:
        """Wait as the caller of such a request may: only who asked can be killed."""
        if self is Obligation.ASKED:
            return await on.wait_killable(until_ns)
        return await on.wait(until_ns)


class Patience(Struct, frozen=True):
    """How long to wait for a peer: `tries` attempts of `attempt_ns` each without any sign of
    life, and `wait_max_ns` in all even if it keeps saying PENDING."""

    attempt_ns: int
    tries: int
    wait_max_ns: int


@dataclass(slots=True, frozen=True)
class RequestTerms:
    """On which a request is made: what kind it is, how patient its caller is, and until when."""

    obligation: Obligation
    patience: Patience
    give_up_ns: int


def terms_of(obligation: Obligation, patience: Patience, now_ns: int) -> RequestTerms:
    """The terms of a request that is made now."""
    return RequestTerms(obligation, patience, now_ns + patience.wait_max_ns)


class SlotClass(IntEnum):
    """DEMAND wants something, COHERENCE gives something back; the second never waits for the
    first."""

    DEMAND = 0
    COHERENCE = 1


_COHERENCE = frozenset({Invalidate, Evict, Detach, Release})


ReplyWithBulk = tuple[Message, Buffer]
RequestOutcome = ReplyWithBulk | XpcError
Notify = Callable[[RequestOutcome], None]
"""Called exactly once for each request that was sent, in atomic context."""


@dataclass(slots=True, eq=False)
class Flight:
    """A request that occupies its slot. `notify` is None once its caller has gone."""

    packet: Packet
    request: Message
    terms: RequestTerms
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
        give_up: Callable[[Reason, str], None],
    ) -> None:
        """`slots` in each of `classes`; `give_up` ends the session."""
        self._wire = wire
        self._scheduler = wire.local.scheduler
        self._channel = channel
        self.slots = total = slots * classes
        """Of all classes together."""
        first = total * (generation << GENERATION_SHIFT)
        self._end = total * (generation + 1 << GENERATION_SHIFT)
        self._next = [first + slot for slot in range(total)]
        """The number that a slot uses next, which it has never used."""
        self._free = [deque(range(slots * c, slots * (c + 1))) for c in range(classes)]
        self._waiting: list[deque[Completion[int]]] = [deque() for _ in range(classes)]
        """By class, in order of arrival. While somebody waits here none of its slots is free: who
        ends a flight hands the slot over. `check` looks."""
        self._flights: dict[int, Flight] = {}
        """By number. A slot is free, in here, or granted to who has not run yet."""
        self._late_reply = late_reply
        self._give_up = give_up
        self._ended: tuple[Reason, str] | None = None
        """Once set it stays, and whoever slept in here looks at it first."""

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
        first = min(-(-number // self.slots) * self.slots, self._end - self.slots)
        self._next = [max(old, first + slot) for slot, old in enumerate(self._next)]

    def check(self) -> None:
        """Each slot is free or in flight, and who is in flight has a timer. KernelBug if not."""
        if self._ended is not None:
            return
        for number, flight in self._flights.items():
            if flight.timer.action is None:
                raise KernelBug(f"audit: request {number} in flight has no timer")
        free = [slot for queue in self._free for slot in queue]
        taken = [number % self.slots for number in self._flights]
        if sorted(free + taken) != list(range(self.slots)):
            raise KernelBug(
                f"audit: {len(free)} slots free and {len(taken)} in flight, of {self.slots}"
            )
        for queue, free_ones in zip(self._waiting, self._free, strict=True):
            if queue and free_ones:
                raise KernelBug(f"audit: {len(queue)} wait for {len(free_ones)} free slots")

    # -- asking ----------------------------------------------------------------------------

    async def call(self, request: Message, bulk: Buffer, terms: RequestTerms) -> ReplyWithBulk:
        """Send `request` and wait for its answer. Raises XpcError.

        For what is owed the time of the peer begins when it is sent: that we have no slot is not
        its fault. The wait for one is bounded all the same, each being taken by what is owed, too.
        """
        slots = SlotClass.COHERENCE if type(request) in _COHERENCE else SlotClass.DEMAND
        slot = await self._claim(slots, terms)
        if terms.obligation is Obligation.OWED:
            terms = terms_of(terms.obligation, terms.patience, self._scheduler.now_ns)
        # `_claim` looked whether the ring lives after its sleep; nothing sleeps until it is sent.
        answer: RemoteAnswer[RequestOutcome] = RemoteAnswer(self._scheduler)
        flight = self._launch(slot, request, bulk, terms, answer.complete)
        why = await terms.obligation.sleep(answer, terms.give_up_ns)
        if why is Wake.KILLED:
            flight.notify = None  # the answer, when it comes, goes to `late_reply`
            raise self._error(Ending.INTERRUPTED, Reason.INTERRUPTED, "xpc/slots:killed")
        if why is Wake.TIMEOUT:
            self._overdue(flight)
        # Completed by now, whichever way. An answer that came just before the end of the session is
        # none: what it names (frames, permits) is good in that session only.
        outcome = answer.value
        if self._ended is not None:
            raise self._error(Ending.SESSION_ENDED, *self._ended)
        if isinstance(outcome, XpcError):
            raise outcome
        return outcome

    def post(self, request: Message, bulk: Buffer, terms: RequestTerms, notify: Notify) -> None:
        """Send `request` without waiting; `notify` gets the outcome. XpcError NO_WAIT, and no
        notification, when no slot is free."""
        slots = SlotClass.COHERENCE if type(request) in _COHERENCE else SlotClass.DEMAND
        if not self._free[slots]:
            raise self._error(Ending.NOT_SENT, Reason.NO_WAIT, "xpc/slots:post")
        self._launch(self._free[slots].popleft(), request, bulk, terms, notify)

    async def _claim(self, slots: SlotClass, terms: RequestTerms) -> int:
        if self._ended is not None:
            raise self._error(Ending.NOT_SENT, *self._ended)
        if self._free[slots]:
            return self._free[slots].popleft()
        granted: Completion[int] = Completion(self._scheduler)
        queue = self._waiting[slots]
        queue.append(granted)
        owed = terms.obligation is Obligation.OWED
        why = await terms.obligation.sleep(granted, None if owed else terms.give_up_ns)
        if self._ended is not None:
            raise self._error(Ending.NOT_SENT, *self._ended)
        # Not woken: it is in the queue still. A slot that was granted first would have woken it.
        if why is Wake.KILLED:
            queue.remove(granted)
            raise self._error(Ending.KILLED_BEFORE, Reason.INTERRUPTED, "xpc/slots:killed")
        if why is Wake.TIMEOUT:
            queue.remove(granted)
            raise self._error(Ending.NOT_SENT, Reason.TIMEOUT, "xpc/slots:no_slot")
        assert 0 <= granted.value < self.slots
        return granted.value

    def _launch(
        self, slot: int, request: Message, bulk: Buffer, terms: RequestTerms, notify: Notify
    ) -> Flight:
        number = self._next[slot]
        if number >= self._end:  # used up: the slot takes its session with it, the next begins anew
            self._give_up(Reason.LACK_OF_RESOURCES, "xpc/slots:numbers")
            raise self._error(Ending.NOT_SENT, Reason.LACK_OF_RESOURCES, "xpc/slots:numbers")
        self._next[slot] = number + self.slots
        packet = self._wire.pack(self._channel, number, request, bulk)
        attempt_end_ns = self._scheduler.now_ns + terms.patience.attempt_ns
        timer = self._scheduler.call_at(
            min(attempt_end_ns, terms.give_up_ns), lambda: self._expire(flight)
        )
        flight = Flight(packet, request, terms, notify, attempt_end_ns, timer)
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
            flight.attempt_end_ns = self._scheduler.now_ns + flight.terms.patience.attempt_ns
        elif message.code != flight.request.reply_code:
            self._wire.counters.bad_frames += 1
            cause = f"{KIND[type(message)]} as answer to {flight.packet.kind}"
            self._wire.local.tracer.emit(events.BadFrame(cause=cause))
        else:
            self._land(number, flight, (message, bulk))

    def end(self, reason: Reason, place: str) -> None:
        """Nothing is sent or answered any more; every caller gets `reason`."""
        self._ended = reason, place
        # Marked and emptied first: whoever is notified may ask again at once, and finds the end.
        flights, self._flights = self._flights, {}
        for flight in flights.values():
            self._scheduler.cancel(flight.timer)
            if flight.notify is not None:
                flight.notify(self._error(Ending.SESSION_ENDED, reason, place))
        for queue in self._waiting:
            while queue:
                queue.popleft().complete(-1)

    def _land(self, number: int, flight: Flight, answer: ReplyWithBulk) -> None:
        del self._flights[number]
        self._scheduler.cancel(flight.timer)
        self._release(number % self.slots)  # before the notice: its caller may post the next one
        if flight.notify is not None:
            flight.notify(answer)
            return
        self._wire.counters.late_replies += 1
        packet = flight.packet
        self._wire.local.tracer.emit(
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
        """An attempt is over, or the patience is."""
        now_ns = self._scheduler.now_ns
        if now_ns >= flight.terms.give_up_ns:
            self._overdue(flight)  # may give the peer up, which ends this ring
        if now_ns >= flight.attempt_end_ns and self._ended is None:
            self._send_again(flight)
        if self._ended is not None:
            return
        wake_ns = flight.attempt_end_ns
        if flight.notify is not None:
            wake_ns = min(wake_ns, flight.terms.give_up_ns)
        flight.timer = self._scheduler.call_at(wake_ns, lambda: self._expire(flight))

    def _send_again(self, flight: Flight) -> None:
        if flight.notify is not None and flight.attempts >= flight.terms.patience.tries:
            self._give_up(Reason.TIMEOUT, "xpc/slots:silent")
            return
        flight.attempts += 1
        flight.attempt_end_ns = self._scheduler.now_ns + flight.terms.patience.attempt_ns
        self._wire.resend(flight.packet)

    def _overdue(self, flight: Flight) -> None:
        """The patience is over; whoever waited, if anybody does, gets an outcome now."""
        if flight.notify is None:
            return
        if flight.terms.obligation is Obligation.OWED:
            self._give_up(Reason.TIMEOUT, "xpc/slots:overdue")
            return
        notify, flight.notify = flight.notify, None
        notify(self._error(Ending.TIMED_OUT, Reason.TIMEOUT, "xpc/slots:wait_max"))

    def _error(self, ending: Ending, reason: Reason, place: str) -> XpcError:
        return XpcError(ending, reason, self._wire.peer, place, "request not answered")
