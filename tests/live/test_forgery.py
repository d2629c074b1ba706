"""A partition with a valid key that speaks in the name of another: what it costs, and whom."""

from pathlib import Path

import pytest
import zmq

from xpmem_emu import connect
from xpmem_emu.client.blocking import Partition
from xpmem_emu.cluster.keys import Credentials
from xpmem_emu.xpc.frame import ChannelNumber, Header, encode_frame
from xpmem_emu.xpc.messages import Heartbeat
from xpmem_emu.xpc.remote import EPOCH_BITS

from .conftest import Home
from .keyed import Keyed, eventually, make_keys, many_partitions

pytestmark = pytest.mark.live

BEAT = Heartbeat(1 << 40, False, 0, False)


def peer(p0: Partition, partid: int) -> dict[str, object]:
    (row,) = [row for row in p0.look("partitions") if row["peer"] == partid]
    return row


def session(p0: Partition, partid: int) -> tuple[object, ...]:
    row = peer(p0, partid)
    return row["state"], row["incarnation"]


def test_one_forged_message_costs_the_forger_its_session_and_nobody_else_anything(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XPMEM_EMU_CLUSTER", "keyed")
    monkeypatch.setenv("XPMEM_EMU_KEY", "operator")
    folder = make_keys(tmp_path / "keys", partitions=3)
    keyed = Keyed(folder, many_partitions(folder.path, 3))
    server = folder.read().named("p0")
    assert server is not None
    shown = Credentials(folder.pair("p1"), server.public.encode())
    with connect("p0") as p0, connect("p2") as p2, zmq.Context() as context:
        exporter, importer = p0.spawn(), p2.spawn()
        address = exporter.mmap(4096)
        at = importer.xpmem_attach(importer.xpmem_get(exporter.xpmem_make(address, 4096)), 0, 4096)
        importer.store(at, b"p2")
        bystander, forger = session(p0, 2), session(p0, 1)
        # Of a boot that is yet to come: believed, it would shut p2 out until it boots past it.
        later = p2.facts.boot + 1000 << EPOCH_BITS
        with context.socket(zmq.DEALER) as socket, p0.events() as events:
            socket.linger = 0
            shown.show(socket)
            socket.connect(keyed.state.partition("p0").endpoint)
            # In its own name it may claim what it likes: p1 is not shut out by that either.
            socket.send(encode_frame(Header(1, later, 0, ChannelNumber.ADMIN, 0), BEAT))
            socket.send(encode_frame(Header(2, later, 0, ChannelNumber.ADMIN, 0), BEAT))
            lost = next(
                one
                for one in events
                if one["event"] == "xpc:partition" and one["state"] == "DEACTIVATING"
            )
            assert (lost["peer"], lost["reason"]) == (1, "INVALID_PARTID")
            assert "in the name of p2" in str(lost["place"])
        keyed.await_refusal("the key is of partition 1")
        eventually(lambda: session(p0, 1)[0] == "ACTIVE")
        assert session(p0, 1) != forger, "it came back, in a session of its own"
        assert session(p0, 2) == bystander
        assert importer.load(at, 2) == b"p2"
        assert p0.status()["counters"]["bad_frames"] == 0
