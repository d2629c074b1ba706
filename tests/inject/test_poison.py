"""Frames that give machine checks: who dies of them, who must not, and who never gets them."""

import errno
from collections.abc import Callable

import pytest

from tests.clusters import events_of
from tests.xpmem.world import PAGE, PAGES, World, outcome_of
from xpmem_emu.errors import KernelError, Signalled
from xpmem_emu.kernel import calls
from xpmem_emu.kernel.calls import Call
from xpmem_emu.kernel.events import TaskSignal
from xpmem_emu.sim.cluster import SimCluster
from xpmem_emu.sim.injection.injections import SimInjections
from xpmem_emu.units import SECOND

SIZE = PAGES * PAGE


def frame_of(world: World, partid: int, pid: int, address: int) -> int:
    task = world.cluster.kernels[partid].tasks.find(pid)
    return task.mm.page_table.walk(address >> 12) >> 12 & (1 << 38) - 1


def test_a_poisoned_frame_kills_the_user_wherever_it_runs(
    cluster: SimCluster, faults: SimInjections
) -> None:
    world = World(cluster)
    at = world.attached()
    world.importer.load(at, SIZE)
    name = faults.add(f"poison p0 {frame_of(world, 0, world.exporter.pid, world.base):#x}")
    assert world.importer.load(at + PAGE, 8) == b"exporter"
    assert outcome_of(lambda: world.importer.load(at, 8)) == "SIGBUS"
    assert outcome_of(lambda: world.importer.mmap(PAGE)) == "ESRCH"
    assert outcome_of(lambda: world.exporter.store(world.base, b"x")) == "SIGBUS"
    signals = events_of(cluster.trace, TaskSignal)
    assert all(each.fatal and "machine check" in each.reason for each in signals)
    assert {kernel.stopped for kernel in cluster.kernels.values()} == {None}
    cluster.run_for(SECOND)
    assert cluster.audit(0)["mm_frames_quarantined"] == 1
    faults.board.remove(name)
    assert cluster.audit(0)["mm_frames_quarantined"] == 0


def test_a_poisoned_frame_that_is_free_is_given_to_nobody(
    cluster: SimCluster, faults: SimInjections
) -> None:
    frames = cluster.kernels[0].memory.frames
    free = frames.free
    name = faults.add("poison p0 0x20")
    assert frames.free == free - 1
    task = cluster.spawn(0)
    task.store(task.mmap(free * PAGE - 8 * PAGE), bytes(free * PAGE - 8 * PAGE))
    assert cluster.audit(0)["mm_frames_quarantined"] == 1
    task.exit()
    faults.board.remove(name)
    assert frames.free == free


def mapped_file(world: World) -> int:
    """One page of a file, written by the exporter that maps it."""
    world.cluster.call(0, calls.Creat("f", PAGE))
    mmap = calls.Mmap(world.exporter.pid, PAGE, flags=calls.MAP_SHARED, file="f")
    base = world.do(world.exporter, mmap)
    assert isinstance(base, int)
    world.exporter.store(base, b"written")
    return base


KERNEL_READS: dict[str, tuple[Callable[[World, int], Call], str]] = {
    "migrate": (lambda w, at: calls.Migrate(w.exporter.pid, at, PAGE), "ok"),
    "swap out": (lambda w, at: calls.Reclaim(1, w.exporter.pid, at, PAGE), "ok"),
    "reclaim": (lambda w, at: calls.Reclaim(100), "ok"),
    "fork": (lambda w, at: calls.Fork(w.exporter.pid), "ok"),
}
FILE_READS: dict[str, tuple[Callable[[World, int], Call], str]] = {
    **KERNEL_READS,
    "writeback": (lambda w, at: calls.Writeback("f"), "EIO"),
    "pread": (lambda w, at: calls.Pread("f", 0, 8), "EIO"),
    "truncate": (lambda w, at: calls.Truncate("f", 100), "ok"),
    "extend": (lambda w, at: calls.Truncate("f", 2 * PAGE), "ok"),
}


@pytest.mark.parametrize(
    ("kind", "name"),
    [("memory", name) for name in KERNEL_READS] + [("file", name) for name in FILE_READS],
)
def test_a_kernel_that_would_read_a_poisoned_frame_leaves_it_or_says_so(
    cluster: SimCluster, faults: SimInjections, kind: str, name: str
) -> None:
    world = World(cluster)
    at = mapped_file(world) if kind == "file" else world.base
    poison = faults.add(f"poison p0 {frame_of(world, 0, world.exporter.pid, at):#x}")
    call, expected = FILE_READS[name]
    assert outcome_of(lambda: world.do(world.exporter, call(world, at))) == expected
    assert {kernel.stopped for kernel in cluster.kernels.values()} == {None}
    faults.board.remove(poison)
    if name != "truncate":
        first = b"exporter" if kind == "memory" else b"written\0"
        assert world.exporter.load(at, 8) == first
    if kind == "file":
        cluster.call(0, calls.Unlink("f"))


def test_a_copy_of_a_poisoned_page_is_a_machine_check_of_who_wants_it(
    cluster: SimCluster, faults: SimInjections
) -> None:
    world = World(cluster)
    child = world.exporter.fork()
    poison = faults.add(f"poison p0 {frame_of(world, 0, world.exporter.pid, world.base):#x}")
    with pytest.raises(Signalled, match="machine check"):
        child.store(world.base, b"mine")
    cluster.run_until(lambda: cluster.kernels[0].tasks.get(child.pid) is None)
    faults.board.remove(poison)
    assert world.exporter.load(world.base, 8) == b"exporter"
    assert {kernel.stopped for kernel in cluster.kernels.values()} == {None}


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_a_lost_importer_of_a_poisoned_page_costs_its_users_and_nobody_else(
    cluster: SimCluster, faults: SimInjections, kind: str
) -> None:
    world = World(cluster)
    at = mapped_file(world) if kind == "file" else world.base
    segid = world.exporter.xpmem_make(at, PAGE, 0o666)
    there = world.importer.xpmem_attach(world.importer.xpmem_get(segid), 0, PAGE)
    world.importer.store(there, b"held")
    bystander = cluster.spawn(0)
    poison = faults.add(f"poison p0 {frame_of(world, 0, world.exporter.pid, at):#x}")
    cluster.hang(1)
    cluster.run_until(lambda: cluster.kernels[0].xpc.incarnation(1) is None)
    cluster.run_for(SECOND)
    assert {kernel.stopped for kernel in cluster.kernels.values()} == {None}
    assert cluster.kernels[0].tasks.get(world.exporter.pid) is None
    assert cluster.kernels[0].tasks.get(bystander.pid) is not None
    faults.board.remove(poison)
    counts = cluster.kernels[0].memory.frames
    assert not (counts.mapcount[counts.quarantined > 0]).any()
    cluster.resume(1)
    cluster.run_until_active()
    if kind == "file":
        assert cluster.call(0, calls.Pread("f", 0, 4)).bulk == bytes(4)
        cluster.call(0, calls.Unlink("f"))


@pytest.mark.parametrize("reads", [True, False], ids=["read", "write"])
def test_a_poisoned_frame_under_a_block_transfer_is_an_error_and_hurts_nobody(
    cluster: SimCluster, faults: SimInjections, reads: bool
) -> None:
    world = World(cluster)
    apid = world.permit()
    world.exporter.store(world.base, bytes(SIZE))
    name = faults.add(f"poison p0 {frame_of(world, 0, world.exporter.pid, world.base):#x}")

    def copy(source: int, target: int) -> object:
        pid = world.importer.pid
        ends = apid, source * PAGE, apid, target * PAGE
        return world.do(world.importer, calls.XpmemCopy(pid, *ends, PAGE))

    with pytest.raises(KernelError, match="machine check") as caught:
        copy(*(0, 1) if reads else (1, 0))
    assert caught.value.errno == errno.EIO
    copy(1, 2)
    faults.board.remove(name)
    assert world.exporter.load(world.base + PAGE, 1) == b"\0"
    assert {kernel.stopped for kernel in cluster.kernels.values()} == {None}


def test_a_partition_that_boots_later_is_refused_a_poisoned_page(
    cluster: SimCluster, faults: SimInjections
) -> None:
    world = World(cluster)
    spoilt = world.base + 3 * PAGE
    world.exporter.store(world.base, b"exporter")
    world.exporter.store(spoilt, b"spoilt")
    name = faults.add(f"poison p0 {frame_of(world, 0, world.exporter.pid, spoilt):#x}")
    cluster.crash(1)
    cluster.boot(1)
    cluster.prove_gone(1, 1)
    cluster.run_until_active()
    importer = cluster.spawn(1)
    at = importer.xpmem_attach(importer.xpmem_get(world.segid), 0, SIZE)
    assert importer.load(at, 8) == b"exporter"
    with pytest.raises(Signalled, match="machine check"):
        importer.load(at + 3 * PAGE, 1)
    faults.board.remove(name)
    again = cluster.spawn(1)
    at = again.xpmem_attach(again.xpmem_get(world.segid), 0, SIZE)
    assert again.load(at + 3 * PAGE, 6) == b"spoilt"
