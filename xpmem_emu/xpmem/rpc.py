"""How the importer's side talks to the home partition of a segment.

A segment of this very partition is served by a function call; every other one by a message on
the MEM channel. Callers see no difference except that a message can be lost: XpcError.
"""

import errno
from collections.abc import Sequence
from contextlib import suppress

from xpmem_emu.codec import Buffer
from xpmem_emu.errors import KernelError
from xpmem_emu.failpoints.points import EVICT_TELL
from xpmem_emu.sched import Completion
from xpmem_emu.xpc.messages import Copy, Message
from xpmem_emu.xpc.wire import Requester
from xpmem_emu.xpc.xpc import Patience, XpcError
from xpmem_emu.xpmem.exporter import Exporter
from xpmem_emu.xpmem.recall import MEM_CHANNEL
from xpmem_emu.xpmem.services import Services


class HomeRpc:
    """All home partitions, this one included."""

    def __init__(self, services: Services, exporter: Exporter) -> None:
        self._services = services
        self._exporter = exporter
        self._here = Requester(services.partid, services.boot)

    async def ask(self, home: int, request: Message, session: int | None = None) -> Message:
        """The reply of partition `home`. What names a permit or a page makes sense in `session`
        only. Raises XpcError when there is none in time, or when the caller is killed."""
        if home == self._services.partid:
            return await self._exporter.serve(self._here, request)
        reply, _ = await self._services.xpc.call_killable(
            home, MEM_CHANNEL, request, session=session, patience=self._services.fault_patience
        )
        return reply

    async def exchange(
        self, home: int, session: int, request: Copy, bulk: Buffer, patience: Patience
    ) -> tuple[Message, Buffer]:
        """Like ask, for a block transfer: bulk data goes along and comes back."""
        if home == self._services.partid:
            return await self._exporter.serving.copy(home, request, bulk)
        return await self._services.xpc.call_killable(
            home, MEM_CHANNEL, request, session=session, bulk=bulk, patience=patience
        )

    def tell(self, home: int, session: int, *requests: Message) -> Completion[None]:
        """Send `requests`, one after the other, from a thread of their own, so that no signal to
        the caller can end it.

        Completed when the home partition consumed them, or is lost. A session that ended needs no
        telling: its pages were given back when it ended.
        """
        done: Completion[None] = Completion(self._services.scheduler)
        self._services.scheduler.spawn(
            f"xpmem_tell/p{home}", self._tell(home, session, requests, done)
        )
        return done

    def session(self, home: int) -> int:
        """The session in which frames of `home` are good. Raises KernelError EHOSTUNREACH."""
        if home == self._services.partid:
            return self._services.boot
        incarnation = self._services.xpc.incarnation(home)
        if incarnation is None:
            raise unreachable(home, self._services.xpc.partitions[home].reason.name)
        return incarnation

    def reachable(self, home: int, session: int) -> bool:
        """Whether `home` is still ACTIVE in that session. Accesses do not ask it, but whether the
        import is gone, which is the same (audit)."""
        if home == self._services.partid:
            return True
        return self._services.xpc.is_active(home, session)

    async def _tell(
        self, home: int, session: int, requests: Sequence[Message], done: Completion[None]
    ) -> None:
        if self._services.failpoints.armed:
            await self._services.failpoints.reach(EVICT_TELL)
        with suppress(XpcError):  # lost, and with it everything that it knew of us
            for request in requests:
                await self._owed(home, session, request)
        done.complete(None)

    async def _owed(self, home: int, session: int, request: Message) -> None:
        """The home owes it to listen: what it does not hear of it would keep pinned for us."""
        if home == self._services.partid:
            await self._exporter.serve(self._here, request)
        else:
            await self._services.xpc.call(
                home, MEM_CHANNEL, session, request, patience=self._services.fault_patience
            )


def unreachable(home: int, why: str) -> KernelError:
    """The refusal of a call that needs a partition which is not active."""
    return KernelError(
        errno.EHOSTUNREACH,
        f"partition p{home} is not active ({why})",
        f"`xpmem-emu get partitions` shows its state; `xpmem-emu logs p{home}` says why it left",
    )
