"""Whoever paused everything can still let it go, look at it, kill it, and shut it down."""

from collections.abc import Callable

import pytest

from tests.clusters import SMALL, cluster_of
from tests.xpmem.world import PAGE, outcome_of
from xpmem_emu.image import Image, LimitsSection
from xpmem_emu.kernel import breaking, calls
from xpmem_emu.kernel.admission import CALLS_RESERVED
from xpmem_emu.kernel.interface import Failed
from xpmem_emu.sim.cluster import SimCluster
from xpmem_emu.sim.task import SimTask

THREADS = 24
POINT = "kernel.call.before_answer"


@pytest.fixture
def full(make_cluster: Callable[..., SimCluster]) -> SimTask:
    """A task on a kernel whose every place is taken by a call paused at a failpoint."""
    cluster = make_cluster(2, Image(memory=SMALL.memory, limits=LimitsSection(threads=THREADS)))
    task = cluster.spawn(0)
    cluster.call(0, breaking.FailpointSet(POINT, "pause"))
    for _ in range(THREADS + CALLS_RESERVED):
        task.begin(calls.Mmap(task.pid, PAGE))
        cluster.submit(0, calls.Status())
    assert outcome_of(lambda: task.mmap(PAGE)) == "EAGAIN"
    assert outcome_of(lambda: cluster.call(0, calls.Status())) == "EAGAIN"
    return task


def test_what_heals_always_finds_a_place(full: SimTask) -> None:
    cluster = full.cluster
    assert [row for row in cluster.call(0, breaking.ListFailpoints()).value if row["paused"]]
    assert cluster.call(0, breaking.FailpointResume(POINT)).value >= CALLS_RESERVED
    cluster.call(0, breaking.FailpointClear())
    assert full.mmap(PAGE)
    assert cluster.call(0, calls.Status()).value["tasks"] == 1


def test_a_task_can_be_killed_though_no_place_is_left(full: SimTask) -> None:
    full.kill()
    assert not list(cluster_of(full).kernels[0].tasks)
    full.cluster.call(0, breaking.FailpointClear())


def test_a_kernel_can_be_shut_down_though_no_place_is_left(full: SimTask) -> None:
    full.cluster.call(0, calls.Shutdown())
    assert cluster_of(full).outstanding == []


def test_paused_work_does_not_keep_anybody_from_looking(
    make_cluster: Callable[..., SimCluster],
) -> None:
    cluster = make_cluster(2, Image(memory=SMALL.memory, limits=LimitsSection(threads=THREADS)))
    task = cluster.spawn(0)
    cluster.call(0, breaking.FailpointSet("mm.fault.begin", "pause"))
    address = task.mmap(PAGE)
    loads = [task.begin(calls.Load(task.pid, address, 8)) for _ in range(THREADS)]
    refused = [load for load in loads if isinstance(load.outcome, Failed)]
    assert 0 < len(refused) < THREADS
    for call in (calls.Status(), calls.Audit(), calls.Look("tasks"), calls.Describe("p1")):
        assert cluster.call(0, call).value
    cluster.call(0, breaking.FailpointClear())


def test_kills_that_wait_have_places_of_their_own(full: SimTask) -> None:
    cluster = cluster_of(full)
    cluster.call(0, breaking.FailpointSet("kernel.task.before_reap", "pause"))
    kills = [cluster.submit(0, calls.Kill(full.pid)) for _ in range(2)]
    assert not kills[0].ended
    assert cluster.call(0, breaking.FailpointResume("kernel.task.before_reap")).value == 1
    cluster.run_until(lambda: kills[0].ended)
    cluster.call(0, breaking.FailpointClear())
