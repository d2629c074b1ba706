"""Sessions with a peer: old work, proofs, heartbeats, incarnations, verdicts on peers."""

from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

from xpmem_emu.failpoints.points import XPC_REPLY, XPC_SERVE
from xpmem_emu.xpc.delivery import Opening
from xpmem_emu.xpc.heartbeat import Heart
from xpmem_emu.xpc.remote import Remote
from xpmem_emu.xpc.slots import Obligation, SendRing
from xpmem_emu.xpc.wire import Requester


def old_work_applied() -> AbstractContextManager[Any]:
    """A request of a session that is over is carried out, and only not answered."""

    async def work(self: Opening, number: int, request: Any, bulk: Any) -> None:
        failpoints, requester = self._wire.local.failpoints, self._requester
        if failpoints.armed:
            await failpoints.reach(XPC_SERVE)
        eternal = Requester(requester.partid, requester.session)
        result = await self._handler.received(eternal, request, bulk)
        if failpoints.armed:
            await failpoints.reach(XPC_REPLY)
        requester.require_current()
        reply, data = result if isinstance(result, tuple) else (result, b"")
        packet = self._wire.pack(self._channel, number, reply, data)
        self.receiver.answer(number, packet)
        self._wire.send(packet)

    return patch.object(Opening, "_work", work)


def heartbeat_remembered() -> AbstractContextManager[Any]:
    """A value of an old session hides the heartbeats of the new one."""
    renew = Remote.renew

    def keeping(self: Remote, incarnation: int) -> None:
        value = self.heartbeat
        renew(self, incarnation)
        self.heartbeat = value

    return patch.object(Remote, "renew", keeping)


def heart_stands_still() -> AbstractContextManager[Any]:
    """Heartbeats go out and do not count."""

    def same(self: Heart) -> tuple[int, bool]:
        return self._value, self._offline

    return patch.object(Heart, "next", same)


def impatience_expels() -> AbstractContextManager[Any]:
    """A caller that waits no longer gives the peer up."""

    def hasty(self: SendRing, flight: Any) -> None:
        owed = flight.terms.__class__(
            Obligation.OWED, flight.terms.patience, flight.terms.give_up_ns
        )
        flight.terms = owed
        overdue(self, flight)

    overdue = SendRing._overdue
    return patch.object(SendRing, "_overdue", hasty)
