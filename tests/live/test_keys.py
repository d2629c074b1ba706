"""Keys on tcp endpoints: who is let in, as whom, and that a closed door stays closed."""

import asyncio
import errno
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zmq

from xpmem_emu import connect
from xpmem_emu.backend import processes
from xpmem_emu.client.awaited import connect_async
from xpmem_emu.client.blocking import Partition
from xpmem_emu.client.dial import CONNECT_TIMEOUT_S
from xpmem_emu.client.failures import XpmemError
from xpmem_emu.cluster.keys import Capability, Client, Credentials, Peer
from xpmem_emu.xpc.frame import ChannelNumber, Header, encode_frame
from xpmem_emu.xpc.messages import Heartbeat

from .conftest import Home
from .keyed import MEBIBYTE, OPERATOR, Keyed, eventually, free_ports, make_keys, two_partitions
from .proxy import Proxy

pytestmark = pytest.mark.live


@pytest.fixture
def keyed(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Keyed:
    monkeypatch.setenv("XPMEM_EMU_CLUSTER", "keyed")
    monkeypatch.setenv("XPMEM_EMU_KEY", "operator")
    monkeypatch.delenv("XPMEM_EMU_KEYS", raising=False)
    folder = make_keys(tmp_path / "keys")
    return Keyed(folder, two_partitions(folder.path))


def client_as(name: str, monkeypatch: pytest.MonkeyPatch, partition: str = "p0") -> Partition:
    """A connection with the key `name`."""
    monkeypatch.setenv("XPMEM_EMU_KEY", name)
    try:
        return connect(partition)
    finally:
        monkeypatch.setenv("XPMEM_EMU_KEY", "operator")


def refusal_of(*arguments: str) -> XpmemError:
    """What `connect` answers, within its own time limit."""
    begun = time.monotonic()
    with pytest.raises(XpmemError) as caught:
        connect(*arguments)
    assert time.monotonic() - begun < CONNECT_TIMEOUT_S + 5
    assert caught.value.remedy
    return caught.value


@contextmanager
def listening_proxy() -> Iterator[tuple[Proxy, int]]:
    """A proxy, and the port that it forwards to."""
    (port,) = free_ports(1)
    with Proxy(port) as proxy:
        yield proxy, port


def share(p0: Partition, p1: Partition) -> None:
    """Let p1 read and write memory of p0."""
    exporter, importer = p0.spawn(), p1.spawn()
    address = exporter.mmap(MEBIBYTE)
    exporter.store(address, b"hello")
    apid = importer.xpmem_get(exporter.xpmem_make(address, MEBIBYTE))
    at = importer.xpmem_attach(apid, 0, MEBIBYTE)
    assert importer.load(at, 5) == b"hello"
    importer.xpmem_detach(at)
    importer.kill()
    exporter.kill()


def can_share(p0: Partition, p1: Partition) -> bool:
    try:
        share(p0, p1)
    except XpmemError:
        return False
    return True


def names_of_events(p0: Partition) -> set[str]:
    return {str(one["event"]) for one in p0.recent_events()}


def stale_frames(p0: Partition) -> int:
    return int(p0.look("partitions")[0]["stale_frames"])


@contextmanager
def peer_socket(keyed: Keyed, shown: Credentials | None) -> Iterator[zmq.Socket[bytes]]:
    """What wants to be a peer of p0."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.setsockopt(zmq.IMMEDIATE, 1)
        if shown is not None:
            shown.show(socket)
        socket.connect(keyed.state.partition("p0").endpoint)
        yield socket


def test_with_keys_everything_works_and_nothing_can_be_read_on_the_way(keyed: Keyed) -> None:
    port = int(keyed.state.partition("p0").console.rpartition(":")[2])
    folder = str(keyed.folder.path)
    with (
        Proxy(port) as proxy,
        Partition("p0", f"tcp://127.0.0.1:{proxy.port}", keys=folder) as p0,
        connect("p1") as p1,
    ):
        exporter, importer = p0.spawn(), p1.spawn()
        address = exporter.mmap(MEBIBYTE)
        exporter.store(address, b"nobody may read this")
        segid = exporter.xpmem_make(address, MEBIBYTE)
        at = importer.xpmem_attach(importer.xpmem_get(segid), 0, MEBIBYTE)
        assert importer.load(at, 20) == b"nobody may read this"
        said = b"".join(piece for pieces in proxy.said for piece in pieces)
        assert len(said) > 500
        assert b"nobody may read this" not in said
        assert b"xpmem_make" not in said
    assert keyed.refusals() == []


def test_a_client_that_is_not_let_in_finds_a_closed_door(
    keyed: Keyed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    endpoint = keyed.state.partition("p0").console
    assert refusal_of(endpoint).errno == errno.ECONNREFUSED
    # Whether it failed or left before it failed is a matter of who is faster.
    eventually(lambda: len(keyed.refusals()) == 1)

    wrong_server = make_keys(tmp_path / "wrong")
    monkeypatch.setenv("XPMEM_EMU_KEYS", str(wrong_server.path))
    assert refusal_of("p0").errno == errno.ECONNREFUSED
    eventually(lambda: len(keyed.refusals()) >= 2)

    listed = keyed.folder.allow_path.read_bytes()
    monkeypatch.setenv("XPMEM_EMU_KEYS", str(keyed.folder.path))
    keyed.folder.make({"mallory": OPERATOR})
    keyed.folder.allow_path.write_bytes(listed)
    monkeypatch.setenv("XPMEM_EMU_KEY", "mallory")
    assert refusal_of("p0").errno == errno.ECONNREFUSED
    keyed.await_refusal("the key is on no list")

    monkeypatch.setenv("XPMEM_EMU_KEY", "p1")
    assert refusal_of("p0").errno == errno.ECONNREFUSED
    keyed.await_refusal("the key of p1 opens other doors")

    monkeypatch.setenv("XPMEM_EMU_KEY", "operator")
    with connect("p0") as p0:
        assert p0.boot_facts().traffic["refused"] >= 4


def test_a_revoked_client_is_shut_out_while_it_is_connected(
    keyed: Keyed, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyed.folder.make({"alice": Client(5, [], Capability.USE)})
    with connect("p0") as p0, client_as("alice", monkeypatch) as alice:
        alice.spawn("hers")
        copied = keyed.folder.pair("alice")
        keyed.folder.revoke("alice")
        eventually(lambda: p0.look("tasks") == [])
        with pytest.raises(XpmemError) as caught:
            alice.status()
        assert caught.value.errno == errno.EKEYREVOKED
    public = keyed.folder.read().named("p0")
    assert public is not None
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.setsockopt(zmq.IMMEDIATE, 1)
        Credentials(copied, public.public.encode()).show(socket)
        socket.connect(keyed.state.partition("p0").console)
        keyed.await_refusal("the key of alice was revoked")
        assert not socket.poll(100, zmq.POLLOUT)


def test_a_peer_that_is_not_let_in_finds_a_closed_door(keyed: Keyed, tmp_path: Path) -> None:
    stranger = make_keys(tmp_path / "strangers").pair("p1")
    p0 = keyed.folder.read().named("p0")
    assert p0 is not None
    server = p0.public.encode()
    wrong = Credentials(keyed.folder.pair("p1"), stranger.public)
    attempts: dict[str, list[Credentials | None]] = {
        "a key": [None, wrong],
        "the key is on no list": [Credentials(stranger, server)],
        "the key of operator opens other doors": [
            Credentials(keyed.folder.pair("operator"), server)
        ],
    }
    for why, shown in attempts.items():
        for one in shown:
            before = len(keyed.refusals())
            with peer_socket(keyed, one) as socket:
                keyed.await_refusal(why, since=before)
                assert not socket.poll(0, zmq.POLLOUT)
    with connect("p0") as client:
        assert client.status()["peers"]["1"]["state"] == "ACTIVE"


def test_a_partition_speaks_for_itself_only(keyed: Keyed) -> None:
    p0 = keyed.folder.read().named("p0")
    assert p0 is not None
    shown = Credentials(keyed.folder.pair("p1"), p0.public.encode())
    beat = Heartbeat(1, False, 0, False)
    with connect("p0") as client, peer_socket(keyed, shown) as socket:
        received = client.boot_facts().traffic["refused"]
        for source in (0, 2):
            socket.send(encode_frame(Header(source, 1 << 16, 0, ChannelNumber.ADMIN, 0), beat))
        socket.send(b"\xff nonsense")
        eventually(lambda: client.boot_facts().traffic["refused"] == received + 3)
        assert keyed.refusals().count("the key is of partition 1") == 3
        assert client.status()["counters"]["bad_frames"] == 0


def test_a_revoked_partition_is_given_up_and_comes_back_with_a_new_key(keyed: Keyed) -> None:
    with connect("p0") as p0:
        keyed.folder.revoke("p1")
        eventually(lambda: p0.status()["peers"]["1"]["state"] != "ACTIVE")
        assert any("was revoked" in why for why in keyed.refusals())
        keyed.folder.make({"p1": Peer(1)})
        processes.reboot("keyed", "p1")
        eventually(lambda: p0.status()["peers"]["1"]["state"] == "ACTIVE")


def test_who_a_client_is_comes_from_its_key_and_not_from_what_it_says(
    keyed: Keyed, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyed.folder.make(
        {"alice": Client(5, [50, 51], Capability.USE), "eve": Client(6, [], Capability.LOOK)}
    )
    with (
        connect("p0") as p0,
        client_as("alice", monkeypatch) as alice,
        client_as("eve", monkeypatch) as eve,
    ):
        hers, roots = alice.spawn(), p0.spawn()
        uids = {row["pid"]: row["uid"] for row in eve.look("tasks")}
        assert uids == {hers.pid: 5, roots.pid: 0}
        address = roots.mmap(4096)
        roots.store(address, b"secret")
        roots.xpmem_make(address, 4096, 0o600)
        denied: list[Callable[[], object]] = [
            lambda: alice.spawn(uid=6),
            lambda: alice.spawn(gids=[52]),
            lambda: alice.spawn(cap_ipc_owner=True),
            lambda: alice.task(roots.pid).load(address, 6),
            lambda: alice.task(roots.pid).kill(),
            lambda: alice.reclaim(10),
            lambda: alice.panic("because"),
            lambda: alice.fault_add("link p0->p1 drop"),
            lambda: alice.audit(),
            lambda: eve.spawn(),
            lambda: eve.task(hers.pid).load(address, 6),
        ]
        for act in denied:
            with pytest.raises(XpmemError) as caught:
                act()
            assert caught.value.errno == errno.EPERM
        child = hers.fork()
        assert child.mmap(4096)
        assert alice.fault_list() == eve.fault_list() == []


def test_the_awaited_client_shows_its_key_too(keyed: Keyed) -> None:
    async def main() -> None:
        async with await connect_async("p0") as p0:
            assert (await p0.status())["partid"] == 0
        with pytest.raises(XpmemError) as caught:
            await connect_async(keyed.state.partition("p0").console)
        assert caught.value.errno == errno.ECONNREFUSED

    asyncio.run(main())


def test_a_recording_of_the_wire_says_nothing_when_it_is_played_again(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XPMEM_EMU_CLUSTER", "keyed")
    folder = make_keys(tmp_path / "keys")
    with listening_proxy() as (proxy, port):
        keyed = Keyed(folder, two_partitions(folder.path, proxy.port, port))
        with connect("p0") as p0, connect("p1") as p1:
            share(p0, p1)
            assert sum(map(len, proxy.said[0])) > 1000
            with proxy.replay(0):
                eventually(lambda: len(keyed.refusals()) == 1)
            before = p0.boot_facts().boot
            proxy.inject(0, proxy.said[0][-1])
            keyed.await_refusal("sent before")
            # Who can write into the stream can cut it: a new one is made by itself.
            eventually(lambda: can_share(p0, p1))
            assert p0.status()["counters"]["bad_frames"] == 0
            assert p0.boot_facts().boot == before
            eventually(lambda: p0.status()["peers"]["1"]["state"] == "ACTIVE")


def test_old_messages_without_keys_are_known_by_their_number_and_incarnation(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XPMEM_EMU_CLUSTER", "keyed")
    with listening_proxy() as (proxy, port):
        state = two_partitions(None, proxy.port, port)
        with connect("p0") as p0:
            with connect("p1") as p1:
                share(p0, p1)
            rows = {kind: p0.look(kind) for kind in ("segments", "permits", "pins")}
            with proxy.replay(0):
                eventually(lambda: "xpc:duplicate" in names_of_events(p0))
                assert {kind: p0.look(kind) for kind in rows} == rows
            processes.reboot("keyed", "p1")
            eventually(lambda: p0.status()["peers"]["1"]["state"] == "ACTIVE")
            stale = stale_frames(p0)
            with proxy.replay(0):
                eventually(lambda: stale_frames(p0) > stale)
                assert p0.status()["peers"]["1"]["state"] == "ACTIVE"
        assert state.keys == ""
