"""XPMEM under each notifier design: it works, or the kernel says why not (sources T10, T12)."""

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from tests.clusters import SMALL
from tests.xpmem.world import AT, PAGE, World, outcome_of
from xpmem_emu.image import MmSection, NotifierDesign, RmapLock
from xpmem_emu.kernel import calls
from xpmem_emu.kernel.interface import Panic
from xpmem_emu.sim.cluster import SimCluster

MakeCluster = Callable[..., SimCluster]
ATOMIC = (NotifierDesign.PAGE, NotifierDesign.PAGES)


def under(
    design: NotifierDesign, make_cluster: MakeCluster, lock: RmapLock = RmapLock.SPINLOCK
) -> World:
    """The usual cast, in partitions that boot a design."""
    return World(make_cluster(image=replace(SMALL, mm=MmSection(design, lock))))


@pytest.mark.parametrize("design", sorted(set(NotifierDesign) - set(ATOMIC)))
def test_a_recall_is_over_when_the_call_returns(
    design: NotifierDesign, make_cluster: MakeCluster
) -> None:
    world = under(design, make_cluster)
    world.attached()
    assert world.importer.load(AT, 8) == b"exporter"
    world.exporter.munmap(world.base, PAGE)
    kernel = world.cluster.kernels[1]
    importer = kernel.tasks.get(world.importer.pid)
    assert importer is not None
    assert importer.mm.page_table.walk(AT // PAGE) == 0
    assert outcome_of(lambda: world.importer.load(AT, 8)) == "SIGBUS"
    assert world.importer.load(AT + PAGE, 8) == b"exporter"


@pytest.mark.parametrize("design", ATOMIC)
def test_a_recall_cannot_wait_in_a_call_that_may_not_sleep(
    design: NotifierDesign, make_cluster: MakeCluster
) -> None:
    world = under(design, make_cluster)
    world.attached()
    world.exporter.munmap(world.base, PAGE)  # nobody has it: nothing to wait for
    world.importer.load(AT + PAGE, 8)
    world.exporter.begin(calls.Munmap(world.exporter.pid, world.base + PAGE, PAGE))
    world.cluster.run_for(1_000_000)
    stopped = world.cluster.kernels[0].stopped
    assert isinstance(stopped, Panic)
    assert "sleeping function called from invalid context: " in stopped.reason
    assert "holds spinlock page_table_lock" in stopped.reason


BY_RANGE = (NotifierDesign.RANGE, NotifierDesign.INTERVAL)


def reclaimed(world: World) -> str:
    """Why the kernel of the exporter ended while it reclaimed a page that an importer has."""
    world.attached()
    world.importer.load(AT, 8)
    world.exporter.begin(calls.Reclaim(1))
    world.cluster.run_for(100_000_000)
    stopped = world.cluster.kernels[0].stopped
    return stopped.reason if isinstance(stopped, Panic) else ""


@pytest.mark.parametrize("design", BY_RANGE)
def test_a_recall_in_a_walk_of_the_reverse_map_needs_a_lock_that_sleeps(
    design: NotifierDesign, make_cluster: MakeCluster
) -> None:
    assert reclaimed(under(design, make_cluster, RmapLock.RWSEM)) == ""
    reason = reclaimed(under(design, make_cluster))
    assert "sleeping function called from invalid context: " in reason
    assert "holds spinlock anon_vma" in reason


@pytest.mark.parametrize("design", BY_RANGE)
def test_a_fault_on_a_page_that_is_changing_waits_for_the_end(
    design: NotifierDesign, make_cluster: MakeCluster
) -> None:
    world = under(design, make_cluster, RmapLock.RWSEM)
    world.attached()
    kernel = world.cluster.kernels[0]
    exporter = kernel.tasks.get(world.exporter.pid)
    assert exporter is not None
    span = world.base, world.base + PAGE
    exporter.mm.notifiers.active.append(span)  # as a start does
    load = world.importer.begin(calls.Load(world.importer.pid, AT, 8))
    world.cluster.run_for(1_000_000)
    assert load.outcome is None
    exporter.mm.notifiers.active.remove(span)
    world.exporter.mmap(PAGE)  # any operation on memory ends
    world.cluster.run_until(lambda: load.outcome is not None)
    assert load.answer()
