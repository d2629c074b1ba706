"""Sessions, numbers and deadlines of messages."""

from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

from msgspec.structs import astuple

from xpmem_emu import codec
from xpmem_emu.kernel import tasks
from xpmem_emu.sched import Wake
from xpmem_emu.sim.mutations.patches import together
from xpmem_emu.units import PAGE_MASK, PAGE_SIZE
from xpmem_emu.xpc import control, frame, slots, wire, xpc
from xpmem_emu.xpc.delivery import Arrival, ReceiveRing
from xpmem_emu.xpc.frame import FIRST_ADMIN_CODE
from xpmem_emu.xpc.messages import Invalidate, Pending
from xpmem_emu.xpc.remote import Remote
from xpmem_emu.xpc.slots import Obligation, SendRing
from xpmem_emu.xpc.wire import Wire
from xpmem_emu.xpmem.make import MAXADDR_SIZE, MakeCalls


def accept_old_incarnation() -> AbstractContextManager[Any]:
    """The gate in front of XPC lets the numbered messages of every session in."""
    admit = control.admit

    def open_gate(local: Any, partition: Any, header: Any, message: Any) -> bool:
        return admit(local, partition, header, message) or message.code >= FIRST_ADMIN_CODE

    return patch.object(xpc, "admit", open_gate)


def no_dedup() -> AbstractContextManager[Any]:
    """A request that was answered is taken for a new one when it comes again."""
    admit = ReceiveRing.admit

    def forgetful(self: ReceiveRing, number: int) -> Arrival:
        arrival = admit(self, number)
        if arrival is Arrival.ANSWERED:
            self._answers.pop(number % self.slots)
            return Arrival.NEW
        return arrival

    return patch.object(ReceiveRing, "admit", forgetful)


def deaf_faults() -> AbstractContextManager[Any]:
    """An attempt that got no answer is neither repeated nor given up."""
    return patch.object(SendRing, "_expire", lambda self, flight: None)


def interrupted_expels() -> AbstractContextManager[Any]:
    """A caller that is killed while it waits takes the peer for silent."""

    async def mortal(self: Obligation, on: Any, until_ns: int | None) -> Wake:
        why = await on.wait_killable(until_ns)
        silent = why is Wake.KILLED and self is Obligation.OWED
        return Wake.TIMEOUT if silent else why

    return patch.object(Obligation, "sleep", mortal)


def pending_is_silence() -> AbstractContextManager[Any]:
    """That a peer works on a request does not count as a sign of life."""
    answered = SendRing.answered

    def deaf(self: SendRing, number: int, message: Any, bulk: Any) -> None:
        if not isinstance(message, Pending):
            answered(self, number, message, bulk)

    return patch.object(SendRing, "answered", deaf)


def heart_stops() -> AbstractContextManager[Any]:
    """Of ten heartbeats one is taken for progress."""
    beat = Remote.beat

    def dull(self: Remote, value: int, offline: bool) -> bool:
        return value % 10 == 0 and beat(self, value, offline)

    return patch.object(Remote, "beat", dull)


def recalls_queue_with_faults() -> AbstractContextManager[Any]:
    """An INVALIDATE takes the slots of what wants something."""
    coherence = slots._COHERENCE - {Invalidate}
    return patch.object(slots, "_COHERENCE", coherence)


def slot_not_passed_on() -> AbstractContextManager[Any]:
    """A slot that becomes free goes to whoever comes next, not to whoever waits."""

    def release(self: SendRing, slot: int) -> None:
        self._free[slot * len(self._free) // self.slots].append(slot)

    return patch.object(SendRing, "_release", release)


def abandoned_slots_kept() -> AbstractContextManager[Any]:
    """The slot of a caller that was killed is never free again."""
    land = SendRing._land

    def keeping(self: SendRing, number: int, flight: Any, answer: Any) -> None:
        if flight.notify is not None:
            land(self, number, flight, answer)

    return patch.object(SendRing, "_land", keeping)


def sent_once() -> AbstractContextManager[Any]:
    """A request that was lost is not sent again."""
    return patch.object(Wire, "resend", lambda self, packet: None)


def sender_unchecked() -> AbstractContextManager[Any]:
    """Calls take and senders send what no receiver accepts."""

    def anything(header: Any, message: Any) -> bytes:
        return frame.seal(
            frame._pack(
                (
                    frame.FRAME_VERSION,
                    message.code,
                    header.src,
                    header.src_incarnation,
                    header.dst_incarnation,
                    header.channel,
                    header.number,
                    astuple(message),
                )
            )
        )

    def believe(self: MakeCalls, process: Any, vaddr: int, size: int, *rest: Any) -> int:
        if size == MAXADDR_SIZE and not vaddr & PAGE_MASK:
            return self._register(self._device.mine(process), vaddr, -PAGE_SIZE, rest[1], "")
        return make(self, process, vaddr, size, *rest)

    make = MakeCalls.make
    return together(
        patch.object(wire, "encode_frame", anything),
        patch.object(MakeCalls, "make", believe),
        patch.object(codec, "misfit", lambda call: ""),
        patch.object(tasks, "_require_ids", lambda uid, gids: None),
    )
