"""The console of one partition: clients ask, the kernel answers, sessions are kept.

`request_queue` takes requests in and sends answers out; `rights` says what a key may ask. Nothing
that a client sends ends the partition.

A session whose client went away, by a goodbye or by silence for a whole lease, loses the tasks
that it spawned: they are killed, so a client that crashed leaves nothing pinned behind. When this
process itself was stopped, everybody seems silent; leases then start anew.
"""

import asyncio
import errno
import time
from collections import deque
from collections.abc import Callable
from functools import partial

from xpmem_emu import codec
from xpmem_emu.client.injection_requests import InjectionRequest
from xpmem_emu.client.loop import Socket
from xpmem_emu.client.wire import BULK_MAX, Ask, BootFacts, Hello, Say, pack_envelope
from xpmem_emu.codec import Buffer
from xpmem_emu.errors import KernelError
from xpmem_emu.kernel.calls import Call, Exit, Fork, Kill, Load, Pread, Spawn, Value
from xpmem_emu.kernel.interface import Done, Outcome
from xpmem_emu.live import log
from xpmem_emu.live.console.connections import Connections
from xpmem_emu.live.console.curve_auth import CurveAuth, Side
from xpmem_emu.live.console.request_queue import Asker, RequestQueue, too_big
from xpmem_emu.live.console.requests import (
    Asked,
    read_call,
    read_hello,
    read_ident,
    read_injection_request,
)
from xpmem_emu.live.console.rights import Rights, needed_for_faults
from xpmem_emu.live.console.sessions import SUBSCRIPTIONS_MAX, ConsoleSession, ConsoleSessions
from xpmem_emu.live.console.stream import StreamServer
from xpmem_emu.live.driver import Driver
from xpmem_emu.live.heap import Giving

OUTSTANDING_MAX = 256
"""Calls of one session that may be unanswered."""
OUTSTANDING_OF_KEY_MAX = 1024
"""Of all sessions of one key: the kernel has some thousand threads for everybody."""
KILLED_AT_ONCE = 16
"""Tasks of sessions that ended: so many are killed before everything else has its turn."""
_FLUSH_RETRY_S = 0.05


class Console:
    """Serves the clients of one partition on a bound ROUTER socket."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        socket: Socket,
        driver: Driver,
        stream: StreamServer,
        facts: Callable[[], BootFacts],
        lease_s: float,
        faults: Callable[[InjectionRequest], Value],
        door: CurveAuth | None,
        connections: Connections,
        sessions_max: int,
    ) -> None:
        """`faults` answers what a client asks about faults; raises KernelError.
        `door`: who guards `socket`; `connections`: who is connected to it."""
        self._loop = loop
        self._driver = driver
        self._stream = stream
        self._facts = facts
        self._faults = faults
        self._lease_ns = int(lease_s * 1e9)
        self._sessions = ConsoleSessions(self._lease_ns, sessions_max)
        self._rights = Rights()
        self._door = door
        self._connections = connections
        self._flush: asyncio.Handle | None = None
        self._giving = Giving(loop)
        self._left: deque[Callable[[], None]] = deque()
        """Kills the tasks of sessions that ended, one each."""
        self._killing: asyncio.Handle | None = None
        self._reception = RequestQueue(
            loop, socket, door, connections, self._sessions.name_of, self._serve
        )
        self.counters = self._reception.counters
        self._checked_ns = time.monotonic_ns()
        self._lease_timer = loop.call_later(lease_s / 4, self._check_leases)

    def flush_soon(self) -> None:
        """Send queued events to their subscribers after this turn of the loop."""
        if self._flush is None:
            self._flush = self._loop.call_soon(self._flush_events)

    def keys_changed(self) -> None:
        """End the sessions of clients that are let in no more."""
        for session in self._sessions.all():
            if session.key and self._door and self._door.roster.client(session.key) is None:
                self._door.refuse(
                    Side.CLIENTS,
                    self._door.roster.why_not(session.key),
                    client=session.client,
                    tasks=len(session.tasks),
                )
                self._end(session, "lost its key", lambda: None)

    def close(self) -> None:
        """Answer nobody any more; what was answered already is still sent."""
        self._lease_timer.cancel()
        self._giving.close()
        for handle in (self._flush, self._killing):
            if handle is not None:
                handle.cancel()
        self._reception.close()
        self._connections.close()

    # -- requests --------------------------------------------------------------------------

    def _serve(self, asker: Asker, request: Asked, bulk: Buffer) -> None:
        """Raises BadMessage or KernelError instead of answering."""
        if request.kind == Ask.BOOT:
            return self._done(asker, request, self._facts())
        now_ns = time.monotonic_ns()
        if request.kind == Ask.HELLO:
            hello, facts = read_hello(request.body), self._facts()
            _require_boot(hello, facts)
            self._sessions.hello(now_ns, asker.connection, hello, asker.public)
            self._connections.keep(asker.connection)
            return self._done(asker, request, facts)
        session = self._sessions.heard(now_ns, asker.connection, asker.public)
        if session is None:
            raise KernelError(
                errno.ENOTCONN,
                "the partition does not know this session: it was silent for "
                "longer than the lease, or never said hello",
                "connect again",
            )
        match request.kind:
            case Ask.CALL | Ask.CALL_DETACHED:
                return self._call(session, asker, request, bulk)
            case Ask.PING:
                return self._done(asker, request, None)
            case Ask.BYE:
                done = partial(self._done, asker, request, None)
                return self._end(session, "said bye", done)
            case Ask.RECENT:
                self._reception.require_read(asker)
                return self._done(asker, request, self._stream.recent())
            case Ask.FAULTS:
                asked = read_injection_request(request.body)
                self._rights.require(asker.client, needed_for_faults(asked), "changing faults")
                return self._done(asker, request, self._faults(asked))
            case Ask.SUBSCRIBE:
                return self._subscribe(session, asker, request)
            case Ask.UNSUBSCRIBE:
                return self._unsubscribe(session, asker, request)
        raise codec.BadMessage(f"unknown kind {request.kind!r}")

    def _done(self, asker: Asker, request: Asked, value: object) -> None:
        self._reception.answer(asker, request.id, Done(value))

    # -- calls and the tasks they make -----------------------------------------------------

    def _call(self, session: ConsoleSession, asker: Asker, request: Asked, bulk: Buffer) -> None:
        of_key = self._sessions.calls[session.key] if session.key else 0
        if session.outstanding >= OUTSTANDING_MAX or of_key >= OUTSTANDING_OF_KEY_MAX:
            many = max(session.outstanding, of_key)
            raise KernelError(
                errno.EAGAIN,
                f"{many} calls of this client are unanswered",
                "wait for answers before asking more",
            )
        self._reception.require_read(asker)
        call = self._rights.checked(asker.client, read_call(request.body))
        if isinstance(call, Load | Pread) and call.size > BULK_MAX:
            raise too_big(call.size)
        session.outstanding += 1
        self._sessions.calls[session.key] += 1
        self._driver.call(call, bulk, partial(self._answer, session, asker, request, call))

    def _answer(
        self, session: ConsoleSession, asker: Asker, request: Asked, call: Call, outcome: Outcome
    ) -> None:
        session.outstanding -= 1
        self._sessions.calls[session.key] -= 1
        if not self._sessions.calls[session.key]:
            del self._sessions.calls[session.key]
        if isinstance(outcome, Done):
            self._rights.account(call, outcome.value)
            self._account(session, request.kind, call, outcome.value)
        if not session.ended:
            self._reception.answer(asker, request.id, outcome)

    def _account(self, session: ConsoleSession, kind: str, call: Call, value: object) -> None:
        """Keep the list of whose task is whose."""
        match call:
            case Spawn() if kind == Ask.CALL:
                self._give(int(str(value)), session)
            case Fork(pid=parent) if (owner := self._sessions.owner(parent)) is not None:
                self._give(int(str(value)), owner)
            case Exit(pid=pid) | Kill(pid=pid, signal=9):
                self._sessions.disown(pid)

    def _give(self, pid: int, session: ConsoleSession) -> None:
        if session.ended:
            self._kill(pid, session, "went away", lambda _outcome: None)
        else:
            self._sessions.own(pid, session)

    def _kill(
        self, pid: int, session: ConsoleSession, why: str, done: Callable[[Outcome], None]
    ) -> None:
        reason = f"client {session.client} {why}"
        call = Kill(pid=pid, signal=9, reason=reason)
        self._rights.account(call, None)
        self._driver.call(call, b"", done)

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

    def _end(self, session: ConsoleSession, why: str, done: Callable[[], None]) -> None:
        """End a session; `done` is called when its tasks are gone."""
        for key in session.subscriptions:
            self._stream.unsubscribe(key)
        self._reception.forget(session.name)
        for connection in session.connections:
            self._connections.estrange(connection)
        left = set(self._sessions.end(session))
        self._giving.soon()

        def gone(pid: int, _outcome: Outcome) -> None:
            left.discard(pid)
            if not left:
                done()

        if not left:
            done()
        for pid in sorted(left):
            self._left.append(partial(self._kill, pid, session, why, partial(gone, pid)))
        if self._killing is None:
            self._kill_some()

    def _kill_some(self) -> None:
        self._killing = None
        for _ in range(min(len(self._left), KILLED_AT_ONCE)):
            self._left.popleft()()
        if self._left:
            self._killing = self._loop.call_soon(self._kill_some)

    # -- events ----------------------------------------------------------------------------

    def _subscribe(self, session: ConsoleSession, asker: Asker, request: Asked) -> None:
        if self._sessions.subscriptions(session) >= SUBSCRIPTIONS_MAX:
            raise KernelError(errno.EUSERS, f"{SUBSCRIPTIONS_MAX} subscriptions of one client")
        key = (asker.connection, request.id)
        session.subscriptions.add(key)
        self._done(asker, request, None)
        self._stream.subscribe(
            key,
            partial(pack_envelope, request.id, Say.EVENTS),
            partial(self._reception.transmit, asker.connection),
        )

    def _unsubscribe(self, session: ConsoleSession, asker: Asker, request: Asked) -> None:
        key = (asker.connection, read_ident(request.body))
        session.subscriptions.discard(key)
        self._stream.unsubscribe(key)
        self._done(asker, request, None)

    def _flush_events(self) -> None:
        self._flush = None
        if not self._stream.flush():
            self._flush = self._loop.call_later(_FLUSH_RETRY_S, self._flush_events)


def _require_boot(hello: Hello, facts: BootFacts) -> None:
    """Raises KernelError ESTALE: pids, addresses and ids of the boot that is meant may be those of
    somebody else in this one."""
    if hello.boot not in (0, facts.boot):
        raise KernelError(
            errno.ESTALE,
            f"boot {hello.boot} of {facts.name} is meant, and boot {facts.boot} "
            "runs, whose tasks and memory are others",
            "xpmem-emu get tasks, or xpmem-emu get attachments; a program connects again",
        )
