"""The XPC endpoint of one partition: a ROUTER that receives, one DEALER per peer that sends.

It moves frames and understands none of them. It never blocks and never queues beyond its bound:
a message that finds its queue full, or its peer not connected, is dropped and counted, because
retransmission is the business of XPC. A link that goes down takes its queue with it (T19: what
was meant for a dead partition must not reach its successor).
"""

import asyncio
import errno
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import zmq

from xpmem_emu.errors import KernelError
from xpmem_emu.kernel.interface import Buffer
from xpmem_emu.live.loop import Inbox, new_socket, send_now

_RECONNECT_MS = 20
_RECONNECT_MAX_MS = 500


@dataclass(slots=True)
class Traffic:
    """What the endpoint did, in messages."""

    sent: int = 0
    received: int = 0
    dropped: int = 0
    """Not sent: queue full, or peer not connected."""


class XpcEndpoint:
    """`peers` maps partids to the endpoints where they listen."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], loop: asyncio.AbstractEventLoop,
                 listen: str, peers: Mapping[int, str], *, queue: int, message_max: int,
                 deliver: Callable[[list[Buffer]], None]) -> None:  # fmt: skip
        """Starts to listen; `deliver` gets the frames of each message. Raises KernelError."""
        self.traffic = Traffic()
        self._context = context
        self._peers = dict(peers)
        self._queue = queue
        self._message_max = message_max
        self._deliver = deliver
        self._links: dict[int, zmq.Socket[bytes]] = {}
        socket = new_socket(context, zmq.ROUTER, queue=queue, message_max=message_max)
        bind(socket, listen)
        self._inbox = Inbox(loop, socket, self._received)
        for partid in self._peers:
            self._link(partid)

    def send(self, partid: int, frames: list[Buffer]) -> None:
        """Put a message on the link to `partid`, or drop it."""
        if partid in self._peers and send_now(self._link(partid), frames):
            self.traffic.sent += 1
        else:
            self.traffic.dropped += 1

    def drop_link(self, partid: int) -> None:
        """Close the link to `partid` with everything queued on it; a later send opens another."""
        link = self._links.pop(partid, None)
        if link is not None:
            link.close()

    def close(self) -> None:
        """Close every socket."""
        self._inbox.close()
        for partid in list(self._links):
            self.drop_link(partid)

    def _link(self, partid: int) -> zmq.Socket[bytes]:
        link = self._links.get(partid)
        if link is None:
            link = new_socket(
                self._context, zmq.DEALER, queue=self._queue, message_max=self._message_max
            )
            link.setsockopt(zmq.IMMEDIATE, 1)
            link.setsockopt(zmq.RECONNECT_IVL, _RECONNECT_MS)
            link.setsockopt(zmq.RECONNECT_IVL_MAX, _RECONNECT_MAX_MS)
            link.connect(self._peers[partid])
            self._links[partid] = link
        return link

    def _received(self, frames: list[Buffer]) -> None:
        self.traffic.received += 1
        self._deliver(frames[1:])


def bind(socket: zmq.Socket[bytes], endpoint: str) -> None:
    """Listen at `endpoint`. Raises KernelError with the errno of the system."""
    try:
        socket.bind(endpoint)
    except zmq.ZMQError as error:
        socket.close()
        raise KernelError(
            error.errno or errno.EIO, f"cannot listen at {endpoint}: {error.strerror}",
            "an endpoint of this host that is free; `listen` in the topology may differ",
        ) from None  # fmt: skip
