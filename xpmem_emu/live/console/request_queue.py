"""Where requests of clients arrive, wait for their turn and are answered.

A request is taken from the socket at once and waits in its client's queue; see `limits` for whose
turn is when. Over tcp with keys the sender of each single message is known by its public key, and
what it may do is looked up when its turn comes: a key revoked meanwhile gets nothing. What a
client sends is never trusted, and what it does not read is dropped: nobody waits for it.
"""

import asyncio
import errno
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import zmq

from xpmem_emu import codec
from xpmem_emu.client.loop import Inbox, Socket, send_now, send_tracked
from xpmem_emu.client.wire import BULK_MAX, answer_frames
from xpmem_emu.cluster.keys import Client
from xpmem_emu.codec import Buffer
from xpmem_emu.errors import KernelError
from xpmem_emu.kernel.interface import Failed, Outcome
from xpmem_emu.live import log
from xpmem_emu.live.console.connections import Connections
from xpmem_emu.live.console.curve_auth import CurveAuth, Side
from xpmem_emu.live.console.limits import (
    LARGE,
    QUEUED_MAX,
    REQUEST_BATCH,
    REQUESTS_PER_S,
    TURN_NS,
    UNREAD_MAX,
    Allowance,
    Turns,
    Unread,
)
from xpmem_emu.live.console.requests import Asked, read_request, readable_id


@dataclass(slots=True)
class QueueCounters:
    """What went wrong, in messages."""

    malformed: int = 0
    unsent: int = 0
    """Answers that their client did not take."""
    turned_away: int = 0
    """Requests of clients that had too many waiting."""


@dataclass(frozen=True, slots=True)
class Asker:
    """Where a request came from. `client` is what its key is for, None where none is needed."""

    connection: bytes
    public: str = ""
    client: Client | None = None


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A request as it arrived."""

    connection: bytes
    public: str
    frames: list[Buffer]


class RequestQueue:
    """The socket of one console, bound already; `door` guards it, `connections` are its."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        socket: Socket,
        door: CurveAuth | None,
        connections: Connections,
        client_of: Callable[[bytes], object],
        serve: Callable[[Asker, Asked, Buffer], None],
    ) -> None:
        """`client_of`: whom a connection without a key belongs to. `serve` answers, or raises
        KernelError or BadMessage."""
        self.counters = QueueCounters()
        self._loop = loop
        self._socket = socket
        self._door = door
        self._client_of = client_of
        self._serve = serve
        self._turns: Turns[_Waiting] = Turns()
        self._allowances: defaultdict[str, Allowance] = defaultdict(
            lambda: Allowance(time.monotonic_ns())
        )
        self._unread: defaultdict[object, Unread] = defaultdict(Unread)
        self._next_turn: asyncio.Handle | None = None
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._inbox = Inbox(
            loop, socket, self._arrived, connections.receive, self._serve_turns, REQUEST_BATCH
        )

    def close(self) -> None:
        """Answer nobody any more; what was answered already is still sent."""
        if self._next_turn is not None:
            self._next_turn.cancel()
        self._socket.linger = 500
        self._inbox.close()

    def answer(self, asker: Asker, ident: int, outcome: Outcome) -> None:
        """Answer a request, unless its client does not read."""
        frames: list[Buffer] = [asker.connection, *answer_frames(ident, outcome)]
        if len(frames[-1]) < LARGE:
            sent = send_now(self._socket, frames)
        else:
            tracker = send_tracked(self._socket, frames)
            sent = tracker is not None
            if tracker is not None:
                self._unread[self._client(asker)].add(tracker, len(frames[-1]))
        if not sent:
            self.counters.unsent += 1
        self._inbox.look_again()

    def transmit(self, connection: bytes, frame: bytes) -> bool:
        """Send what nobody asked for just now; False: the client is slow."""
        sent = send_now(self._socket, [connection, frame])
        self._inbox.look_again()
        return sent

    def require_read(self, asker: Asker) -> None:
        """Raises KernelError EAGAIN when its client has not read much of what it asked for."""
        unread = self._unread.get(self._client(asker))
        if unread is not None and unread.too_many():
            raise KernelError(
                errno.EAGAIN,
                f"{UNREAD_MAX} bytes of answers to this client are unread",
                "read them before asking for more",
            )

    def forget(self, client: object) -> None:
        """A client without a key is gone."""
        self._unread.pop(client, None)

    def _client(self, asker: Asker | _Waiting) -> object:
        return asker.public or self._client_of(asker.connection)

    # -- arrival ---------------------------------------------------------------------------

    def _arrived(self, frames: list[Buffer]) -> None:
        """A request; with a door, its second part is the public key of its sender."""
        public = bytes(frames.pop(1)).decode() if self._door is not None else ""
        waiting = _Waiting(bytes(frames[0]), public, frames[1:])
        if public and not self._allowances[public].take(time.monotonic_ns()):
            self._turn_away(waiting, f"more than {REQUESTS_PER_S} requests per second")
        elif not self._turns.put(self._client(waiting), waiting):
            self._turn_away(waiting, f"{QUEUED_MAX} requests of this client wait already")

    def _turn_away(self, waiting: _Waiting, why: str) -> None:
        self.counters.turned_away += 1
        failed = Failed(errno.EAGAIN, why, "wait for answers before asking more")
        self._fail(waiting, failed)

    def _fail(self, waiting: _Waiting, failed: Failed) -> None:
        ident = readable_id(waiting.frames[0]) if waiting.frames else None
        if ident is not None:
            self.answer(Asker(waiting.connection, waiting.public), ident, failed)

    # -- turns -----------------------------------------------------------------------------

    def _serve_turns(self) -> None:
        """Serve requests for a while; what is left has its turn after everything else."""
        if self._next_turn is not None:
            self._next_turn.cancel()
            self._next_turn = None
        now_ns = time.monotonic_ns()
        until_ns = now_ns + TURN_NS
        while (waiting := self._turns.take()) is not None and not self._socket.closed:
            begun_ns = now_ns
            self._serve_one(waiting)
            now_ns = time.monotonic_ns()
            self._turns.charge(self._client(waiting), now_ns - begun_ns)
            if now_ns > until_ns:
                self._next_turn = self._loop.call_soon(self._serve_turns)
                return

    def _serve_one(self, waiting: _Waiting) -> None:
        try:
            asker = Asker(waiting.connection, waiting.public, self._rights_of(waiting.public))
            request, bulk = self._read(waiting.frames)
            self._serve(asker, request, bulk)
        except codec.BadMessage as error:
            self.counters.malformed += 1
            log.debug("malformed request", why=str(error))
            self._fail(waiting, Failed(errno.EBADMSG, f"malformed request: {error}"))
        except KernelError as error:
            self._fail(waiting, Failed(error.errno, error.cause, error.remedy))

    def _rights_of(self, public: str) -> Client | None:
        """What the key of a message is for. Raises KernelError EKEYREVOKED."""
        if self._door is None:
            return None
        key = self._door.roster.client(public)
        if key is None:
            self._door.refuse(Side.CLIENTS, self._door.roster.why_not(public))
            raise KernelError(
                errno.EKEYREVOKED,
                "this key is let in no more",
                "a new one: xpmem-emu keys new NAME",
            )
        assert isinstance(key.role, Client)
        return key.role

    def _read(self, frames: Sequence[Buffer]) -> tuple[Asked, Buffer]:
        """Raises BadMessage, KernelError E2BIG."""
        if not 1 <= len(frames) <= 2:
            raise codec.BadMessage(f"{len(frames)} frames; a request has one or two")
        bulk = frames[1] if len(frames) == 2 else b""
        if len(bulk) > BULK_MAX:
            raise too_big(len(bulk))
        return read_request(frames[0]), bulk


def too_big(size: int) -> KernelError:
    """The refusal of a transfer of `size` bytes."""
    return KernelError(
        errno.E2BIG,
        f"{size} bytes in one request, at most {BULK_MAX} are taken",
        "move it in pieces",
    )
