"""The XPC endpoint of one partition: a ROUTER that receives, one DEALER per peer that sends.

It moves frames and reads of them only who sent them, to compare that with the key that they came
by: a partition speaks for itself and for nobody else, or loses its session. It never blocks and
never queues beyond its bound: a message that finds its queue full, or its peer not connected, is
dropped and counted, because retransmission is the business of XPC. A link that goes down takes its
queue with it (sources T19: what was meant for a dead partition must not reach its successor).
"""

import asyncio
import errno
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import zmq

from xpmem_emu.client.loop import FOR_PEERS, Inbox, Socket, new_socket, send_now
from xpmem_emu.cluster.paths import is_tcp
from xpmem_emu.codec import Buffer
from xpmem_emu.errors import KernelError
from xpmem_emu.live.console.connections import Connections, Refusals
from xpmem_emu.live.console.curve_auth import CurveAuth, Side
from xpmem_emu.xpc.frame import claimed_source

MESSAGE_BATCH = 8
"""Messages that are read before everything else has its turn: each is a step of the kernel, and a
peer may send nonsense without end. libzmq takes one of each connection in turn."""
_RECONNECT_MS = 20
_RECONNECT_MAX_MS = 500
_CONNECT_MS = 1000
"""An attempt to connect that takes longer is given up, and the peer's name looked up again."""
_UNHEARD_MS = 3000
"""A connection whose bytes nobody has acknowledged for so long is closed. Without these two, TCP
would try for minutes to reach where a peer was before its network went away and came back."""


@dataclass(slots=True)
class Traffic:
    """What the endpoint did, in messages."""

    sent: int = 0
    received: int = 0
    dropped: int = 0
    """Not sent: queue full, or peer not connected."""


class XpcEndpoint:
    """`peers` maps partids to the endpoints where they listen."""

    def __init__(
        self,
        context: zmq.Context[Socket],
        loop: asyncio.AbstractEventLoop,
        listen: str,
        peers: Mapping[int, str],
        *,
        queue: int,
        message_max: int,
        deliver: Callable[[list[Buffer]], None],
        door: CurveAuth | None,
        connections_max: int,
        refusals: Refusals,
        forged: Callable[[int, int], None],
    ) -> None:
        """Starts to listen; `deliver` gets the frames of each message. `door` guards what is
        tcp; `forged` hears of a partition that spoke in the name of another. Raises KernelError."""
        self.traffic = Traffic()
        self._context = context
        self._peers = dict(peers)
        self._queue = queue
        self._message_max = message_max
        self._deliver = deliver
        self._forged = forged
        self._links: dict[int, Socket] = {}
        self._shown_to: dict[int, str] = {}
        """Public keys of the peers whose links are guarded."""
        self._door = door
        socket = new_socket(
            context, zmq.ROUTER, queue=queue, message_max=message_max, threads=FOR_PEERS
        )
        guarded = door is not None and is_tcp(listen)
        if door is not None and guarded:
            door.guard(socket, Side.PEERS)
        self._connections = Connections(
            loop, context, socket, Side.PEERS, guarded, connections_max, refusals
        )
        bind(socket, listen, self._connections)
        received = self._received_signed if guarded else self._received
        self._inbox = Inbox(loop, socket, received, self._connections.receive, batch=MESSAGE_BATCH)
        for partid in self._peers:
            self._link(partid)

    def send(self, partid: int, frames: list[Buffer]) -> None:
        """Put a message on the link to `partid`, or drop it."""
        link = self._link(partid) if partid in self._peers else None
        if link is not None and send_now(link, frames):
            self.traffic.sent += 1
        else:
            self.traffic.dropped += 1

    def drop_link(self, partid: int) -> None:
        """Close the link to `partid` with everything queued on it; a later send opens another."""
        self._shown_to.pop(partid, None)
        link = self._links.pop(partid, None)
        if link is not None:
            link.close()

    def keys_changed(self) -> None:
        """Close the links to peers that have another key than before, or none any more."""
        assert self._door is not None
        for partid, public in list(self._shown_to.items()):
            if self._door.roster.public_of(partid) != public:
                self.drop_link(partid)

    def close(self) -> None:
        """Close every socket."""
        self._inbox.close()
        self._connections.close()
        for partid in list(self._links):
            self.drop_link(partid)

    def _link(self, partid: int) -> Socket | None:
        """The link to a peer; None: it has no key, so whoever listens there is not the peer."""
        link = self._links.get(partid)
        if link is not None:
            return link
        link = new_socket(
            self._context,
            zmq.DEALER,
            queue=self._queue,
            message_max=self._message_max,
            threads=FOR_PEERS,
        )
        if self._door is not None and is_tcp(self._peers[partid]):
            public = self._door.introduce(link, partid)
            if public is None:
                link.close()
                return None
            self._shown_to[partid] = public
        link.setsockopt(zmq.IMMEDIATE, 1)
        link.setsockopt(zmq.RECONNECT_IVL, _RECONNECT_MS)
        link.setsockopt(zmq.RECONNECT_IVL_MAX, _RECONNECT_MAX_MS)
        link.setsockopt(zmq.CONNECT_TIMEOUT, _CONNECT_MS)
        link.setsockopt(zmq.TCP_MAXRT, _UNHEARD_MS)
        link.connect(self._peers[partid])
        self._links[partid] = link
        return link

    def _received(self, frames: list[Buffer]) -> None:
        self.traffic.received += 1
        self._connections.keep(bytes(frames[0]))
        self._deliver(frames[1:])

    def _received_signed(self, frames: list[Buffer]) -> None:
        """A message with the public key of its sender."""
        assert self._door is not None
        public, source = bytes(frames[1]).decode(), claimed_source(frames[2])
        if (owner := self._door.roster.peer(public)) is None:
            self._door.refuse(Side.PEERS, self._door.roster.why_not(public), claims=source)
        elif owner != source:
            self._door.refuse(Side.PEERS, f"the key is of partition {owner}", claims=source)
            if source is not None:
                self._forged(owner, source)
        else:
            self.traffic.received += 1
            self._connections.keep(bytes(frames[0]))
            self._deliver(frames[2:])


def bind(socket: Socket, endpoint: str, connections: Connections) -> None:
    """Listen at `endpoint`. Raises KernelError with the errno of the system; then both are closed,
    or the context would wait for them for ever."""
    try:
        socket.bind(endpoint)
    except zmq.ZMQError as error:
        connections.close()
        socket.close()
        raise KernelError(
            error.errno or errno.EIO,
            f"cannot listen at {endpoint}: {error.strerror}",
            "an endpoint of this host that is free; `listen` in the topology may differ",
        ) from None
