"""The console: sessions and their tasks, backpressure, events, and bytes of no meaning."""

import errno
import random
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import msgpack
import psutil
import pytest
import zmq

from xpmem_emu.client.blocking import Partition, connect
from xpmem_emu.client.failures import XpmemError
from xpmem_emu.client.wire import CONSOLE_VERSION, Ask, Hello, Say, pack_envelope, unpack_envelope
from xpmem_emu.cluster.state import read_state
from xpmem_emu.kernel import calls
from xpmem_emu.live.console.server import OUTSTANDING_MAX

from .conftest import Up

pytestmark = pytest.mark.live

CLIENT = """
import sys
from xpmem_emu import connect
p0 = connect("p0", "t")
p0.spawn("owned").fork()
p0.spawn("free", detached=True)
print("ready", flush=True)
sys.stdin.read()
"""


def names(partition: Partition) -> list[str]:
    return [row["name"] for row in partition.look("tasks")]


@contextmanager
def raw_socket(cluster: str = "t") -> Iterator[zmq.Socket[bytes]]:
    """A connection to p0 that speaks bytes."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.connect(read_state(cluster).partition("p0").console)
        yield socket


def say(socket: zmq.Socket[bytes], ident: int, kind: str, body: object = None) -> None:
    socket.send(pack_envelope(ident, kind, body))


def answer(socket: zmq.Socket[bytes]) -> tuple[int, str, object]:
    assert socket.poll(5000), "no answer"
    envelope = unpack_envelope(socket.recv_multipart()[0])
    return envelope.id, envelope.kind, envelope.body


def greet(socket: zmq.Socket[bytes]) -> None:
    say(socket, 1, Ask.HELLO, Hello(session="ab" * 8, client="raw"))
    assert answer(socket)[:2] == (1, Say.DONE)


def test_a_killed_client_loses_its_tasks_and_their_children_but_not_detached_ones(up: Up) -> None:
    up(1, lease_s=1.5)
    with connect("p0", "t") as p0, p0.events() as events:
        client = psutil.Popen([sys.executable, "-c", CLIENT], stdin=-1, stdout=-1)
        try:
            assert client.stdout.readline() == b"ready\n"
            assert sorted(names(p0)) == ["free", "owned", "owned'"]
        finally:
            client.send_signal(signal.SIGKILL)
            client.wait(10)
        gone = [next(one for one in events if one["event"] == "fake:task_gone") for _ in range(2)]
        assert names(p0) == ["free"]
    assert {f"client -c[{client.pid}] went away"} == {one["reason"] for one in gone}


def test_closing_a_connection_returns_when_its_tasks_are_gone(up: Up) -> None:
    up(1)
    with connect("p0", "t") as watcher:
        with connect("p0", "t") as p0:
            p0.spawn("owned")
            assert names(watcher) == ["owned"]
        assert names(watcher) == []


def test_a_silent_client_that_lives_keeps_its_tasks(up: Up) -> None:
    up(1, lease_s=1)
    with connect("p0", "t") as p0, connect("p0", "t") as silent, p0.events() as events:
        silent.spawn("kept")
        bystander = psutil.Popen(["sleep", "2.5"])
        bystander.wait(10)
        assert names(p0) == ["kept"]
        silent.close()
        assert next(one for one in events if one["event"] == "fake:task_gone")


def test_a_stopped_partition_does_not_take_everybody_for_gone_when_it_continues(up: Up) -> None:
    process = psutil.Process(up(1, lease_s=1).partitions[0].pid)
    with connect("p0", "t") as p0:
        p0.spawn("kept")
        process.suspend()
        psutil.Popen(["sleep", "2"]).wait(10)
        process.resume()
        assert names(p0) == ["kept"]


def test_a_connection_without_hello_is_told_to_say_it(up: Up) -> None:
    up(1)
    with raw_socket() as socket:
        say(socket, 7, Ask.CALL, calls.Status())
        ident, kind, body = answer(socket)
        assert (ident, kind) == (7, Say.FAILED)
        assert isinstance(body, dict)
        assert body["errno"] == errno.ENOTCONN


@pytest.mark.parametrize(
    ("frames", "why"),
    [
        ([msgpack.packb([CONSOLE_VERSION + 1, 9, "ping", None])], "[0]: Expected `int`"),
        ([msgpack.packb([CONSOLE_VERSION, 9, "dance", None])], "unknown kind"),
        ([msgpack.packb([CONSOLE_VERSION, 9, "call", {"op": "no_such"}])], "no_such"),
        ([msgpack.packb([CONSOLE_VERSION, 9, "call", {"op": "munmap", "pid": 1}])], "missing"),
        (
            [msgpack.packb([CONSOLE_VERSION, 9, "call", {"op": "exit", "pid": -1}])],
            ": pid: Expected",
        ),
        ([msgpack.packb([CONSOLE_VERSION, 9, "ping", None, 0])], "at most length 4"),
    ],
)
def test_a_malformed_request_that_has_an_id_is_answered(
    up: Up, frames: list[bytes], why: str
) -> None:
    up(1)
    with raw_socket() as socket:
        greet(socket)
        socket.send_multipart(frames)
        ident, kind, body = answer(socket)
        assert (ident, kind) == (9, Say.FAILED)
        assert isinstance(body, dict)
        assert body["errno"] == errno.EBADMSG
        assert why in body["cause"]
        assert "$" not in body["cause"], "where it stands in a message says nothing to people"


def test_mutated_frames_are_counted_and_hurt_nobody(up: Up) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    process = psutil.Process(up(1).partitions[0].pid)
    with connect("p0", "t") as p0, raw_socket() as socket:
        p0.spawn("witness")
        greet(socket)
        mutate_and_send(socket, dice, 2_000)
        before = process.memory_info().rss
        mutate_and_send(socket, dice, 20_000)
        assert process.memory_info().rss - before < 20 << 20
        assert names(p0) == ["witness"]
        assert p0.boot_facts().traffic["console_malformed"] > 5_000


def mutate_and_send(socket: zmq.Socket[bytes], dice: random.Random, count: int) -> None:
    """`count` requests, each with some bytes changed, cut or repeated; answers are read away."""
    samples = [
        pack_envelope(5, Ask.CALL, calls.Store(pid=1, address=64)),
        pack_envelope(6, Ask.CALL, calls.Load(pid=1, address=64, size=64)),
        pack_envelope(7, Ask.PING, None),
        pack_envelope(8, Ask.UNSUBSCRIBE, 3),
        pack_envelope(9, Ask.CALL, calls.XpmemTunable(name="faults_after", value=3)),
    ]
    for number in range(count):
        frame = bytearray(dice.choice(samples))
        for _ in range(dice.randrange(1, 4)):
            frame[dice.randrange(len(frame))] = dice.randrange(256)
        cut = dice.randrange(len(frame)) if dice.random() < 0.2 else len(frame)
        frames = [bytes(frame[:cut])] * dice.choice([1, 1, 1, 2, 3])
        # The queue is bounded: wait for room as any client has to.
        socket.send_multipart(frames)
        while socket.poll(0 if number % 64 else 20):
            socket.recv_multipart()


def test_a_client_may_have_only_so_many_calls_unanswered(up: Up) -> None:
    up(1)
    with raw_socket() as socket:
        greet(socket)
        for ident in range(OUTSTANDING_MAX + 1):
            say(socket, 100 + ident, Ask.CALL, calls.Describe(what="wait"))
            if ident == OUTSTANDING_MAX // 2:  # or there might be too many that only wait
                say(socket, 1, Ask.PING)
                assert answer(socket)[0] == 1
        ident, kind, body = answer(socket)
        assert (ident, kind) == (100 + OUTSTANDING_MAX, Say.FAILED)
        assert isinstance(body, dict)
        assert body["cause"] == f"{OUTSTANDING_MAX} calls of this client are unanswered"
        with connect("p0", "t") as p0:
            p0.call(calls.Describe(what="go"))
        assert sorted(answer(socket)[0] for _ in range(OUTSTANDING_MAX)) == list(
            range(100, 100 + OUTSTANDING_MAX)
        )


def test_a_subscriber_gets_the_events_in_order_and_without_gaps(up: Up) -> None:
    up(1)
    with connect("p0", "t") as p0, p0.events() as events:
        born = [p0.spawn().pid for _ in range(50)]
        seen = [next(events)]
        while seen[-1].get("pid") != born[-1]:
            seen.append(next(events))
        # On a loaded machine the partition also tells how late it is.
        assert [one["pid"] for one in seen if one["event"] == "fake:task_born"] == born
        of_kernel = [one["record"] for one in seen if one["event"] != "fabric:still"]
        first = of_kernel[0]
        assert of_kernel == list(range(first, first + len(of_kernel)))


def test_recent_events_are_there_for_who_comes_late(up: Up) -> None:
    up(1)
    with connect("p0", "t") as p0:
        pid = p0.spawn().pid
        last = [one for one in p0.recent_events() if one["event"].startswith("fake:")][-1]
    assert (last["event"], last["pid"], last["partid"]) == ("fake:task_born", pid, 0)


def test_the_event_log_has_a_line_of_json_per_event(up: Up) -> None:
    state = up(1, event_log=True)
    with connect("p0", "t") as p0:
        pid = p0.spawn().pid
        path = state.partitions[0].log.replace("p0.log", "p0.events.jsonl")
        with open(path, "rb") as file:
            assert f'"event":"fake:task_born","pid":{pid}}}'.encode() in file.read()


def test_a_call_fails_at_once_when_its_partition_dies(up: Up) -> None:
    process = psutil.Process(up(1).partitions[0].pid)
    with connect("p0", "t", timeout=60) as p0, p0.events() as events:
        process.kill()
        with pytest.raises(ConnectionError) as caught:
            next(events)
        assert isinstance(caught.value, XpmemError)
        assert caught.value.errno == errno.ECONNRESET
        with pytest.raises(XpmemError):
            p0.status()
