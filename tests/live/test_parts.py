"""Parts of the harness without processes: folders, arenas, life files, topologies, streams."""

import errno
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import pytest
import zmq

from xpmem_emu import codec
from xpmem_emu.client import loop
from xpmem_emu.client.loop import receive_now
from xpmem_emu.client.wire import EventBatch, Hello
from xpmem_emu.cluster import paths
from xpmem_emu.cluster.paths import arena_folder, arena_note, make_own_folder, run_folder
from xpmem_emu.cluster.topology import load_image, numbered_partitions, read_topology
from xpmem_emu.errors import KernelError
from xpmem_emu.kernel.calls import Kill
from xpmem_emu.kernel.interface import Done, Outcome
from xpmem_emu.live.console.server import KILLED_AT_ONCE, Console
from xpmem_emu.live.console.sessions import ConsoleSessions
from xpmem_emu.live.console.stream import StreamServer
from xpmem_emu.live.endpoint import MESSAGE_BATCH, XpcEndpoint
from xpmem_emu.shipped import find_toml, shipped_names
from xpmem_emu.trace import Record

from .fake_kernel import TaskBorn
from .keyed import eventually

Refusal = Callable[..., KernelError]


# -- folders ----------------------------------------------------------------------------------


def test_own_folders_are_closed_to_others(tmp_path: Path) -> None:
    make_own_folder(tmp_path / "root" / "cluster")
    assert (tmp_path / "root" / "cluster").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "root").stat().st_mode & 0o777 == 0o700


def test_a_folder_of_somebody_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: Refusal
) -> None:
    (tmp_path / "root").mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert refusal(make_own_folder, tmp_path / "root" / "cluster").errno == errno.EPERM


def test_a_link_in_place_of_a_folder_is_refused(tmp_path: Path, refusal: Refusal) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "root").symlink_to(tmp_path / "elsewhere")
    assert refusal(make_own_folder, tmp_path / "root" / "cluster").errno == errno.EPERM


@pytest.mark.parametrize("name", ["", "..", "a/b", "x" * 65, "-"])
def test_a_cluster_name_cannot_leave_the_run_folder(name: str, refusal: Refusal) -> None:
    assert refusal(run_folder, name).errno == errno.EINVAL


GIBIBYTE = 1 << 30


@pytest.mark.parametrize(
    ("tmpfs", "disk", "place"),
    [
        (8 * GIBIBYTE, 100 * GIBIBYTE, "/dev/shm"),
        (GIBIBYTE, GIBIBYTE // 2, "/dev/shm"),
        (GIBIBYTE >> 4, 100 * GIBIBYTE, "/tmp"),
        (0, GIBIBYTE, "/tmp"),
        (GIBIBYTE >> 4, GIBIBYTE >> 5, "/dev/shm"),
    ],
)
def test_arenas_are_where_there_is_room_for_them(
    monkeypatch: pytest.MonkeyPatch, tmpfs: int, disk: int, place: str
) -> None:
    monkeypatch.delenv("XPMEM_EMU_ARENAS", raising=False)
    sizes = {"/dev/shm": tmpfs, "/tmp": disk}
    monkeypatch.setattr(paths, "_size", lambda folder: sizes[str(folder)])
    assert arena_folder("c").is_relative_to(place)
    assert arena_folder("c") != run_folder("c")
    assert ("/tmp" in arena_note()) == (place == "/tmp")
    monkeypatch.setenv("XPMEM_EMU_ARENAS", "/mine")
    assert (str(arena_folder("c")), arena_note()) == ("/mine/c", "")


# -- shipped data and topologies --------------------------------------------------------------


def test_every_shipped_image_and_topology_can_be_read() -> None:
    assert {"altix", "laptop", "patient"} <= set(shipped_names("images"))
    assert {load_image(name).name for name in shipped_names("images")} == set(
        shipped_names("images")
    )
    assert all(read_topology(name) for name in shipped_names("topologies"))


def test_the_shipped_images_carry_the_deadlines_of_the_protocol_page() -> None:
    second = 1_000_000_000
    altix, laptop = load_image("altix").deadlines, load_image("laptop").deadlines
    assert (altix.fault_attempt, altix.fault_tries) == (28 * second, 2)
    assert (altix.recall_attempt, altix.recall_tries) == (28 * second, 2)
    assert (laptop.fault_attempt, laptop.fault_tries) == (second // 2, 3)
    assert (laptop.bte_timeout, laptop.bte_retries) == (second // 4, 1)


def test_an_unknown_image_is_answered_with_those_that_are(refusal: Refusal) -> None:
    error = refusal(find_toml, "images", "cray")
    assert error.errno == errno.ENOENT
    assert "altix, laptop, patient" in error.remedy


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "neither partition nor machine"),
        ("[[partition]]\nname = 'p0'", "partition[0]: "),
        ("[[partition]]\nname = 'p0'\npartid = 4096", "partition[0].partid"),
        ("[[partition]]\nname = 'p0'\npartid = 0\ncolour = 'red'", "colour"),
        ("[[partition]]\nname = 'p0'\npartid = 0\nendpoint = 'udp://x'", "partition[0].endpoint"),
        (
            "[[partition]]\nname='a'\npartid=0\n[[partition]]\nname='b'\npartid=0",
            "partition[1].partid: 0 is partition[0]'s already",
        ),
        ("nonsense", "not TOML"),
    ],
)
def test_a_topology_error_names_the_file_and_the_key(
    tmp_path: Path, text: str, why: str, refusal: Refusal
) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    error = refusal(read_topology, str(path))
    assert error.errno == errno.EINVAL
    assert str(path) in error.cause
    assert why in error.cause


def test_images_of_a_topology_are_found_beside_it(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('name = "mine"')
    path = tmp_path / "topology.toml"
    path.write_text("[[partition]]\nname = 'p0'\npartid = 0\nimage = 'mine.toml'")
    assert load_image(read_topology(str(path))[0].image).name == "mine"


def test_the_memory_and_domain_of_an_image_can_be_overridden() -> None:
    image = load_image("laptop", domain="Z", memory=1 << 20)
    assert (image.domain, image.memory.size, image.memory.swap) == ("Z", 1 << 20, 64 << 20)


def test_an_impossible_memory_override_is_refused(refusal: Refusal) -> None:
    assert "memory.size" in refusal(lambda: load_image("laptop", memory=4097)).cause


@pytest.mark.parametrize("count", [0, 257])
def test_partids_end_at_255(count: int, refusal: Refusal) -> None:
    assert refusal(numbered_partitions, count).errno == errno.EINVAL
    assert numbered_partitions(256)[-1].partid == 255


# -- the event stream and sessions ------------------------------------------------------------


def records(first: int, count: int) -> list[Record]:
    return [Record(n, n, 0, "t", TaskBorn(pid=n)) for n in range(first, first + count)]


def recent(stream: StreamServer) -> list[int]:
    return [event["record"] for event in codec.decode(codec.encode(stream.recent()))]


def test_a_slow_subscriber_loses_events_and_is_told_how_many() -> None:
    stream = StreamServer(remember=10, queue_max=4, log=None)
    batches: list[EventBatch] = []
    room = [False]

    def pack(batch: EventBatch) -> bytes:
        batches.append(batch)
        return b"message"

    stream.subscribe("slow", pack, lambda message: room[0])
    stream.publish(records(1, 7))
    for _ in range(3):
        assert not stream.flush()
    assert len(batches) == 1, "who does not read costs nothing"
    room[0] = True
    assert stream.flush()
    stream.publish(records(8, 1))
    assert stream.flush()
    assert [[one["record"] for one in batch.events] for batch in batches] == [[1, 2, 3, 4], [8]]
    assert [batch.dropped for batch in batches] == [3, 0]


def test_of_a_message_of_a_thousand_parts_few_are_kept_and_one_question_is_asked() -> None:
    asked: list[int] = []

    class Asked(zmq.Socket[bytes]):
        def getsockopt(self, option: int) -> int | bytes:
            asked.append(option)
            return super().getsockopt(option)

    with (
        zmq.Context() as context,
        context.socket(zmq.PAIR) as near,
        Asked(context, zmq.PAIR) as far,
    ):
        near.bind("inproc://parts")
        far.connect("inproc://parts")
        near.send_multipart([b"%d" % number for number in range(1000)])
        near.send(b"next")
        assert receive_now(far) == [b"%d" % number for number in range(9)]
        assert receive_now(far) == [b"next"]
    assert asked == [zmq.RCVMORE] * 2


def read_in_turns(messages: list[list[bytes]]) -> list[list[bytes]]:
    """What an inbox reads in each of its turns: the last parts of messages."""
    turns: list[Callable[[], None]] = []
    read: list[list[bytes]] = [[]]
    with zmq.Context() as context, context.socket(zmq.PAIR) as near:
        far = context.socket(zmq.PAIR)
        near.bind("inproc://turns")
        far.connect("inproc://turns")
        for message in messages:
            near.send_multipart(message)
        inbox = loop.Inbox(
            Mock(call_soon=turns.append),
            far,
            lambda frames: read[-1].append(bytes(frames.pop())),
            delivered=lambda: read.append([]),
        )
        while turns:
            turns.pop(0)()
        inbox.close()
    return read[:-1]


def test_a_message_of_too_many_parts_is_the_last_that_is_read_in_its_turn() -> None:
    found = read_in_turns([[b"%d" % parts] * parts for parts in (1, 8, 1000, 9, 2)])
    assert found == [[b"1", b"8", b"1000"], [b"9"], [b"2"]]


def test_a_long_message_is_the_last_that_is_read_in_its_turn() -> None:
    short, long = bytes(loop.LONG), bytes(loop.LONG + 1)
    found = read_in_turns([[b"a", short], [long, b"b"], [b"c"]])
    assert found == [[short, b"b"], [b"c"]]


def test_clients_have_their_turn_while_a_peer_floods(tmp_path: Path) -> None:
    heard: list[bytes] = []
    with zmq.Context() as context:
        endpoint = XpcEndpoint(
            context,
            Mock(),
            f"ipc://{tmp_path}/p0",
            {},
            queue=100,
            message_max=100,
            deliver=lambda frames: heard.append(bytes(frames[0])),
            door=None,
            connections_max=4,
            refusals=Mock(),
            forged=Mock(),
        )
        with context.socket(zmq.DEALER) as peer:
            peer.linger = -1
            peer.connect(f"ipc://{tmp_path}/p0")
            for number in range(5 * MESSAGE_BATCH):
                peer.send(b"%d" % number)
            eventually(lambda: connected(endpoint) == 1)
        # It is told of the end of a connection when all that came by it is there.
        eventually(lambda: connected(endpoint) == 0)
        for turn in range(1, 6):
            endpoint._inbox._drain()
            assert len(heard) == turn * MESSAGE_BATCH
        endpoint.close()
    assert heard == [b"%d" % number for number in range(5 * MESSAGE_BATCH)]


def connected(endpoint: XpcEndpoint) -> int:
    endpoint._connections._inbox.read_all()
    return len(endpoint._connections)


def test_a_full_disk_ends_the_event_log_and_nothing_else() -> None:
    with open("/dev/full", "wb", buffering=0) as full:
        stream = StreamServer(remember=10, queue_max=4, log=full)
        stream.publish(records(1, 2))
        stream.publish(records(3, 1))
    assert recent(stream) == [1, 2, 3]


def test_an_event_is_packed_once_however_many_ask_for_the_recent_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    packed: list[int] = []
    flat = Record.flat

    def counting(record: Record) -> dict[str, object]:
        packed.append(record.sequence)
        return flat(record)

    monkeypatch.setattr(Record, "flat", counting)
    stream = StreamServer(remember=10, queue_max=4, log=None)
    assert recent(stream) == []
    for first, several, expected in (
        (1, 4, range(1, 5)),
        (5, 8, range(3, 13)),
        (13, 0, range(3, 13)),
    ):
        stream.publish(records(first, several))
        assert recent(stream) == recent(stream) == list(expected)
    stream.publish(records(13, 25))
    assert recent(stream) == list(range(28, 38))
    assert packed == [*range(1, 13), *range(28, 38)]


def test_any_connection_of_a_session_keeps_it_alive() -> None:
    sessions = ConsoleSessions(lease_ns=10, most=100)
    hello = Hello(session="ab" * 8, client="c")
    session = sessions.hello(0, b"one", hello)
    assert sessions.hello(5, b"two", hello) is session
    assert sessions.silent(15) == []
    assert sessions.silent(16) == [session]
    sessions.heard(16, b"one")
    assert sessions.silent(20) == []


def test_subscriptions_are_counted_by_key_where_there_is_one() -> None:
    sessions = ConsoleSessions(lease_ns=10, most=100)
    for number, key in enumerate(("k", "k", "other", "", "")):
        hello = Hello(session=f"{number:016x}", client="c")
        sessions.hello(0, bytes([number]), hello, key).subscriptions.add((b"", number))
    assert [sessions.subscriptions(one) for one in sessions.all()] == [2, 2, 1, 1, 1]


def test_an_ended_session_leaves_only_its_own_tasks_and_no_connection() -> None:
    sessions = ConsoleSessions(lease_ns=10, most=100)
    mine = sessions.hello(0, b"one", Hello(session="ab" * 8, client="c"))
    other = sessions.hello(0, b"two", Hello(session="cd" * 8, client="d"))
    for pid in (1, 2, 3):
        sessions.own(pid, mine)
    sessions.disown(1)
    sessions.own(2, other)
    assert sessions.end(mine) == [3]
    assert sessions.heard(1, b"one") is None
    assert sessions.owner(2) is other


def test_others_have_their_turn_while_the_tasks_of_sessions_end() -> None:
    turns: list[Callable[[], None]] = []
    killed: list[int] = []
    ended: list[str] = []

    def call(kill: Kill, _bulk: bytes, answer: Callable[[Outcome], None]) -> None:
        killed.append(kill.pid)
        answer(Done(None))

    def call_soon(step: Callable[[], None]) -> Mock:
        turns.append(step)
        return Mock()

    with zmq.Context() as context:
        loop = Mock(call_soon=call_soon)
        socket = context.socket(zmq.ROUTER)
        console = Console(
            loop, socket, Mock(call=call), Mock(), Mock(), 1.0, Mock(), None, Mock(), 10
        )
        sessions = console._sessions
        for number in range(2):
            session = sessions.hello(0, b"%d" % number, Hello(session=f"{number:016x}", client="c"))
            for pid in range(KILLED_AT_ONCE):
                sessions.own(number * KILLED_AT_ONCE + pid, session)
            sessions.own(100 + number, session)
            console._end(session, "said bye", partial(ended.append, session.name))
        assert killed == list(range(KILLED_AT_ONCE))
        for step in turns:
            before = len(killed)
            step()
            assert len(killed) - before <= KILLED_AT_ONCE
        console.close()
    assert sorted(killed) == [*range(2 * KILLED_AT_ONCE), 100, 101]
    assert ended == [f"{number:016x}" for number in range(2)]


def test_a_connection_belongs_to_one_session(refusal: Refusal) -> None:
    sessions = ConsoleSessions(lease_ns=10, most=100)
    sessions.hello(0, b"one", Hello(session="ab" * 8, client="c"))
    error = refusal(sessions.hello, 0, b"one", Hello(session="cd" * 8, client="d"))
    assert error.errno == errno.EISCONN
