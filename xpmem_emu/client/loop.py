"""ZeroMQ sockets on a callback event loop, without coroutines and without polling.

A ZeroMQ socket's file descriptor is edge-triggered and says only "look again": after it fires,
and after every send that may have swallowed the edge, the socket must be read until it is empty.
`Inbox` keeps that rule in one place. It reads a bounded number of messages per turn, so that no
socket starves the others or the timers.

Works on uvloop and on asyncio's own loop; partitions and clients use it alike.
"""

from __future__ import annotations

import math
import select
import struct
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import zmq

from xpmem_emu.codec import Buffer

if TYPE_CHECKING:
    import asyncio

Socket = zmq.Socket[bytes]

RECEIVE_BATCH = 128
"""Messages read per turn of the loop."""
LONG = 1 << 14
"""Bytes of a part; a message with a longer one is the last of its turn: it may be a list of which
each element is read."""
IO_THREADS = 2
"""Of libzmq, in a partition. Each encrypts and decrypts what passes through it, a frame in one go,
and who shares it waits as long: so peers share none with clients."""
FOR_PEERS, FOR_CLIENTS = 0b01, 0b10
"""Which of them, as bits. One each: were a socket's connections spread over several, the end of one
could be told before its beginning, and whoever has its descriptor next would be taken for it."""
_COPY_BELOW = 4096
"""Bytes; shorter bulk frames are cheaper to copy than to keep alive."""
_PARTS_MAX = 9
"""Parts of a message that are kept: one more than anybody has a use for, so that too many show. A
message of so many is the last of its turn: it may have had a thousand, each of which was read."""


def new_socket(
    context: zmq.Context[Socket], kind: int, *, queue: int, message_max: int, threads: int = 0
) -> Socket:
    """A socket that never blocks and never grows: `queue` messages per direction and peer, no
    message part above `message_max` bytes, nothing kept after close. `threads`: which of libzmq's
    may serve it, as bits; 0: any."""
    socket = context.socket(kind)
    socket.linger = 0
    socket.set_hwm(queue)
    socket.affinity = threads
    socket.setsockopt(zmq.MAXMSGSIZE, message_max)
    return socket


def receive_now(socket: Socket) -> list[Buffer]:
    """The next message. Raises zmq.Again when there is none. Long parts are not copied."""
    return _with_rest(socket, [socket.recv(zmq.NOBLOCK)])


def receive_from(socket: Socket, signed: bool = False) -> tuple[list[Buffer], int]:
    """The next message, and the descriptor that it came by. `signed`: the socket demands keys, and
    the public key of the sender is put in after the first part. Raises zmq.Again."""
    first = socket.recv(zmq.NOBLOCK, copy=False)
    head: list[Buffer] = [first.bytes]
    if signed:
        head.append(str(first.get("User-Id")).encode())
    return _with_rest(socket, head), int(first.get(zmq.SRCFD))


def wait_for(interest: Sequence[tuple[Socket, int]], seconds: float) -> list[Socket]:
    """The sockets that are ready for what is asked of each; none after `seconds`, and not before:
    pyzmq's own poll comes back early when signals interrupt it."""
    until_s = time.monotonic() + seconds
    poller = select.poll()
    for socket, _ in interest:
        poller.register(int(socket.getsockopt(zmq.FD)), select.POLLIN)
    while True:
        ready = [one for one, events in interest if int(one.getsockopt(zmq.EVENTS)) & events]
        left_s = until_s - time.monotonic()
        if ready or left_s <= 0:
            return ready
        poller.poll(math.ceil(left_s * 1000))


def monitored(frames: Sequence[Buffer]) -> tuple[int, int]:
    """The event and its value in a message of a socket's monitor. zmq's own reader of these takes
    asyncio along, which a client pays for."""
    event, value = struct.unpack("=hi", frames[0])
    return event, value


def _with_rest(socket: Socket, frames: list[Buffer]) -> list[Buffer]:
    more = bool(socket.getsockopt(zmq.RCVMORE))
    while more:
        frame = socket.recv(zmq.NOBLOCK, copy=False)
        more = frame.more  # the socket need not be asked again: there may be a thousand
        if len(frames) < _PARTS_MAX:
            frames.append(frame.bytes if len(frame) < _COPY_BELOW else frame.buffer)
    return frames


def send_now(socket: Socket, frames: Sequence[Buffer]) -> bool:
    """Queue a message without blocking; False: the queue is full or nobody is connected.

    Only immutable parts are sent without a copy: the others may change before they are sent.
    """
    last = len(frames) - 1
    try:
        for index, frame in enumerate(frames):
            flags = zmq.NOBLOCK if index == last else zmq.NOBLOCK | zmq.SNDMORE
            socket.send(frame, flags, copy=len(frame) < _COPY_BELOW or _mutable(frame))
    except zmq.ZMQError as error:
        if error.errno in (zmq.EAGAIN, zmq.EHOSTUNREACH):
            return False
        raise
    return True


def send_tracked(socket: Socket, frames: Sequence[Buffer]) -> zmq.MessageTracker | None:
    """Queue a message without blocking, as `send_now` does. Result: what tells when its last part
    has been sent; None: it was not queued."""
    *heads, last = frames
    try:
        for frame in heads:
            socket.send(frame, zmq.NOBLOCK | zmq.SNDMORE)
        return socket.send(
            bytes(last) if _mutable(last) else last, zmq.NOBLOCK, copy=False, track=True
        )
    except zmq.ZMQError as error:
        if error.errno in (zmq.EAGAIN, zmq.EHOSTUNREACH):
            return None
        raise


def _mutable(frame: Buffer) -> bool:
    owner = frame.obj if isinstance(frame, memoryview) else frame
    return not isinstance(owner, bytes)


ReceiveFrom = Callable[[Socket], list[Buffer]]


class Inbox:
    """Reads a socket whenever there is something to read."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        socket: Socket,
        deliver: Callable[[list[Buffer]], None],
        receive: ReceiveFrom = receive_now,
        delivered: Callable[[], None] = lambda: None,
        batch: int = RECEIVE_BATCH,
    ) -> None:
        """`deliver` gets each message; `delivered` is called after at most `batch` short ones."""
        self._loop = loop
        self._socket = socket
        self._deliver = deliver
        self._receive = receive
        self._delivered = delivered
        self._batch = batch
        self._fd = int(socket.getsockopt(zmq.FD))
        self._again: asyncio.Handle | None = None
        loop.add_reader(self._fd, self._drain)
        self.look_again()

    def look_again(self) -> None:
        """To be called after a send on the same socket."""
        if self._again is None and int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            self._again = self._loop.call_soon(self._drain)

    def read_all(self) -> None:
        """Read what is there now, out of turn."""
        while int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            self._deliver(self._receive(self._socket))

    def close(self) -> None:
        """Stop reading and close the socket."""
        self._loop.remove_reader(self._fd)
        if self._again is not None:
            self._again.cancel()
        self._socket.close()

    def _drain(self) -> None:
        self._again = None
        try:
            for _ in range(self._batch):
                frames = self._receive(self._socket)
                long = len(frames) == _PARTS_MAX or max(map(len, frames)) > LONG
                self._deliver(frames)
                if long or self._socket.closed:
                    return
        except zmq.Again:
            return
        finally:
            self._delivered()
            # Also when `deliver` raised: what is left unread announces itself only once.
            if not self._socket.closed:
                self.look_again()
