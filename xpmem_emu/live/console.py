"""The console of one partition: clients ask, the kernel answers, sessions are kept.

Bytes of clients are never trusted: what cannot be read is counted, logged at debug level and
answered when it says which request it was; nothing that a client sends ends the partition.

A session whose client went away, by a goodbye or by silence for a whole lease, loses the tasks
that it spawned: they are killed, so a client that crashed leaves nothing pinned behind. When this
process itself was stopped, everybody seems silent; leases then start anew.
"""

import asyncio
import errno
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import structlog
import zmq

from xpmem_emu import codec
from xpmem_emu.errors import KernelError
from xpmem_emu.kernel.calls import Call, Exit, Fork, Kill, Spawn, Value
from xpmem_emu.kernel.interface import Buffer, Done, Failed, Outcome
from xpmem_emu.live.console_wire import (
    Ask,
    BootFacts,
    Envelope,
    EventBatch,
    Hello,
    Say,
    answer_frames,
    pack,
    read_call,
)
from xpmem_emu.live.driver import Driver
from xpmem_emu.live.loop import Inbox, send_now
from xpmem_emu.live.sessions import SUBSCRIPTIONS_MAX, Session, Sessions
from xpmem_emu.live.stream import Stream

OUTSTANDING_MAX = 256
"""Calls of one session that may be unanswered."""
_FLUSH_RETRY_S = 0.05

log = structlog.get_logger("console")


@dataclass(slots=True)
class ConsoleCounters:
    """What went wrong, in messages."""

    malformed: int = 0
    unsent: int = 0
    """Answers that their client did not take."""


class Console:
    """Serves the clients of one partition on a bound ROUTER socket."""

    def __init__(self, loop: asyncio.AbstractEventLoop, socket: zmq.Socket[bytes],
                 driver: Driver, stream: Stream, facts: Callable[[], BootFacts],
                 lease_s: float, faults: Callable[[object], Value]) -> None:  # fmt: skip
        """`faults` answers what a client asks about faults; raises KernelError, BadMessage."""
        self.counters = ConsoleCounters()
        self._loop = loop
        self._socket = socket
        self._driver = driver
        self._stream = stream
        self._facts = facts
        self._faults = faults
        self._lease_ns = int(lease_s * 1e9)
        self._sessions = Sessions(self._lease_ns)
        self._flush: asyncio.Handle | None = None
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._inbox = Inbox(loop, socket, self._deliver)
        self._checked_ns = time.monotonic_ns()
        self._lease_timer = loop.call_later(lease_s / 4, self._check_leases)

    def flush_soon(self) -> None:
        """Send queued events to their subscribers after this turn of the loop."""
        if self._flush is None:
            self._flush = self._loop.call_soon(self._flush_events)

    def close(self) -> None:
        """Answer nobody any more; what was answered already is still sent."""
        self._lease_timer.cancel()
        if self._flush is not None:
            self._flush.cancel()
        self._socket.linger = 500
        self._inbox.close()

    # -- requests --------------------------------------------------------------------------

    def _deliver(self, frames: list[Buffer]) -> None:
        connection = bytes(frames[0])
        ident = None
        try:
            if not 2 <= len(frames) <= 3:
                raise codec.BadMessage(f"{len(frames) - 1} frames; a request has one or two")
            fields = codec.decode(memoryview(frames[1]))
            ident = _readable_id(fields)
            request = codec.convert(fields, Envelope)
            self._serve(connection, request, frames[2] if len(frames) == 3 else b"")
        except codec.BadMessage as error:
            self.counters.malformed += 1
            log.debug("malformed request", why=str(error))
            refusal = Failed(errno.EBADMSG, f"malformed request: {error}")
        except KernelError as error:
            refusal = Failed(error.errno, error.cause, error.remedy)
        else:
            return
        if ident is not None:
            self._send(connection, answer_frames(ident, refusal))

    def _serve(self, connection: bytes, request: Envelope, bulk: Buffer) -> None:
        """Raises BadMessage or KernelError instead of answering."""
        if request.kind == Ask.BOOT:
            return self._done(connection, request, self._facts())
        now_ns = time.monotonic_ns()
        if request.kind == Ask.HELLO:
            self._sessions.hello(now_ns, connection, codec.convert(request.body, Hello))
            return self._done(connection, request, self._facts())
        session = self._sessions.heard(now_ns, connection)
        if session is None:
            raise KernelError(
                errno.ENOTCONN, "the partition does not know this session: it was silent for "
                "longer than the lease, or never said hello", "connect again",
            )  # fmt: skip
        match request.kind:
            case Ask.CALL | Ask.CALL_DETACHED:
                return self._call(session, connection, request, bulk)
            case Ask.PING:
                return self._done(connection, request, None)
            case Ask.BYE:
                done = partial(self._done, connection, request, None)
                return self._end(session, "said bye", done)
            case Ask.RECENT:
                return self._done(connection, request, self._stream.recent())
            case Ask.FAULTS:
                return self._done(connection, request, self._faults(request.body))
            case Ask.SUBSCRIBE:
                return self._subscribe(session, connection, request)
            case Ask.UNSUBSCRIBE:
                return self._unsubscribe(session, connection, request)
        raise codec.BadMessage(f"unknown kind {request.kind!r}")

    def _done(self, connection: bytes, request: Envelope, value: object) -> None:
        self._send(connection, answer_frames(request.id, Done(value)))

    def _send(self, connection: bytes, frames: Sequence[Buffer]) -> None:
        if not send_now(self._socket, [connection, *frames]):
            self.counters.unsent += 1
        self._inbox.look_again()

    # -- calls and the tasks they make -----------------------------------------------------

    def _call(self, session: Session, connection: bytes, request: Envelope,
              bulk: Buffer) -> None:  # fmt: skip
        if session.outstanding >= OUTSTANDING_MAX:
            raise KernelError(
                errno.EAGAIN, f"{OUTSTANDING_MAX} calls of this client are unanswered",
                "wait for answers before asking more",
            )  # fmt: skip
        call = read_call(request.body)
        session.outstanding += 1
        self._driver.call(call, bulk, partial(self._answer, session, connection, request, call))

    def _answer(self, session: Session, connection: bytes, request: Envelope, call: Call,
                outcome: Outcome) -> None:  # fmt: skip
        session.outstanding -= 1
        if isinstance(outcome, Done):
            self._account(session, request.kind, call, outcome.value)
        if not session.ended:
            self._send(connection, answer_frames(request.id, outcome))

    def _account(self, session: Session, kind: str, call: Call, value: object) -> None:
        """Keep the list of whose task is whose."""
        match call:
            case Spawn() if kind == Ask.CALL:
                self._give(int(str(value)), session)
            case Fork(pid=parent) if (owner := self._sessions.owner(parent)) is not None:
                self._give(int(str(value)), owner)
            case Exit(pid=pid) | Kill(pid=pid, signal=9):
                self._sessions.disown(pid)

    def _give(self, pid: int, session: Session) -> None:
        if session.ended:
            self._kill(pid, session, "went away", lambda _outcome: None)
        else:
            self._sessions.own(pid, session)

    def _kill(self, pid: int, session: Session, why: str,
              done: Callable[[Outcome], None]) -> None:  # fmt: skip
        reason = f"client {session.client} {why}"
        self._driver.call(Kill(pid=pid, signal=9, reason=reason), b"", done)

    # -- sessions that end -----------------------------------------------------------------

    def _check_leases(self) -> None:
        now_ns = time.monotonic_ns()
        if now_ns - self._checked_ns > self._lease_ns // 2:
            self._sessions.forgive(now_ns)
        self._checked_ns = now_ns
        for session in self._sessions.silent(now_ns):
            log.info("client went away", client=session.client, tasks=len(session.tasks))
            self._end(session, "went away", lambda: None)
        self._lease_timer = self._loop.call_later(self._lease_ns / 4e9, self._check_leases)

    def _end(self, session: Session, why: str, done: Callable[[], None]) -> None:
        """End a session; `done` is called when its tasks are gone."""
        for key in session.subscriptions:
            self._stream.unsubscribe(key)
        left = set(self._sessions.end(session))

        def gone(pid: int, _outcome: Outcome) -> None:
            left.discard(pid)
            if not left:
                done()

        if not left:
            done()
        for pid in sorted(left):
            self._kill(pid, session, why, partial(gone, pid))

    # -- events ----------------------------------------------------------------------------

    def _subscribe(self, session: Session, connection: bytes, request: Envelope) -> None:
        if len(session.subscriptions) >= SUBSCRIPTIONS_MAX:
            raise KernelError(errno.EUSERS, f"{SUBSCRIPTIONS_MAX} subscriptions of one client")
        key = (connection, request.id)
        session.subscriptions.add(key)
        self._done(connection, request, None)

        def transmit(batch: EventBatch) -> bool:
            return send_now(self._socket, [connection, pack(request.id, Say.EVENTS, batch)])

        self._stream.subscribe(key, transmit)

    def _unsubscribe(self, session: Session, connection: bytes, request: Envelope) -> None:
        key = (connection, codec.convert(request.body, int))
        session.subscriptions.discard(key)
        self._stream.unsubscribe(key)
        self._done(connection, request, None)

    def _flush_events(self) -> None:
        self._flush = None
        if not self._stream.flush():
            self._flush = self._loop.call_later(_FLUSH_RETRY_S, self._flush_events)
        self._inbox.look_again()


def _readable_id(fields: object) -> int | None:
    """The id in something that may not be a request."""
    if isinstance(fields, list) and len(fields) > 1 and isinstance(fields[1], int):
        return fields[1] if 0 <= fields[1] < 1 << 63 else None
    return None
