"""The door of one partition: CURVE on its tcp endpoints, and who of those that knock is let in.

libzmq does the handshake and the encryption, and asks whether it likes the key by the ZAP protocol
(ZeroMQ RFC 27) on a socket inside the process; the answer is the allow-list's. The public key of
the sender then comes with each message and decides what it may do, so a key that is revoked loses
its rights at once, on connections that are open too.

What does not get in is logged with its address, a bounded number of lines a second, and told no
reason: not even whether a key is known.
"""

import asyncio
import contextlib
import os
import socket as sockets
import time
from collections.abc import Callable
from enum import StrEnum

import structlog
import zmq
from zmq.utils import z85
from zmq.utils.monitor import parse_monitor_message

from xpmem_emu.kernel.interface import Buffer
from xpmem_emu.live.keys import Credentials, KeyFolder
from xpmem_emu.live.loop import Inbox
from xpmem_emu.live.roster import Roster

CONNECTIONS_MAX = 4096
"""Connections to one endpoint; more are closed in the handshake."""
HANDSHAKE_S = 3
"""A connection that has not shown its key after so many seconds is closed."""
REFRESH_S = 1.0
"""How often the allow-list is looked at when nobody knocks."""
LOG_LINES_PER_S = 20

_ZAP = "inproc://zeromq.zap.01"
_FAILURES = {
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: "it does not show a key, or means another server",
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: "it left, or was too slow to show a key",
}

log = structlog.get_logger("door")

Socket = zmq.Socket[bytes]


class Side(StrEnum):
    """Which door: a key of the one opens nothing at the other. Also the ZAP domain."""

    PEERS = "peers"
    CLIENTS = "clients"


class Door:
    """All guarded sockets of one partition. `changed` is called after the allow-list changed."""

    def __init__(self, loop: asyncio.AbstractEventLoop, context: zmq.Context[Socket],
                 folder: KeyFolder, partid: int, changed: Callable[[], None]) -> None:  # fmt: skip
        """`partid` is our own. Raises KernelError when a key cannot be had."""
        self.roster = Roster(folder)
        self.refused = 0
        """Handshakes and messages that were not let in."""
        self._pair = folder.pair_of(partid)
        self._loop = loop
        self._context = context
        self._changed = changed
        self._lines = 0
        self._lines_of_s = 0
        self._connected: dict[Side, dict[int, str]] = {side: {} for side in Side}
        """Peer addresses by file descriptor."""
        zap = context.socket(zmq.ROUTER)
        zap.linger = 0
        zap.bind(_ZAP)
        self._zap = zap
        self._inboxes = [Inbox(loop, zap, self._asked)]
        self._timer = loop.call_later(REFRESH_S, self._look)

    def close(self) -> None:
        """Open to nobody, because nobody is asked any more."""
        self._timer.cancel()
        for inbox in self._inboxes:
            inbox.close()

    def guard(self, socket: Socket, side: Side) -> None:
        """Make `socket`, not yet bound, one that demands a key."""
        socket.curve_server = True
        socket.curve_publickey, socket.curve_secretkey = self._pair.public, self._pair.secret
        socket.zap_domain = side.encode()
        socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_S * 1000)
        events = zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED
        for failure in _FAILURES:
            events |= failure
        address = f"inproc://door.{side}"
        socket.monitor(address, events)
        monitor = self._context.socket(zmq.PAIR)
        monitor.linger = 0
        # Events must never wait: the thread that reports them also moves the messages.
        monitor.rcvhwm = 0
        monitor.connect(address)
        watch = _Watch(self, side, self._connected[side])
        self._inboxes.append(Inbox(self._loop, monitor, watch.event))

    def introduce(self, socket: Socket, partid: int) -> str | None:
        """Make `socket`, not yet connected, show our key to that partition and nobody else.
        Result: the public key that the partition must have; None: it has none."""
        public = self.roster.public_of(partid)
        if public is not None:
            Credentials(self._pair, public.encode()).show(socket)
        return public

    def refuse(self, side: Side, why: str, **facts: object) -> None:
        """Count and log what was not let in."""
        self.refused += 1
        now_s = int(time.monotonic())
        if now_s != self._lines_of_s:
            if self._lines > LOG_LINES_PER_S:
                log.warning("refused", count=self._lines - LOG_LINES_PER_S, why="more of these")
            self._lines_of_s, self._lines = now_s, 0
        self._lines += 1
        if self._lines <= LOG_LINES_PER_S:
            log.warning("refused", door=str(side), why=why, **facts)

    # -- ZAP -------------------------------------------------------------------------------

    def _asked(self, frames: list[Buffer]) -> None:
        """Answer one question: [asker, '', version, id, domain, address, identity, mechanism,
        public key]."""
        asker, _, version, ident, domain, address, _, mechanism, raw = map(bytes, frames)
        assert (version, mechanism) == (b"1.0", b"CURVE")
        self._refresh()
        side, public = Side(domain.decode()), _z85(raw)
        why = self._objection(side, public)
        if why:
            self.refuse(side, why, address=address.decode())
        # 400 ends the handshake at once; 300 would leave the connection open until it is too old.
        status = b"400" if why else b"200"
        user = b"" if why else public.encode()
        self._zap.send_multipart([asker, b"", version, ident, status, b"", user, b""], zmq.NOBLOCK)
        self._inboxes[0].look_again()

    def _objection(self, side: Side, public: str) -> str:
        if len(self._connected[side]) > CONNECTIONS_MAX:
            return f"{CONNECTIONS_MAX} connections are open"
        roster = self.roster
        known = roster.peer(public) if side is Side.PEERS else roster.client(public)
        return roster.why_not(public) if known is None else ""

    def _look(self) -> None:
        self._refresh()
        self._timer = self._loop.call_later(REFRESH_S, self._look)

    def _refresh(self) -> None:
        if self.roster.refresh():
            self._changed()


class _Watch:
    """Listens to the monitor of one guarded socket: who is connected, whose handshake failed."""

    def __init__(self, door: Door, side: Side, connected: dict[int, str]) -> None:
        self._door = door
        self._side = side
        self._connected = connected
        self._failure = ""

    def event(self, frames: list[Buffer]) -> None:
        """What happened. A failed handshake does not say whose it was; the end of its connection
        follows, and does. Where messages fail later, libzmq only stops listening to them."""
        told = parse_monitor_message([bytes(frame) for frame in frames])
        event, value = told["event"], int(told["value"])
        if event == zmq.EVENT_ACCEPTED:
            self._connected[value] = _address(value)
        elif event == zmq.EVENT_DISCONNECTED:
            self._tell(self._connected.pop(value, "?"))
        elif value == zmq.PROTOCOL_ERROR_ZMTP_INVALID_SEQUENCE:
            self._door.refuse(self._side, "a message that was sent before, or is forged")
        else:
            self._failure = _FAILURES[zmq.Event(event)]

    def _tell(self, address: str) -> None:
        if self._failure:
            self._door.refuse(self._side, self._failure, address=address)
            self._failure = ""


def _address(descriptor: int) -> str:
    """Who is at the other end of a connection that libzmq has accepted, if it is still there."""
    with contextlib.suppress(OSError), sockets.socket(fileno=os.dup(descriptor)) as twin:
        host, port, *_ = twin.getpeername()
        return f"{host}:{port}"
    return "?"


def _z85(raw: bytes) -> str:
    encoded: bytes = z85.encode(raw)
    return encoded.decode()
