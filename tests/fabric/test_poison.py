"""Frames that give machine checks: who dies of them, who must not, and who never gets them."""

import errno
from collections.abc import Callable

import pytest

from tests.xpmem.world import PAGE, PAGES, World, outcome_of
from xpmem_emu.errors import KernelError, Signalled
from xpmem_emu.kernel import calls
from xpmem_emu.kernel.interface import Panic
from xpmem_emu.sim.cluster import SimCluster
from xpmem_emu.sim.faults import SimFaults
from xpmem_emu.units import SECOND

SIZE = PAGES * PAGE


def frame_of(world: World, partid: int, pid: int, address: int) -> int:
    task = world.cluster.kernels[partid].tasks.find(pid)
    return task.mm.page_table.walk(address >> 12) >> 12 & (1 << 38) - 1


def test_a_poisoned_frame_kills_the_user_wherever_it_runs(
    cluster: SimCluster, faults: SimFaults
) -> None:
    world = World(cluster)
    at = world.attached()
    world.importer.load(at, SIZE)
    name = faults.add(f"poison p0 {frame_of(world, 0, world.exporter.pid, world.base):#x}")
    assert world.importer.load(at + PAGE, 8) == b"exporter"
    assert outcome_of(lambda: world.importer.load(at, 8)) == "SIGBUS"
    assert outcome_of(lambda: world.importer.mmap(PAGE)) == "ESRCH"
    assert outcome_of(lambda: world.exporter.store(world.base, b"x")) == "SIGBUS"
    signals = [r.event for r in cluster.trace if r.name == "task:signal"]
    assert all(each.fatal and "machine check" in each.reason for each in signals)
    assert {kernel.stopped for kernel in cluster.kernels.values()} == {None}
    cluster.run_for(SECOND)
    assert cluster.audit(0)["mm_frames_quarantined"] == 1
    faults.board.remove(name)
    assert cluster.audit(0)["mm_frames_quarantined"] == 0


def test_a_poisoned_frame_that_is_free_is_given_to_nobody(
    cluster: SimCluster, faults: SimFaults
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


@pytest.mark.parametrize(
    "access",
    [
        lambda w: w.do(w.exporter, calls.Migrate(w.exporter.pid, w.base, SIZE)),
        lambda w: w.do(w.exporter, calls.Reclaim(1, w.exporter.pid, w.base, PAGE)),
    ],
    ids=["migrate", "swap out"],
)
def test_a_raw_kernel_access_to_a_poisoned_frame_panics_the_partition(
    cluster: SimCluster, faults: SimFaults, access: Callable[[World], object]
) -> None:
    world = World(cluster)
    faults.add(f"poison p0 {frame_of(world, 0, world.exporter.pid, world.base):#x}")
    assert outcome_of(lambda: access(world)) == "EIO"
    stopped = cluster.kernels[0].stopped
    assert isinstance(stopped, Panic)
    assert "machine check in kernel mode" in stopped.reason
    assert cluster.kernels[1].stopped is None


@pytest.mark.parametrize("reads", [True, False], ids=["read", "write"])
def test_a_poisoned_frame_under_a_block_transfer_is_an_error_and_hurts_nobody(
    cluster: SimCluster, faults: SimFaults, reads: bool
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
    cluster: SimCluster, faults: SimFaults
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
