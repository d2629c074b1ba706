"""Arenas and life files: memory that is shared by files, and what proves that a process is gone."""

import asyncio
import errno
import gc
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from xpmem_emu.cluster import liveness
from xpmem_emu.cluster.liveness import LifeLock, LifeWatch, holders, life_path, living, require_dead
from xpmem_emu.errors import KernelError
from xpmem_emu.live.arena import Arena, ArenaMemory

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


def test_a_peer_that_comes_back_needs_no_name_of_its_arena(tmp_path: Path) -> None:
    arena = Arena(tmp_path, 0, 7, 4096)
    descriptor = peer_memory(tmp_path, 0, 7).describe()
    peer = peer_memory(tmp_path, 1)
    peer.map(0, 7, descriptor)
    arena.path.unlink()
    peer.unmap(0)
    arena.view[0:4] = b"back"
    assert bytes(peer.map(0, 7, descriptor)[0:4]) == b"back"


def test_an_arena_without_a_name_is_found_at_the_process_that_holds_it(tmp_path: Path) -> None:
    folder = tmp_path / "arenas"
    folder.mkdir()
    arena = Arena(folder, 0, 7, 4096)
    arena.view[0:4] = b"lost"
    owner = peer_memory(folder, 0, 7)
    shutil.rmtree(folder)
    folder.mkdir()
    later = peer_memory(folder, 1)
    assert bytes(later.map(0, 7, owner.describe())[0:4]) == b"lost"


def test_the_arena_of_a_process_that_ended_is_let_go(tmp_path: Path, refusal: Refusal) -> None:
    arena = Arena(tmp_path, 0, 7, 4096)
    descriptor = peer_memory(tmp_path, 0, 7).describe()
    peer = peer_memory(tmp_path, 1)
    peer.map(0, 7, descriptor)
    arena.remove()
    peer.gone(0, 6)
    peer.map(0, 7, descriptor)
    peer.gone(0, 7)
    arena.view.release()
    del arena
    gc.collect()
    assert refusal(peer.map, 0, 7, descriptor).errno == errno.ENOENT


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
    # It looks at every process of this machine, and none of them is a partition of this folder.
    monkeypatch.setattr(liveness, "require_dead", lambda *_: None)
    bytes_of_ids = []
    for number in range(256):
        monkeypatch.setattr(time, "time", lambda at=number * 2.56: 1e9 + at)
        lock = LifeLock(tmp_path, 4)
        bytes_of_ids.append(lock.boot & 0xFF)
        lock.release()
    assert len(set(bytes_of_ids)) == 256


def test_a_partition_lives_once(tmp_path: Path, refusal: Refusal) -> None:
    LifeLock(tmp_path, 4)
    error = refusal(LifeLock, tmp_path, 4)
    assert error.errno == errno.EEXIST
    assert f"pid {os.getpid()}" in error.cause


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


class Watched:
    """A watch of partition 4 in a folder, and the boots that it proved gone."""

    def __init__(self, loop: asyncio.AbstractEventLoop, folder: Path) -> None:
        self.gone: list[int] = []
        self.watch = LifeWatch(loop, folder, lambda partid, life: self.gone.append(life.boot))

    def look(self) -> list[int]:
        self.watch.link_down(4)
        self.watch._look()
        return self.gone


def test_only_the_end_of_a_process_proves_that_it_is_gone(
    tmp_path: Path, loop: asyncio.AbstractEventLoop
) -> None:
    watched, life = Watched(loop, tmp_path), LifeLock(tmp_path, 4)
    watched.watch.met(4, life.boot)
    assert watched.look() == []
    living_now = living(life_path(tmp_path, 4))
    assert living_now is not None
    assert living_now.pid == os.getpid()
    life.release()
    assert watched.look() == [life.boot]
    assert living(life_path(tmp_path, 4)) is None
    watched.watch.close()


def test_a_later_boot_that_got_the_same_lock_proves_the_end_of_the_one_before(
    tmp_path: Path, loop: asyncio.AbstractEventLoop
) -> None:
    watched, first = Watched(loop, tmp_path), LifeLock(tmp_path, 4)
    watched.watch.met(4, first.boot)
    first.release()
    second = LifeLock(tmp_path, 4)
    watched.watch.met(4, second.boot)
    assert watched.look() == [first.boot]
    second.release()
    watched.watch.close()


def test_a_new_file_of_the_same_name_proves_nothing_about_who_holds_the_old_one(
    tmp_path: Path, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, after, old = Watched(loop, tmp_path), Watched(loop, tmp_path), LifeLock(tmp_path, 4)
    before.watch.met(4, old.boot)
    life_path(tmp_path, 4).unlink()
    after.watch.met(4, old.boot)
    # Such as one of another container, which cannot see the process that holds on.
    monkeypatch.setattr(liveness, "open_files", lambda folder: iter(()))
    later = time.time() + 1  # the clock numbers boots where no file does
    monkeypatch.setattr(time, "time", lambda: later)
    new = LifeLock(tmp_path, 4)
    assert new.boot > old.boot
    new.release()
    assert before.look() == after.look() == []
    old.release()
    assert before.look() == [old.boot], "by the file that it held on to"
    assert after.look() == [], "it never saw that file"
    before.watch.close()
    after.watch.close()


def test_a_second_boot_over_a_process_whose_file_lost_its_name_is_refused(
    tmp_path: Path, refusal: Refusal, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = LifeLock(tmp_path, 4)
    later = time.time() + 1  # the clock numbers boots where no file does, and one process plays two
    monkeypatch.setattr(time, "time", lambda: later)
    (holder,) = holders(tmp_path)
    assert (holder.partid, holder.life.pid, holder.lost) == (4, os.getpid(), False)
    life_path(tmp_path, 4).unlink()
    (holder,) = holders(tmp_path)
    assert holder.lost
    for again in (LifeLock, require_dead):
        error = refusal(again, tmp_path, 4)
        assert error.errno == errno.EEXIST
        assert f"pid {os.getpid()}" in error.cause
    first.release()
    require_dead(tmp_path, 4)
    LifeLock(tmp_path, 4).release()


SAME_MOMENT = """
import sys, time
from pathlib import Path
from xpmem_emu.cluster import liveness
time.time = lambda: 1e9
liveness.require_dead = lambda *_: None
lock = liveness.LifeLock(Path(sys.argv[1]), 4)
print("held", flush=True)
sys.stdin.read()
"""


def test_two_processes_that_began_at_the_same_moment_are_both_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1e9)
    mine = LifeLock(tmp_path, 4)
    life_path(tmp_path, 4).unlink()
    with subprocess.Popen(
        [sys.executable, "-c", SAME_MOMENT, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        found = holders(tmp_path)
        assert {each.life.pid for each in found} == {os.getpid(), other.pid}
        assert {each.life.boot for each in found} == {mine.boot}
        other.communicate()
    mine.release()
