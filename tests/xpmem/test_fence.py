"""What the fence of a lost importer promises to whoever takes pages away: when mprotect, fork and
their like have returned, a store that wakes late changes nothing that is in use."""

from collections.abc import Callable

import pytest

from tests.xpmem.world import PAGE, PAGES, World
from xpmem_emu.kernel import breaking, calls
from xpmem_emu.kernel.calls import MAP_SHARED, PROT_READ, Call
from xpmem_emu.mm import pte
from xpmem_emu.sim.cluster import SimCluster
from xpmem_emu.sim.task import SimTask
from xpmem_emu.units import SECOND

SIZE = PAGES * PAGE
Make = Callable[..., SimCluster]
Operation = Callable[[World], Call]


def shared_file(cluster: SimCluster) -> World:
    """The usual world, but the exporter's memory is a file."""
    world = World(cluster)
    cluster.call(0, calls.Creat("f", SIZE))
    world.base = world.exporter.mmap(SIZE, flags=MAP_SHARED, file="f")
    world.exporter.store(world.base, b"exporter" * (SIZE // 8))
    world.segid = world.exporter.xpmem_make(world.base, SIZE, 0o640)
    return world


def in_hand(cluster: SimCluster, importer: SimTask, at: int) -> list[int]:
    """The frames of the home that the importer's entries name, read raw."""
    task = cluster.kernels[importer.partid].tasks.get(importer.pid)
    assert task is not None
    entries = task.mm.page_table.read_range(at >> 12, PAGES).tolist()
    return [int(entry) >> pte.FRAME_SHIFT & pte.LOCAL_MASK for entry in entries]


def store_late(cluster: SimCluster, frames: list[int]) -> None:
    """The stopped process goes on with its stores, at this very moment."""
    arena = cluster.arena(0, cluster.boot_of(0))
    for frame in frames:
        arena[frame * PAGE : (frame + 1) * PAGE] = b"!" * PAGE


KEEPING: dict[str, Operation] = {
    "mprotect": lambda w: calls.Mprotect(w.exporter.pid, w.base, SIZE, PROT_READ),
    "fork": lambda w: calls.Fork(w.exporter.pid),
    "mremap": lambda w: calls.Mremap(w.exporter.pid, w.base, SIZE, SIZE, 3, 0x7000_0000),
    "remove": lambda w: calls.XpmemRemove(w.exporter.pid, w.segid),
    "close": lambda w: calls.XpmemClose(w.exporter.pid),
    "fork_begin": lambda w: calls.XpmemForkBegin(w.exporter.pid),
}


@pytest.mark.parametrize("lost_before", [False, True])
@pytest.mark.parametrize("why", KEEPING)
def test_when_the_call_has_returned_a_late_store_changes_no_live_page(
    cluster: SimCluster, why: str, lost_before: bool
) -> None:
    world = World(cluster)
    at = world.attached()
    before = world.importer.load(at, SIZE)
    frames = in_hand(cluster, world.importer, at)
    cluster.call(0, breaking.FailpointSet("xpmem.fence.before_migrate", "1*delay(5ms)"))
    cluster.hang(1)
    if lost_before:
        cluster.run_until(lambda: cluster.kernels[0].xpc.incarnation(1) is None)
    world.do(world.exporter, KEEPING[why](world))
    store_late(cluster, frames)
    there = 0x7000_0000 if why == "mremap" else world.base
    assert world.exporter.load(there, SIZE) == before
    for kernel_task in cluster.kernels[0].tasks:
        if kernel_task.parent == world.exporter.pid:
            assert SimTask(cluster, 0, kernel_task.pid).load(there, SIZE) == before
    cluster.resume(1)
    cluster.run_until_active()


@pytest.mark.parametrize("why", ["writeback", "munmap", "exit"])
def test_a_file_is_out_of_reach_when_the_call_has_returned(cluster: SimCluster, why: str) -> None:
    world = shared_file(cluster)
    at = world.attached()
    before = world.importer.load(at, SIZE)
    frames = in_hand(cluster, world.importer, at)
    cluster.call(0, breaking.FailpointSet("xpmem.fence.before_migrate", "1*delay(5ms)"))
    cluster.hang(1)
    operations: dict[str, Operation] = {
        "writeback": lambda w: calls.Writeback("f"),
        "munmap": lambda w: calls.Munmap(w.exporter.pid, w.base, SIZE),
        "exit": lambda w: calls.Exit(w.exporter.pid),
    }
    world.do(world.exporter, operations[why](world))
    store_late(cluster, frames)
    assert cluster.call(0, calls.Pread("f", 0, SIZE)).bulk == before
    cluster.resume(1)
    cluster.run_until_active()
    cluster.call(0, calls.Unlink("f"))


def test_what_a_lost_holder_stored_after_the_writeback_is_dirty(cluster: SimCluster) -> None:
    """The fence copies what the frame holds when it gets there, and the disk has not seen it."""
    world = shared_file(cluster)
    at = world.attached()
    world.importer.load(at, SIZE)
    frames = in_hand(cluster, world.importer, at)
    cluster.call(0, breaking.FailpointSet("xpmem.fence.before_migrate", "1*delay(5ms)"))
    cluster.hang(1)
    ticket = cluster.submit(0, calls.Writeback("f"))
    cluster.run_until(lambda: cluster.kernels[0].xpc.incarnation(1) is None)
    cluster.run_for(1_000_000)
    assert not ticket.ended
    store_late(cluster, frames)  # in time: the call has not returned
    cluster.run_until(lambda: ticket.ended)
    dirty = cluster.kernels[0].memory.files.lookup("f").dirty
    assert dirty[:PAGES].all()
    cluster.resume(1)
    cluster.run_until_active()
    cluster.call(0, calls.Unlink("f"))


def test_a_fence_that_finds_no_frames_kills_the_caller_instead_of_holding_it(
    cluster: SimCluster,
) -> None:
    world = World(cluster)
    world.importer.load(world.attached(), SIZE)
    cluster.call(0, breaking.FailpointSet("xpmem.fence.before_migrate", "return(ENOMEM)"))
    cluster.hang(1)
    task = cluster.kernels[0].tasks.find(world.exporter.pid)
    ticket = world.exporter.begin(calls.Mprotect(task.pid, world.base, SIZE, PROT_READ))
    cluster.run_until(lambda: ticket.ended and cluster.kernels[0].tasks.get(task.pid) is None)
    assert task.fate is not None
    assert "out of reach of a lost partition" in task.fate.reason
    cluster.resume(1)
    cluster.run_until_active()


def test_a_fence_recalls_the_page_from_healthy_importers_on_its_way(make_cluster: Make) -> None:
    """Two exporters of one file: the first changes its rights and waits for the fence, which
    recalls the page from a healthy importer of the second."""
    cluster = make_cluster(3)
    world = shared_file(cluster)
    at = world.attached()
    before = world.importer.load(at, SIZE)
    frames = in_hand(cluster, world.importer, at)
    second, third = world.spawn(0), world.spawn(2)
    base = second.mmap(SIZE, flags=MAP_SHARED, file="f")
    there = third.xpmem_attach(third.xpmem_get(second.xpmem_make(base, SIZE, 0o666)), 0, SIZE)
    assert third.load(there, SIZE) == before
    cluster.hang(1)
    world.exporter.mprotect(world.base, SIZE, PROT_READ)
    store_late(cluster, frames)
    assert world.exporter.load(world.base, SIZE) == third.load(there, SIZE) == before
    third.store(there, b"all well")
    assert world.exporter.load(world.base, 8) == b"all well"
    cluster.resume(1)
    cluster.run_for(SECOND)
    cluster.run_until_active()
    cluster.call(0, calls.Unlink("f"))
