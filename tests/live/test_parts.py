"""Parts of the harness without processes: folders, arenas, life files, topologies, streams."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from xpmem_emu.errors import KernelError
from xpmem_emu.live import life
from xpmem_emu.live.arena import Arena, ArenaMemory
from xpmem_emu.live.console_wire import EventBatch, Hello
from xpmem_emu.live.life import LifeLock, gone_up_to, life_path, living
from xpmem_emu.live.paths import make_own_folder, run_folder
from xpmem_emu.live.sessions import Sessions
from xpmem_emu.live.stream import Stream
from xpmem_emu.live.topology import load_image, numbered, read_topology
from xpmem_emu.shipped import find_toml, shipped_names
from xpmem_emu.trace import Record

from .fake_kernel import TaskBorn

Refusal = Callable[..., KernelError]


# -- arenas -----------------------------------------------------------------------------------


def peer_memory(folder: Path, partid: int, boot: int = 1) -> ArenaMemory:
    return ArenaMemory(folder, partid, boot, lambda *_: None)


def test_a_peer_sees_what_the_owner_writes_and_the_other_way_round(tmp_path: Path) -> None:
    arena = Arena(tmp_path, 0, 7, 8192)
    view = peer_memory(tmp_path, 1).map(0, 7, peer_memory(tmp_path, 0, 7).describe())
    arena.view[0:2] = b"hi"
    view[4096:4100] = b"back"
    assert (bytes(view[0:2]), bytes(arena.view[4096:4100])) == (b"hi", b"back")


def test_a_mapping_outlives_the_file(tmp_path: Path) -> None:
    arena = Arena(tmp_path, 0, 7, 4096)
    arena.view[0:4] = b"kept"
    peer = peer_memory(tmp_path, 1)
    view = peer.map(0, 7, peer_memory(tmp_path, 0, 7).describe())
    arena.remove()
    peer.unmap(0)
    assert bytes(view[0:4]) == b"kept"


def test_a_new_boot_never_uses_the_arena_of_an_old_one(tmp_path: Path) -> None:
    old = Arena(tmp_path, 0, 7, 4096)
    old.view[0:3] = b"old"
    new = Arena(tmp_path, 0, 8, 4096)
    assert bytes(new.view[0:3]) == bytes(3)
    assert not old.path.exists()


@pytest.mark.parametrize("descriptor", ["", "../../etc/passwd", "0" * 32 + "/p0.7.arena"])
def test_a_descriptor_of_another_folder_is_refused(
    tmp_path: Path, descriptor: str, refusal: Refusal
) -> None:
    Arena(tmp_path, 0, 7, 4096)
    assert refusal(peer_memory(tmp_path, 1).map, 0, 7, descriptor).errno == errno.EXDEV


def test_a_descriptor_fits_into_the_reserved_page(tmp_path: Path) -> None:
    assert len(peer_memory(tmp_path, 255, (1 << 40) - 1).describe()) <= 240


def test_an_arena_that_is_gone_is_a_refusal(tmp_path: Path, refusal: Refusal) -> None:
    descriptor = peer_memory(tmp_path, 0, 7).describe()
    assert refusal(peer_memory(tmp_path, 1).map, 0, 7, descriptor).errno == errno.ENOENT


# -- life files -------------------------------------------------------------------------------


def test_boot_numbers_increase_even_within_one_second(tmp_path: Path) -> None:
    boots = []
    for _ in range(3):
        lock = LifeLock(tmp_path, 4)
        boots.append(lock.boot)
        lock.release()
    assert boots == sorted(set(boots))


def test_256_boots_in_a_row_have_ids_of_their_own_whenever_they_happen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bytes_of_ids = []
    for number in range(256):
        monkeypatch.setattr(life.time, "time", lambda at=number * 2.56: 1e9 + at)
        lock = LifeLock(tmp_path, 4)
        bytes_of_ids.append(lock.boot & 0xFF)
        lock.release()
    assert len(set(bytes_of_ids)) == 256


def test_a_partition_lives_once(tmp_path: Path, refusal: Refusal) -> None:
    LifeLock(tmp_path, 4)
    error = refusal(LifeLock, tmp_path, 4)
    assert error.errno == errno.EEXIST
    assert f"pid {os.getpid()}" in error.cause


def test_only_the_end_of_a_process_proves_that_it_is_gone(tmp_path: Path) -> None:
    assert gone_up_to(tmp_path, 4) == 0
    life = LifeLock(tmp_path, 4)
    assert gone_up_to(tmp_path, 4) == life.boot - 1
    living_now = living(life_path(tmp_path, 4))
    assert living_now is not None
    assert living_now.pid == os.getpid()
    life.release()
    assert gone_up_to(tmp_path, 4) == life.boot
    assert living(life_path(tmp_path, 4)) is None


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


# -- shipped data and topologies --------------------------------------------------------------


def test_every_shipped_image_and_topology_can_be_read() -> None:
    assert {"altix", "laptop"} <= set(shipped_names("images"))
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
    assert "altix, laptop" in error.remedy


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "partition"),
        ("[[partition]]\nname = 'p0'", "partition[0]: "),
        ("[[partition]]\nname = 'p0'\npartid = 300", "partition[0].partid"),
        ("[[partition]]\nname = 'p0'\npartid = 0\ncolour = 'red'", "colour"),
        ("[[partition]]\nname = 'p0'\npartid = 0\nendpoint = 'udp://x'", "partition[0].endpoint"),
        ("[[partition]]\nname='a'\npartid=0\n[[partition]]\nname='b'\npartid=0",
         "partition[1].partid: 0 is partition[0]'s already"),
        ("nonsense", "not TOML"),
    ],
)  # fmt: skip
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
    assert refusal(numbered, count).errno == errno.EINVAL
    assert numbered(256)[-1].partid == 255


# -- the event stream and sessions ------------------------------------------------------------


def records(first: int, count: int) -> list[Record]:
    return [Record(n, n, 0, "t", TaskBorn(pid=n)) for n in range(first, first + count)]


def test_a_slow_subscriber_loses_events_and_is_told_how_many() -> None:
    stream = Stream(remember=10, queue_max=4, log=None)
    batches: list[EventBatch] = []
    room = [False]

    def transmit(batch: EventBatch) -> bool:
        if room[0]:
            batches.append(batch)
        return room[0]

    stream.subscribe("slow", transmit)
    stream.publish(records(1, 7))
    assert not stream.flush()
    room[0] = True
    assert stream.flush()
    stream.publish(records(8, 1))
    assert stream.flush()
    assert [[one["record"] for one in batch.events] for batch in batches] == [[1, 2, 3, 4], [8]]
    assert [batch.dropped for batch in batches] == [3, 0]


def test_a_full_disk_ends_the_event_log_and_nothing_else() -> None:
    with open("/dev/full", "wb", buffering=0) as full:
        stream = Stream(remember=10, queue_max=4, log=full)
        stream.publish(records(1, 2))
        stream.publish(records(3, 1))
    assert [one["record"] for one in stream.recent()] == [1, 2, 3]


def test_any_connection_of_a_session_keeps_it_alive() -> None:
    sessions = Sessions(lease_ns=10)
    hello = Hello(session="ab" * 8, client="c")
    session = sessions.hello(0, b"one", hello)
    assert sessions.hello(5, b"two", hello) is session
    assert sessions.silent(15) == []
    assert sessions.silent(16) == [session]
    sessions.heard(16, b"one")
    assert sessions.silent(20) == []


def test_an_ended_session_leaves_only_its_own_tasks_and_no_connection() -> None:
    sessions = Sessions(lease_ns=10)
    mine = sessions.hello(0, b"one", Hello(session="ab" * 8, client="c"))
    other = sessions.hello(0, b"two", Hello(session="cd" * 8, client="d"))
    for pid in (1, 2, 3):
        sessions.own(pid, mine)
    sessions.disown(1)
    sessions.own(2, other)
    assert sessions.end(mine) == [3]
    assert sessions.heard(1, b"one") is None
    assert sessions.owner(2) is other


def test_a_connection_belongs_to_one_session(refusal: Refusal) -> None:
    sessions = Sessions(lease_ns=10)
    sessions.hello(0, b"one", Hello(session="ab" * 8, client="c"))
    error = refusal(sessions.hello, 0, b"one", Hello(session="cd" * 8, client="d"))
    assert error.errno == errno.EISCONN
