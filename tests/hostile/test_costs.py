"""What one client may make a partition do in one go: no more than what it is about."""

import gc
from collections.abc import Callable
from importlib import import_module

import pytest

from tests.clusters import LARGE, SMALL, events_of
from xpmem_emu.errors import KernelError, Signalled
from xpmem_emu.kernel import calls
from xpmem_emu.kernel.interface import Request
from xpmem_emu.mm.transit import TRANSIT_BATCH
from xpmem_emu.sim.cluster import SimCluster
from xpmem_emu.sim.task import SimTask
from xpmem_emu.units import PAGE_SIZE
from xpmem_emu.xpmem import blocks
from xpmem_emu.xpmem.blocks import BLOCK
from xpmem_emu.xpmem.device import PIECES
from xpmem_emu.xpmem.events import CopyServe

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
    assert len(events_of(cluster.trace, CopyServe)) == 2, "one block, read and written"
    beside = cluster.submit(0, calls.XpmemVersion())
    cluster.run_until(lambda: beside.ended)
    assert not copying.ended
    cluster.run_until(lambda: copying.ended)


def test_others_have_their_turn_while_tasks_fill_memory(
    unaudited: SimCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many do: in each step one of them takes frames from others, once."""
    size = SMALL.memory.frames // 4 * PAGE_SIZE
    fillers = [unaudited.spawn(0) for _ in range(4)]
    bases = [task.mmap(2 * size) for task in fillers]
    for task, base in zip(fillers, bases, strict=True):
        task.store(base, bytes(size))
    reclaims = counted(monkeypatch, "xpmem_emu.mm.allocate", "reclaim")
    filling = [
        unaudited.submit(0, calls.Store(pid=task.pid, address=base + size), bytes(48 * PAGE_SIZE))
        for task, base in zip(fillers, bases, strict=True)
    ]
    assert not any(ticket.ended for ticket in filling)
    while not all(ticket.ended for ticket in filling):
        before = reclaims()
        beside = unaudited.submit(0, calls.XpmemVersion())
        assert beside.ended
        unaudited.run_for(1)
        assert reclaims() - before <= 1
    assert [ticket.answer().value for ticket in filling] == [None] * 4


def test_others_have_their_turn_while_a_long_range_is_paged_out(
    make_cluster: Callable[..., SimCluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = make_cluster(1, LARGE, audits=False)
    task, size = cluster.spawn(0), 2 * TRANSIT_BATCH * PAGE_SIZE
    base = task.mmap(1 << 46)
    task.store(base, bytes(size))
    batches = counted(monkeypatch, "xpmem_emu.mm.reclaim", "evict")
    advice = calls.Madvise(task.pid, base, 1 << 46, calls.MADV_PAGEOUT)
    paging_out = cluster.submit(0, advice)
    assert batches() == 1
    # Who asks later does not carry a piece of it: the next one has a step of its own.
    asked = Request(1 << 32, calls.XpmemVersion(), b"")
    assert cluster.kernels[0].step(cluster.now_ns + 1000, asked).replies
    assert batches() == 1
    assert not paging_out.ended
    cluster.run_until(lambda: paging_out.ended)
    assert batches() == 2
    assert cluster.kernels[0].memory.swap.in_use == 2 * TRANSIT_BATCH


def test_a_copy_that_fails_keeps_nothing_of_what_it_read(unaudited: SimCluster) -> None:
    """Also before anybody collects garbage, which may be never."""
    task = unaudited.spawn(0)
    base = task.mmap(4 * BLOCK)
    task.store(base, bytes(PAGE_SIZE))
    apid = task.xpmem_get(task.xpmem_make(base, 8 * BLOCK, 0o666))
    gc.collect()
    gc.disable()
    try:
        with pytest.raises(KernelError, match="nothing is mapped"):
            unaudited.call(0, calls.XpmemCopy(task.pid, apid, 0, apid, 4 * BLOCK, 4 * BLOCK))
        assert not [one for one in gc.get_objects() if type(one) is blocks._Crew]
    finally:
        gc.enable()


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
