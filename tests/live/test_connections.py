"""Descriptors: what a partition may open is divided, and who comes beyond it is turned away."""

import asyncio
import errno
import resource
import socket as sockets
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import Mock

import psutil
import pytest
import zmq

from xpmem_emu import connect
from xpmem_emu.client.failures import XpmemError
from xpmem_emu.client.line import Line
from xpmem_emu.client.loop import Inbox, Socket
from xpmem_emu.client.wire import Hello
from xpmem_emu.codec import Buffer
from xpmem_emu.errors import KernelError
from xpmem_emu.live.console import connections as module
from xpmem_emu.live.console.connections import LEAD, SURPLUS_MAX, Connections, Refusals
from xpmem_emu.live.room import CLIENTS_MAX, SESSIONS_MAX, room_for

from .conftest import FAKE, Up
from .keyed import eventually

LIMIT = 1024
MOST = 5
BACKLOG = 101
"""Connections that the system holds for libzmq before it accepts them."""


def limited(files: int) -> tuple[str, ...]:
    """The program of a partition that may have so many open files and no more."""
    return ("/bin/sh", "-c", f'ulimit -n {files}; exec "$@"', "sh", *FAKE)


@pytest.fixture
def many_files() -> Iterator[None]:
    """This process may have more than its partition."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@dataclass
class Listening:
    """A socket with its connections, served by a loop that runs when it is told to."""

    path: Path
    loop: asyncio.AbstractEventLoop
    connections: Connections
    refusals: Refusals
    received: list[bytes]
    stack: ExitStack

    def call(self) -> sockets.socket:
        """A connection that says nothing."""
        made = self.stack.enter_context(sockets.socket(sockets.AF_UNIX))
        # A connect that finds no room waits that long; Python's own timeout would not make it wait.
        made.setsockopt(sockets.SOL_SOCKET, sockets.SO_SNDTIMEO, struct.pack("ll", 0, 500_000))
        made.connect(str(self.path))
        return made

    def speaker(self) -> Socket:
        """A connection that says something."""
        context = self.stack.enter_context(zmq.Context())
        made = self.stack.enter_context(context.socket(zmq.DEALER))
        made.linger = 0
        made.reconnect_ivl = -1
        made.connect(f"ipc://{self.path}")
        made.send(b"hello")
        return made

    def run_until(self, condition: Callable[[], bool]) -> None:
        async def until() -> None:
            async with asyncio.timeout(20):
                while not condition():
                    await asyncio.sleep(0)

        self.loop.run_until_complete(until())


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[Listening]:
    with ExitStack() as stack:
        loop = stack.enter_context(closing(asyncio.new_event_loop()))
        context: zmq.Context[Socket] = stack.enter_context(zmq.Context())
        socket, refusals, received = context.socket(zmq.ROUTER), Refusals(), list[bytes]()
        socket.linger = 0
        made = Connections(loop, context, socket, "clients", False, MOST, refusals)
        stack.callback(made.close)
        socket.bind(f"ipc://{tmp_path}/socket")

        def deliver(frames: list[Buffer]) -> None:
            received.append(bytes(frames[0]))
            made.keep(received[-1])

        inbox = Inbox(loop, socket, deliver, made.receive)
        stack.callback(inbox.close)
        yield Listening(tmp_path / "socket", loop, made, refusals, received, stack)


def is_cut(connection: sockets.socket) -> bool:
    """Whether the other end closed it: what is there to read ends."""
    connection.setblocking(False)
    try:
        while connection.recv(4096):
            pass
    except BlockingIOError:
        return False
    except ConnectionResetError:
        pass
    return True


def test_no_more_are_accepted_than_we_hear_of_in_time(listening: Listening) -> None:
    held: list[sockets.socket] = []
    with suppress(BlockingIOError):
        while len(held) < 2 * LEAD:
            held.append(listening.call())
    assert LEAD <= len(held) <= LEAD + BACKLOG + 1
    # All that waited is heard of in the end, and all of it is surplus but the first few.
    listening.run_until(lambda: listening.refusals.count == len(held) - MOST)
    listening.run_until(lambda: len(listening.connections) == MOST)
    assert [is_cut(one) for one in held] == [False] * MOST + [True] * (len(held) - MOST)


def test_the_surplus_is_cut_also_while_more_and_more_is_heard_of(listening: Listening) -> None:
    held = [listening.call() for _ in range(LEAD)]
    # As if each had come as the one before was read: no turn of the loop comes in between.
    listening.connections.hear()
    heard = len(held) - MOST
    assert heard - SURPLUS_MAX < listening.refusals.count < heard
    listening.run_until(lambda: listening.refusals.count == heard)


def test_who_becomes_nobody_is_cut(listening: Listening, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.5)
    speaker, silent = listening.speaker(), listening.call()
    listening.run_until(lambda: is_cut(silent))
    listening.run_until(lambda: len(listening.connections) == 1)
    speaker.send(b"still here")
    listening.run_until(lambda: len(listening.received) == 2)
    listening.connections.estrange(listening.received[0])
    listening.run_until(lambda: len(listening.connections) == 0)
    assert listening.refusals.count == 2


def test_the_limits_are_what_descriptors_allow() -> None:
    assert room_for(1, 20_000).clients == CLIENTS_MAX
    assert room_for(1, 20_000).sessions == SESSIONS_MAX
    few = room_for(1, LIMIT)
    assert few.sessions == few.clients // 2
    assert LIMIT - LEAD - 150 < few.clients + few.peers < LIMIT - LEAD - 50
    with pytest.raises(KernelError, match="254 peers needs") as caught:
        room_for(254, LIMIT)
    assert caught.value.errno == errno.EMFILE


@pytest.mark.live
@pytest.mark.usefixtures("many_files")
def test_a_crowd_of_silent_connections_ends_no_partition(up: Up) -> None:
    process = psutil.Process(up(1, command=limited(LIMIT)).partitions[0].pid)
    with connect("p0", "t") as p0, ExitStack() as stack:
        most = p0.facts.limits["connections"]
        path = p0.endpoint.removeprefix("ipc://")
        refused = p0.boot_facts().traffic["refused"]
        held = []
        for _ in range(2 * LIMIT):
            one = stack.enter_context(sockets.socket(sockets.AF_UNIX))
            one.connect(path)
            held.append(one)
        task = p0.spawn()
        task.store(0, b"alive")
        assert task.load(0, 5) == b"alive"
        eventually(lambda: sum(map(is_cut, held)) >= 2 * LIMIT - most)
        eventually(lambda: p0.boot_facts().traffic["refused"] - refused >= 2 * LIMIT - most)
        assert process.num_fds() < LIMIT
    eventually(lambda: process.num_fds() < 100)
    with connect("p0", "t") as p0:
        assert p0.status()["partid"] == 0


@pytest.mark.live
def test_more_clients_than_there_can_be_are_told_so(up: Up) -> None:
    up(1, command=limited(700), lease_s=300)
    with connect("p0", "t") as p0, ExitStack() as stack:

        def greet(session: int) -> None:
            line = Line(p0.endpoint, Hello(session=f"{session:016x}", client="raw"), 30, None)
            stack.callback(line.close)

        most, connections = p0.facts.limits["sessions"], p0.facts.limits["connections"]
        sessions = map(greet, range(most))
        with pytest.raises(XpmemError) as caught:
            list(sessions)
        assert caught.value.errno == errno.EUSERS

        def full() -> bool:
            """Who is turned away may count until it is known to be gone: then a place is left."""
            try:
                for _ in range(connections):
                    greet(0)
                connect("p0", "t")
            except ConnectionRefusedError as refused:
                return "as many connections" in str(refused)
            except XpmemError:
                return False
            return False

        eventually(full)
        assert p0.status()["partid"] == 0


def known(connections: Connections) -> int:
    connections._inbox.read_all()
    return len(connections)


def test_nobody_is_cut_in_place_of_a_connection_that_has_ended(tmp_path: Path) -> None:
    """Whoever comes next may have its descriptor, and libzmq tells of the end before that."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        refusals = Mock()
        connections = Connections(Mock(), context, socket, "clients", False, 4, refusals)
        socket.bind(f"ipc://{tmp_path}/p0")
        with context.socket(zmq.DEALER) as client:
            client.connect(f"ipc://{tmp_path}/p0")
            eventually(lambda: known(connections) == 1)
            ((descriptor, connection),) = connections._all.items()
            client.send(b"")
            socket.recv_multipart()
            client.close()
        eventually(lambda: connections._inbox._socket.poll(0) != 0)
        connections._cut(descriptor, connection, "it has said nothing")
        assert (len(connections), refusals.tell.mock_calls) == (0, [])
        connections.close()
