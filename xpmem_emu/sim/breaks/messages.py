"""Sessions, numbers and deadlines of messages."""

from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

from xpmem_emu.sched import Wake
from xpmem_emu.xpc import control, slots, xpc
from xpmem_emu.xpc.answers import Arrival, ReceiveRing
from xpmem_emu.xpc.frame import FIRST_ADMIN_CODE
from xpmem_emu.xpc.messages import Invalidate, Pending
from xpmem_emu.xpc.patience import Obligation
from xpmem_emu.xpc.remote import Remote
from xpmem_emu.xpc.slots import SendRing


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
            self._answers.pop(self.slot_of(number))
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
