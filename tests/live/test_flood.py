"""Floods at the console, over tcp with keys: nobody else has to wait, and nothing grows."""

import errno
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import zmq

from xpmem_emu import connect
from xpmem_emu.client import dial
from xpmem_emu.client.blocking import Partition
from xpmem_emu.client.failures import XpmemError
from xpmem_emu.client.loop import IO_THREADS
from xpmem_emu.client.operations import CHUNK
from xpmem_emu.client.wire import BULK_MAX, FRAME_MAX, Ask, Say, pack_envelope, unpack_envelope
from xpmem_emu.kernel import calls
from xpmem_emu.live.console.limits import QUEUED_MAX, UNREAD_MAX
from xpmem_emu.live.console.server import OUTSTANDING_MAX, OUTSTANDING_OF_KEY_MAX
from xpmem_emu.live.console.sessions import SESSIONS_OF_KEY_MAX, SUBSCRIPTIONS_MAX

from .conftest import Home
from .flood import sockets
from .keyed import OPERATOR, make_keys, two_partitions
from .loops import patiently

pytestmark = pytest.mark.live

ROUNDS = 5
REQUESTS = 40_000
SAMPLES = 200
AT_ONCE = 64
SERVED = 1 << 20
"""The id of a request whose answer says that those before it were served."""
ATTEMPTS = 8
P99_RATIO_MAX = 5.0
FLOOD = str(Path(__file__).parent / "flood.py")


@pytest.fixture
def process(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> psutil.Process:
    """p0 of a cluster with keys; this process is its operator."""
    monkeypatch.setenv("XPMEM_EMU_CLUSTER", "keyed")
    monkeypatch.setenv("XPMEM_EMU_KEY", "operator")
    monkeypatch.delenv("XPMEM_EMU_KEYS", raising=False)
    folder = make_keys(tmp_path / "keys")
    folder.make({"flooder": OPERATOR})
    return psutil.Process(two_partitions(folder.path).partition("p0").pid)


@contextmanager
def flooder(count: int, connections: int) -> Iterator["subprocess.Popen[str]"]:
    """The process that floods with `count` requests for each line that it gets."""
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.live.flood", "keyed", str(count), str(connections)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        env=os.environ | {"XPMEM_EMU_KEY": "flooder"},
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        yield child
    finally:
        child.kill()
        child.communicate()


def p99_s(client: Partition) -> float:
    """The 99th percentile of how long a small request takes."""
    taken = []
    for _ in range(SAMPLES):
        begun = time.perf_counter()
        client.look("tasks")
        taken.append(time.perf_counter() - begun)
    return statistics.quantiles(taken, n=100)[98]


def ratio_under_flood(client: Partition, child: "subprocess.Popen[str]") -> float:
    """Flooded p99 by quiet p99, each the median of rounds that take turns."""
    assert child.stdin is not None
    assert child.stdout is not None
    quiet, flooded = [], []
    for _ in range(ROUNDS):
        quiet.append(p99_s(client))
        child.stdin.write("flood\n")
        child.stdin.flush()
        assert child.stdout.readline() == "begin\n"
        flooded.append(p99_s(client))
        assert int(child.stdout.readline()) >= REQUESTS // ROUNDS
    for name, each in (("quiet", quiet), ("flooded", flooded)):
        print(
            f"p99 {name}: {statistics.median(each) * 1e3:.2f} ms of",
            [round(one * 1e3, 2) for one in each],
        )
    return statistics.median(flooded) / statistics.median(quiet)


@pytest.mark.parametrize("connections", [1, 16])
@pytest.mark.timeout(400)
def test_a_flood_of_a_legal_client_does_not_make_another_one_wait(
    process: psutil.Process, connections: int
) -> None:
    """Other work on this machine hits who computes more than who sleeps, so a bad ratio is
    measured again. In one queue for all it would be refused, which no attempt forgives."""
    with connect("p0") as p0, flooder(REQUESTS // ROUNDS, connections) as child:
        p99_s(p0)
        for _ in range(ATTEMPTS):
            ratio = ratio_under_flood(p0, child)
            if ratio <= P99_RATIO_MAX:
                break
        assert ratio <= P99_RATIO_MAX
        assert p0.status()["peers"]["1"]["state"] == "ACTIVE"


def answers(socket: zmq.Socket[bytes], count: int) -> dict[int, object]:
    """The errno, or None, of so many answers by the id of the request."""
    found: dict[int, object] = {}
    while len(found) < count:
        assert socket.poll(20_000), f"{count - len(found)} answers are missing"
        envelope = unpack_envelope(socket.recv_multipart()[0])
        failed = envelope.kind == Say.FAILED
        found[envelope.id] = envelope.body["errno"] if failed else None
    return found


def test_a_client_that_never_reads_holds_nothing_up_and_fills_no_memory(
    process: psutil.Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect("p0") as p0:
        task = p0.spawn()
        address = task.mmap(BULK_MAX)
        task.store(address, b"x" * BULK_MAX)
        monkeypatch.setenv("XPMEM_EMU_KEY", "flooder")
        # With room for many answers, libzmq would read for it.
        monkeypatch.setattr(dial, "_QUEUE", 1)
        (silent,) = sockets("keyed", 1)
        before = process.memory_info().rss
        load = calls.Load(pid=task.pid, address=address, size=BULK_MAX)
        for ident in range(QUEUED_MAX):
            silent.send(pack_envelope(ident, Ask.CALL, load))
        for _ in range(100):
            assert p0.look("tasks")
        assert process.memory_info().rss - before < 3 * UNREAD_MAX
        found = answers(silent, QUEUED_MAX)
        assert set(found.values()) <= {None, errno.EAGAIN}
        assert errno.EAGAIN in found.values()
        silent.send(pack_envelope(1000, Ask.CALL, load))
        assert answers(silent, 1) == {1000: None}
        silent.close()


def test_recent_events_that_nobody_reads_fill_no_memory_either(
    process: psutil.Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect("p0") as p0:
        while len(p0.recent_events()) < 4096:
            for _ in range(256):
                p0.look("tasks")
        monkeypatch.setenv("XPMEM_EMU_KEY", "flooder")
        monkeypatch.setattr(dial, "_QUEUE", 1)
        (silent,) = sockets("keyed", 1)
        before = process.memory_info().rss
        for ident in range(QUEUED_MAX):
            silent.send(pack_envelope(ident, Ask.RECENT, None))
        for _ in range(100):
            assert p0.look("tasks") == []
        assert process.memory_info().rss - before < 2 * UNREAD_MAX
        found = answers(silent, QUEUED_MAX)
        assert set(found.values()) == {None, errno.EAGAIN}
        silent.close()


def test_what_is_too_big_is_refused_with_its_errno(process: psutil.Process) -> None:
    with connect("p0") as p0:
        task = p0.spawn()
        address = task.mmap(4 * BULK_MAX)
        for call, bulk in (
            (calls.Load(pid=task.pid, address=address, size=BULK_MAX + 1), b""),
            (calls.Store(pid=task.pid, address=address), bytes(BULK_MAX + 1)),
        ):
            with pytest.raises(XpmemError) as caught:
                p0.call(call, bulk)
            assert caught.value.errno == errno.E2BIG
            assert "pieces" in caught.value.remedy
        assert CHUNK <= BULK_MAX
        data = os.urandom(2 * CHUNK)
        task.store(address, data)
        assert task.load(address, len(data)) == data
        (raw,) = sockets("keyed", 1)
        raw.send_multipart(
            [pack_envelope(5, Ask.CALL, calls.Store(pid=1, address=0)), *[b"x"] * 1000]
        )
        assert answers(raw, 1) == {5: errno.EBADMSG}
        store = pack_envelope(6, Ask.CALL, calls.Store(pid=task.pid, address=address))
        raw.send_multipart([store, bytes(BULK_MAX + 1)])
        assert answers(raw, 1) == {6: errno.E2BIG}
        raw.send_multipart([store, bytes(FRAME_MAX + 1)])
        patiently(lambda: not raw.poll(0, zmq.POLLOUT), "it is cut")
        raw.close()
        assert p0.look("tasks")


def io_work_s(process: psutil.Process) -> dict[int, float]:
    """Processor time of each I/O thread, by its number."""
    found = {}
    for task in Path(f"/proc/{process.pid}/task").iterdir():
        name = (task / "comm").read_text().strip()
        if name.startswith("ZMQbg/IO/"):
            number = int(name.removeprefix("ZMQbg/IO/"))
            found[number] = int((task / "schedstat").read_text().split()[0]) / 1e9
    return found


def test_what_clients_move_is_no_work_of_the_thread_that_peers_have(
    process: psutil.Process,
) -> None:
    with connect("p0") as p0:
        task = p0.spawn()
        address = task.mmap(BULK_MAX)
        before = io_work_s(process)
        for _ in range(64):
            task.store(address, bytes(BULK_MAX))
        after = io_work_s(process)
        of_peers, of_clients = (after[number] - before[number] for number in range(IO_THREADS))
        assert of_clients > 4 * of_peers


def test_a_key_has_only_so_many_sessions(process: psutil.Process) -> None:
    with connect("p0") as p0:
        opened = sockets("keyed", SESSIONS_OF_KEY_MAX - 1)
        with pytest.raises(XpmemError) as caught:
            connect("p0")
        assert caught.value.errno == errno.EUSERS
        for socket in opened:
            socket.close()
        assert p0.look("tasks") == []


def test_a_key_has_only_so_many_calls_unanswered(
    process: psutil.Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls that wait for a fork that does not end: the threads of the kernel are for everybody."""
    with connect("p0") as p0:
        exporter, importer = p0.spawn(), p0.spawn()
        segid = exporter.xpmem_make(exporter.mmap(4096), 4096)
        at = importer.xpmem_attach(importer.xpmem_get(segid), 0, 4096)
        p0.call(calls.XpmemForkBegin(pid=exporter.pid))
        monkeypatch.setenv("XPMEM_EMU_KEY", "flooder")
        many = sockets("keyed", OUTSTANDING_OF_KEY_MAX // OUTSTANDING_MAX + 1)
        load = calls.Load(pid=importer.pid, address=at, size=1)
        refused = []
        for socket in many:
            for ident in range(OUTSTANDING_MAX):
                socket.send(pack_envelope(ident, Ask.CALL, load))
                if ident % AT_ONCE == AT_ONCE - 1:  # or there would be too many that only wait
                    socket.send(pack_envelope(SERVED, Ask.PING, None))
                    while (said := unpack_envelope(socket.recv_multipart()[0])).id != SERVED:
                        refused.append(said.body)
        why = f"{OUTSTANDING_OF_KEY_MAX} calls of this client are unanswered"
        assert [each["cause"] for each in refused] == [why] * (
            len(many) * OUTSTANDING_MAX - OUTSTANDING_OF_KEY_MAX
        )
        assert p0.look("tasks")
        p0.call(calls.XpmemForkEnd(pid=exporter.pid))
        for socket in many:
            socket.close()


def test_a_key_has_only_so_many_subscriptions(
    process: psutil.Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XPMEM_EMU_KEY", "flooder")
    one, other = sockets("keyed", 2)

    def asked(
        socket: zmq.Socket[bytes], kind: Ask, body: object = None, ident: int = SERVED
    ) -> tuple[str, Any]:
        socket.send(pack_envelope(ident, kind, body))
        while (said := unpack_envelope(socket.recv_multipart()[0])).kind == Say.EVENTS:
            pass
        assert said.id == ident
        return said.kind, said.body

    for ident in range(SUBSCRIPTIONS_MAX):
        assert asked(one, Ask.SUBSCRIBE, ident=ident)[0] == Say.DONE
    kind, body = asked(other, Ask.SUBSCRIBE)
    assert (kind, body["errno"]) == (Say.FAILED, errno.EUSERS)
    assert asked(one, Ask.UNSUBSCRIBE, 0)[0] == Say.DONE
    assert asked(other, Ask.SUBSCRIBE)[0] == Say.DONE
    for socket in (one, other):
        socket.close()
