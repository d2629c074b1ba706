"""What one client may make a partition do in one go: no more than what it is about."""

from collections.abc import Callable
from importlib import import_module

import pytest

from tests.clusters import LARGE, SMALL
from xpmem_emu.errors import Signalled
from xpmem_emu.kernel import calls
from xpmem_emu.sim.cluster import SimCluster
from xpmem_emu.sim.task import SimTask
from xpmem_emu.units import PAGE_SIZE
from xpmem_emu.xpmem.blocks import BLOCK
from xpmem_emu.xpmem.device import PIECES

SEGMENTS = 3 * PIECES


def shared(cluster: SimCluster, count: int) -> tuple[SimTask, SimTask]:
    """An exporter with so many segments of one page, and an importer that holds it through all."""
    exporter, importer = cluster.spawn(0), cluster.spawn(1)
    base = exporter.mmap(PAGE_SIZE)
    exporter.store(base, b"x")
    for _ in range(count):
        segid = exporter.xpmem_make(base, PAGE_SIZE, 0o666)
        at = importer.xpmem_attach(importer.xpmem_get(segid), 0, PAGE_SIZE)
        assert importer.load(at, 1) == b"x"
    return exporter, importer


def counted(monkeypatch: pytest.MonkeyPatch, path: str, name: str) -> Callable[[], int]:
    """How often a function of a module is called from now on."""
    module = import_module(path)
    right, times = getattr(module, name), []

    def counting(*args: object, **kwargs: object) -> object:
        times.append(1)
        return right(*args, **kwargs)

    monkeypatch.setattr(module, name, counting)
    return lambda: len(times)


def test_the_end_of_a_task_looks_at_each_of_its_segments_once(
    unaudited: SimCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter, _ = shared(unaudited, SEGMENTS)
    looks = counted(monkeypatch, "xpmem_emu.xpmem.recall", "pages_of")
    exporter.exit()
    assert looks() <= 2 * SEGMENTS


@pytest.mark.parametrize("who", [0, 1])
def test_others_have_their_turn_while_a_task_with_many_things_ends(
    unaudited: SimCluster, who: int
) -> None:
    """A call that comes when the end has begun is answered before it is over."""
    task = shared(unaudited, SEGMENTS)[who]
    ending = unaudited.submit(who, calls.Exit(pid=task.pid))
    beside = unaudited.submit(who, calls.XpmemVersion())
    unaudited.run_until(lambda: beside.ended)
    assert not ending.ended
    unaudited.run_until(lambda: ending.ended)
    assert ending.answer().value is None


def test_others_have_their_turn_while_a_task_copies_a_long_range(
    make_cluster: Callable[..., SimCluster],
) -> None:
    cluster = make_cluster(1, LARGE, audits=False)
    task, size = cluster.spawn(0), 16 * BLOCK
    base = task.mmap(2 * size)
    apid = task.xpmem_get(task.xpmem_make(base, 2 * size))
    copy = calls.XpmemCopy(task.pid, apid, 0, apid, size, size)
    copying = cluster.submit(0, copy)
    beside = cluster.submit(0, calls.XpmemVersion())
    cluster.run_until(lambda: beside.ended)
    assert not copying.ended
    cluster.run_until(lambda: copying.ended)


def test_who_fills_memory_and_swap_is_told_so_without_a_look_at_every_frame(
    unaudited: SimCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames, swap = SMALL.memory.frames, SMALL.memory.swap // PAGE_SIZE
    task = unaudited.spawn(0)
    base = task.mmap((frames + swap + 64) * PAGE_SIZE)
    for page in range(frames + swap - 64):
        task.store(base + page * PAGE_SIZE, b"x")
    attempts = counted(monkeypatch, "xpmem_emu.mm.reclaim", "evict")
    with pytest.raises(Signalled, match="out of memory"):
        task.store(base + (frames + swap - 64) * PAGE_SIZE, bytes(128 * PAGE_SIZE))
    assert attempts() < 10
