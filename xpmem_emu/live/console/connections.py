"""Who is connected to a listening socket of a partition: bounded, known, cut when it says nothing.

libzmq accepts whoever comes, in a thread of its own, and tells its monitor. That thread waits when
we are `LEAD` events behind, so there are never more connections than we know of and so many; the
surplus is cut as we hear of it, at most `SURPLUS_MAX` later. Whoever has not become somebody - a
session, a peer that spoke - within `PATIENCE_S` is cut too. Each is known by its descriptor, which
its messages name as well.

A descriptor may be another connection's by the time that we hear of its end, so all news is read
before anybody is cut.
"""

import asyncio
import contextlib
import itertools
import socket as sockets
import struct
import time
from dataclasses import dataclass

import zmq

from xpmem_emu.client.loop import Inbox, Socket, monitored, receive_from
from xpmem_emu.codec import Buffer
from xpmem_emu.live import log

LEAD = 502
"""Events that libzmq's thread may be ahead of us: the least that can be had. It counts what it sent
against what we told it that we read; we tell each half of our own limit and the monitor's thousand.
"""
SURPLUS_MAX = 32
"""Connections too many that may be heard of before one is cut."""
HANDSHAKE_S = 3
"""A connection that has not shown what it speaks, and its key, after so many seconds is closed."""
PATIENCE_S = 5.0
LOG_LINES_PER_S = 20

_FAILURES = {
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: "it does not show a key, or means another server",
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: "it left, or was too slow to show a key",
}
_monitors = itertools.count(1)


class Refusals:
    """What was not let in, handshakes and messages: counted, and logged at a bounded rate."""

    def __init__(self) -> None:
        self.count = 0
        self._lines = 0
        self._lines_of_s = 0

    def tell(self, door: str, why: str, **facts: object) -> None:
        """One more."""
        self.count += 1
        now_s = int(time.monotonic())
        if now_s != self._lines_of_s:
            if self._lines > LOG_LINES_PER_S:
                log.warning("refused", count=self._lines - LOG_LINES_PER_S, why="more of these")
            self._lines_of_s, self._lines = now_s, 0
        self._lines += 1
        if self._lines <= LOG_LINES_PER_S:
            log.warning("refused", door=door, why=why, **facts)


@dataclass(slots=True)
class _Connection:
    address: str
    since_s: float
    name: bytes = b""
    """What the socket calls it, once it said something."""


class Connections:
    """Those to one socket, which is not bound yet. `door`: what refusals call it."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        context: zmq.Context[Socket],
        socket: Socket,
        door: str,
        guarded: bool,
        most: int,
        refusals: Refusals,
    ) -> None:
        """`guarded`: whether the socket demands keys, so a failed handshake is worth telling."""
        self._loop = loop
        self._door = door
        self._guarded = guarded
        self._most = most
        self._refusals = refusals
        self._all: dict[int, _Connection] = {}
        self._strangers: dict[int, _Connection] = {}
        """Of those the ones that are nobody yet, longest first."""
        self._surplus: list[tuple[int, _Connection]] = []
        """Of those the ones that are too many, for less than a turn of the loop."""
        self._named: dict[bytes, int] = {}
        self._failure = ""
        self._timer: asyncio.TimerHandle | None = None
        socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_S * 1000)
        address = f"inproc://connections.{next(_monitors)}"
        events = zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED
        for failure in _FAILURES if guarded else ():
            events |= failure
        socket.monitor(address, events)
        monitor = context.socket(zmq.PAIR)
        monitor.linger = 0
        # What the monitor may send is bounded by the sum, what we acknowledge by the second.
        monitor.rcvhwm = LEAD - 1
        monitor.connect(address)
        monitor.rcvhwm = 1
        self._inbox = Inbox(loop, monitor, self._event)

    def __len__(self) -> int:
        return len(self._all)

    def close(self) -> None:
        """Hear of nobody any more: the socket has to be closed too."""
        if self._timer is not None:
            self._timer.cancel()
        self._all.clear()  # nobody is cut any more
        self._inbox.close()

    def receive(self, socket: Socket) -> list[Buffer]:
        """The next message: from whom, the public key of who that is when the socket demands one,
        and what. Raises zmq.Again when there is none."""
        frames, descriptor = receive_from(socket, self._guarded)
        name = bytes(frames[0])
        connection = self._all.get(descriptor)
        if connection is None or connection.name != name:
            self._meet(name, descriptor)
        return frames

    def hear(self) -> None:
        """Of all that libzmq has told by now."""
        self._inbox.read_all()

    def keep(self, name: bytes) -> None:
        """That connection is somebody."""
        if self._strangers:
            self._strangers.pop(self._named.get(name, -1), None)

    def estrange(self, name: bytes) -> None:
        """That connection is nobody any more."""
        descriptor = self._named.get(name, -1)
        if (connection := self._all.get(descriptor)) is not None:
            connection.since_s = time.monotonic()
            self._strangers[descriptor] = connection
            self._look_later()

    def _meet(self, name: bytes, descriptor: int) -> None:
        # That it came was told before it spoke, but perhaps not read yet.
        self.hear()
        connection = self._all.get(descriptor)
        if connection is not None:
            connection.name = name
            self._named[name] = descriptor

    # -- what libzmq tells ---------------------------------------------------------------------

    def _event(self, frames: list[Buffer]) -> None:
        """A failed handshake does not say whose it was; the end of its connection follows, and
        does. Where messages fail later, libzmq only stops listening to them."""
        event, descriptor = monitored(frames)
        if event == zmq.EVENT_ACCEPTED:
            self._accepted(descriptor)
        elif event == zmq.EVENT_DISCONNECTED:
            self._disconnected(descriptor)
        elif descriptor == zmq.PROTOCOL_ERROR_ZMTP_INVALID_SEQUENCE:
            self._refusals.tell(self._door, "a message that was sent before, or is forged")
        else:
            self._failure = _FAILURES[zmq.Event(event)]

    def _accepted(self, descriptor: int) -> None:
        surplus = len(self._all) >= self._most
        connection = _Connection(peer_address(descriptor), time.monotonic())
        self._all[descriptor] = self._strangers[descriptor] = connection
        if surplus:
            self._surplus.append((descriptor, connection))
            if len(self._surplus) == 1:
                self._loop.call_soon(self._turn_away)
            # Whoever floods us is let in as fast as we read. One cut now may have ended already,
            # and who has its descriptor since then would find no room either.
            elif len(self._surplus) == SURPLUS_MAX:
                self._cut_surplus()
        self._look_later()

    def _disconnected(self, descriptor: int) -> None:
        connection = self._all.pop(descriptor, None)
        self._strangers.pop(descriptor, None)
        if connection is not None and self._named.get(connection.name) == descriptor:
            del self._named[connection.name]
        if self._failure:
            address = connection.address if connection is not None else "?"
            self._refusals.tell(self._door, self._failure, address=address)
            self._failure = ""

    # -- cutting -------------------------------------------------------------------------------

    def _look_later(self) -> None:
        if self._timer is None and self._strangers:
            first = next(iter(self._strangers.values()))
            due_s = first.since_s + PATIENCE_S - time.monotonic()
            self._timer = self._loop.call_later(max(0.1, due_s), self._look)

    def _look(self) -> None:
        self._timer = None
        now_s = time.monotonic()
        for descriptor, connection in list(self._strangers.items()):
            if connection.since_s + PATIENCE_S > now_s:
                break
            self._cut(descriptor, connection, f"it has said nothing for {PATIENCE_S:g} s")
        self._look_later()

    def _turn_away(self) -> None:
        self.hear()
        self._cut_surplus()

    def _cut_surplus(self) -> None:
        surplus, self._surplus = self._surplus, []
        for descriptor, connection in surplus:
            self._shut(descriptor, connection, f"{self._most} connections are open")

    def _cut(self, descriptor: int, connection: _Connection, why: str) -> None:
        """As `_shut`, after all news. libzmq tells us of an end before it closes, so what is still
        there then is no other connection's descriptor."""
        if self._all.get(descriptor) is connection:
            self.hear()
        self._shut(descriptor, connection, why)

    def _shut(self, descriptor: int, connection: _Connection, why: str) -> None:
        """Shut a connection down, if we know of no end of it; libzmq then closes it and tells
        us."""
        if self._all.get(descriptor) is not connection:
            return
        self._strangers.pop(descriptor, None)
        self._refusals.tell(self._door, why, address=connection.address)
        with contextlib.suppress(OSError):
            twin = sockets.socket(fileno=descriptor)
            try:
                twin.shutdown(sockets.SHUT_RDWR)
            finally:
                twin.detach()


def peer_address(descriptor: int) -> str:
    """Who is at the other end of a connection that libzmq has accepted, if it is still there."""
    with contextlib.suppress(OSError):
        twin = sockets.socket(fileno=descriptor)
        try:
            if twin.family == sockets.AF_UNIX:
                credentials = twin.getsockopt(sockets.SOL_SOCKET, sockets.SO_PEERCRED, 12)
                return f"pid {struct.unpack('3i', credentials)[0]}"
            host, port, *_ = twin.getpeername()
        finally:
            twin.detach()
        return f"{host}:{port}"
    return "?"
