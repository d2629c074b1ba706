"""Requests received: each is applied once, and its answer is remembered until the slot moves on.

Each slot knows the last number it saw and, once there is one, the answer:

    new number          run it, forget the answer of the number before
    last one, running   PENDING
    last one, answered  the remembered answer again
    an older one        drop it, its sender had its answer long ago

The sender reuses a slot only after its answer, so one answer per slot is all the memory that
at-most-once needs. Nothing here runs anything. The sending end is in `slots`.
"""

from enum import Enum

from xpmem_emu.errors import KernelBug
from xpmem_emu.xpc import events
from xpmem_emu.xpc.messages import Pending
from xpmem_emu.xpc.wire import GENERATION_SHIFT, Packet, Wire, count_duplicate


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
        self._slots = slots
        self._generation = generation
        self._last: dict[int, int] = {}
        self._answers: dict[int, Packet] = {}

    @property
    def remembered(self) -> int:
        """How many answers are kept."""
        return len(self._answers)

    def slot_of(self, number: int) -> int:
        """The slot that `number` belongs to."""
        return number % self._slots

    def admit(self, number: int) -> Arrival:
        """Judge a request. NEW occupies its slot until `answer`; the others change nothing."""
        slot, k = number % self._slots, number // self._slots
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
        slot = number % self._slots
        if self._last.get(slot) != number or slot in self._answers:
            raise KernelBug(f"answer to request {number}, which is not running")
        self._answers[slot] = packet

    def answer_of(self, number: int) -> Packet:
        """The remembered answer of an ANSWERED request."""
        return self._answers[number % self._slots]

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
        wire.local.emit(events.BadFrame(cause=f"{kind} number {number} in a busy slot"))
    elif arrival is not Arrival.NEW:
        count_duplicate(wire, kind, channel, number)
    return arrival
