"""The door of one partition: CURVE on its tcp endpoints, and who of those that knock is let in.

libzmq does the handshake and the encryption, and asks whether it likes the key by the ZAP protocol
(ZeroMQ RFC 27) on a socket inside the process; the answer is the allow-list's. The public key of
the sender then comes with each message and decides what it may do, so a key that is revoked loses
its rights at once, on connections that are open too.

Who does not get in is told no reason: not even whether a key is known.
"""

import asyncio
from collections.abc import Callable
from enum import StrEnum

import zmq
from zmq.utils import z85

from xpmem_emu.client.loop import Inbox, Socket
from xpmem_emu.cluster.keys import Credentials, KeyFolder
from xpmem_emu.codec import Buffer
from xpmem_emu.live.console.allow_list import LiveAllowList
from xpmem_emu.live.console.connections import Refusals

REFRESH_S = 1.0
"""How often the allow-list is looked at when nobody knocks."""

_ZAP = "inproc://zeromq.zap.01"


class Side(StrEnum):
    """Which door: a key of the one opens nothing at the other. Also the ZAP domain."""

    PEERS = "peers"
    CLIENTS = "clients"


class CurveAuth:
    """All guarded sockets of one partition. `changed` is called after the allow-list changed."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        context: zmq.Context[Socket],
        folder: KeyFolder,
        partid: int,
        refusals: Refusals,
        changed: Callable[[], None],
    ) -> None:
        """`partid` is our own. Raises KernelError when a key cannot be had."""
        self.roster = LiveAllowList(folder)
        self._pair = folder.pair_of(partid)
        self._loop = loop
        self._refusals = refusals
        self._changed = changed
        zap = context.socket(zmq.ROUTER)
        zap.linger = 0
        zap.bind(_ZAP)
        self._zap = zap
        self._inbox = Inbox(loop, zap, self._asked)
        self._timer = loop.call_later(REFRESH_S, self._look)

    def close(self) -> None:
        """Open to nobody, because nobody is asked any more."""
        self._timer.cancel()
        self._inbox.close()

    def guard(self, socket: Socket, side: Side) -> None:
        """Make `socket`, not yet bound, one that demands a key."""
        socket.curve_server = True
        socket.curve_publickey, socket.curve_secretkey = self._pair.public, self._pair.secret
        socket.zap_domain = side.encode()

    def introduce(self, socket: Socket, partid: int) -> str | None:
        """Make `socket`, not yet connected, show our key to that partition and nobody else.
        Result: the public key that the partition must have; None: it has none."""
        public = self.roster.public_of(partid)
        if public is not None:
            Credentials(self._pair, public.encode()).show(socket)
        return public

    def refuse(self, side: Side, why: str, **facts: object) -> None:
        """Count and log what was not let in."""
        self._refusals.tell(side, why, **facts)

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
        self._inbox.look_again()

    def _objection(self, side: Side, public: str) -> str:
        roster = self.roster
        known = roster.peer(public) if side is Side.PEERS else roster.client(public)
        return roster.why_not(public) if known is None else ""

    def _look(self) -> None:
        self._refresh()
        self._timer = self._loop.call_later(REFRESH_S, self._look)

    def _refresh(self) -> None:
        if self.roster.refresh():
            self._changed()


def _z85(raw: bytes) -> str:
    encoded: bytes = z85.encode(raw)
    return encoded.decode()
