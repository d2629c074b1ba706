"""What happens to a call here says nothing about the partition that it called.

A task is killed, or its patience ends, while a request to a healthy partition is under way: that
partition stays, and what it holds is recalled, released or given back all the same.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.clusters import events_of
from tests.xpmem.world import PAGE, PAGES, World, outcome_of
from xpmem_emu import xpmem
from xpmem_emu.codec import Buffer
from xpmem_emu.kernel import calls
from xpmem_emu.kernel.breaking import FailpointClear, FailpointResume, FailpointSet
from xpmem_emu.kernel.calls import Call
from xpmem_emu.sim.cluster import SimCluster
from xpmem_emu.units import MICROSECOND, MILLISECOND, SECOND
from xpmem_emu.xpc.events import Sent
from xpmem_emu.xpc.frame import decode_frame
from xpmem_emu.xpc.messages import Copy

SIZE = PAGES * PAGE

TAKERS: dict[str, Callable[[World], Call]] = {
    "munmap": lambda w: calls.Munmap(w.exporter.pid, w.base, SIZE),
    "mprotect": lambda w: calls.Mprotect(w.exporter.pid, w.base, SIZE, calls.PROT_READ),
    "madvise": lambda w: calls.Madvise(w.exporter.pid, w.base, SIZE, calls.MADV_DONTNEED),
    "mremap": lambda w: calls.Mremap(w.exporter.pid, w.base, SIZE, 2 * SIZE),
    "fork": lambda w: calls.Fork(w.exporter.pid),
    "fork_begin": lambda w: calls.XpmemForkBegin(w.exporter.pid),
    "remove": lambda w: calls.XpmemRemove(w.exporter.pid, w.segid),
    "close": lambda w: calls.XpmemClose(w.exporter.pid),
    "exec": lambda w: calls.Exec(w.exporter.pid),
    "reclaim": lambda w: calls.Reclaim(PAGES, w.exporter.pid, w.base, SIZE),
    "migrate": lambda w: calls.Migrate(w.exporter.pid, w.base, SIZE),
}


def sessions(cluster: SimCluster) -> list[int]:
    """How often each partition activated its peer: once, when nobody was ever given up."""
    return [
        partition.counters.activations
        for kernel in cluster.kernels.values()
        for partition in kernel.xpc.partitions.values()
    ]


def bystander(world: World) -> Callable[[], bytes]:
    """Another task of p0 shares a page with another task of p1, who has it mapped."""
    owner, user = world.spawn(0), world.spawn(1)
    base = owner.mmap(PAGE)
    owner.store(base, b"innocent")
    at = user.xpmem_attach(user.xpmem_get(owner.xpmem_make(base, PAGE, 0o666)), 0, PAGE)
    user.load(at, 8)
    return lambda: user.load(at, 8)


@pytest.mark.parametrize("taker", TAKERS)
def test_a_task_killed_while_its_pages_are_recalled_costs_no_partition_its_session(
    cluster: SimCluster, taker: str
) -> None:
    world = World(cluster)
    look = bystander(world)
    world.importer.load(world.attached(), SIZE)
    taking = world.exporter.begin(TAKERS[taker](world))
    cluster.run_for(10 * MICROSECOND)  # an INVALIDATE takes twice as long to arrive
    killing = cluster.submit(0, calls.Kill(world.exporter.pid))
    cluster.run_until(lambda: taking.ended and killing.ended)
    assert cluster.audit(0)["pins"] == 1  # the bystander's
    assert cluster.audit(0)["quarantined"] == 0
    assert look() == b"innocent"
    cluster.run_for(SECOND)
    assert sessions(cluster) == [1, 1]


def test_a_task_killed_in_direct_reclaim_costs_no_partition_its_session(
    cluster: SimCluster,
) -> None:
    """Every frame is held by the importer: whoever wants another one recalls some."""
    world = World(cluster)
    look = bystander(world)
    size = cluster.kernels[0].memory.frames.free * PAGE
    all_of_it = world.exporter.mmap(size)
    world.exporter.store(all_of_it, b"x" * size)
    apid = world.importer.xpmem_get(world.exporter.xpmem_make(all_of_it, size, 0o666))
    world.importer.load(world.importer.xpmem_attach(apid, 0, size), size)
    store = world.exporter.begin(calls.Store(world.exporter.pid, world.exporter.mmap(PAGE)), b"x")
    cluster.run_for(10 * MICROSECOND)
    assert not store.ended  # it waits for a recall
    killing = cluster.submit(0, calls.Kill(world.exporter.pid))
    cluster.run_until(lambda: store.ended and killing.ended)
    assert cluster.audit(0)["quarantined"] == 0
    assert look() == b"innocent"
    cluster.run_for(SECOND)
    assert sessions(cluster) == [1, 1]


@pytest.mark.parametrize(
    "leave",
    [
        lambda w, at: calls.XpmemDetach(w.importer.pid, at),
        lambda w, at: calls.XpmemClose(w.importer.pid),
        lambda w, at: calls.Exit(w.importer.pid),
    ],
)
def test_a_task_killed_while_it_gives_pages_back_has_given_them_back(
    cluster: SimCluster, leave: Callable[[World, int], Call]
) -> None:
    world = World(cluster)
    at = world.attached()
    world.importer.load(at, SIZE)
    cluster.submit(1, leave(world, at))
    cluster.run_for(10 * MICROSECOND)
    cluster.submit(1, calls.Kill(world.importer.pid))
    cluster.run_for(MILLISECOND)
    assert cluster.audit(0)["pins"] == cluster.audit(0)["grants"] == 0
    assert sessions(cluster) == [1, 1]


@pytest.mark.parametrize("point", ["xpc.call.begin", "xpc.slot.claim"])
def test_a_recall_that_cannot_be_sent_for_a_while_is_sent_later(
    cluster: SimCluster, point: str
) -> None:
    world = World(cluster)
    world.importer.load(world.attached(), SIZE)
    cluster.call(0, FailpointSet(point, "1*return"))
    world.exporter.munmap(world.base, SIZE)
    cluster.call(0, FailpointClear())
    assert cluster.audit(0)["pins"] == 0
    assert sessions(cluster) == [1, 1]


def test_a_recall_that_can_never_be_sent_ends_by_its_deadline_in_a_fence(
    cluster: SimCluster,
) -> None:
    """What cannot be taken back in time must not stay where it can be reached."""
    world = World(cluster)
    world.importer.load(world.attached(), SIZE)
    cluster.call(0, FailpointSet("xpc.call.begin", "return"))
    before_ns = cluster.now_ns
    world.exporter.munmap(world.base, SIZE)
    times = cluster.image.deadlines
    assert cluster.now_ns - before_ns <= times.recall_attempt * times.recall_tries + MILLISECOND
    cluster.call(0, FailpointClear())
    cluster.run_until_active()
    assert sessions(cluster) == [2, 2]


def test_a_holder_that_says_pending_for_ever_is_given_up_at_the_deadline(
    cluster: SimCluster,
) -> None:
    world = World(cluster)
    world.importer.load(world.attached(), SIZE)
    cluster.call(1, FailpointSet("xpmem.invalidate.before_zap", "1*pause"))
    before_ns = cluster.now_ns
    world.exporter.munmap(world.base, SIZE)
    times = cluster.image.deadlines
    assert cluster.now_ns - before_ns >= times.recall_attempt * times.recall_tries
    assert cluster.kernels[0].xpc.partitions[1].place == "xpc/slots:overdue"
    cluster.call(1, FailpointResume("xpmem.invalidate.before_zap"))
    cluster.call(1, FailpointClear())
    cluster.run_until_active()


def test_a_transfer_whose_time_is_over_leaves_its_peer_alone(cluster: SimCluster) -> None:
    world = World(cluster)
    look = bystander(world)
    apid = world.permit()
    deliver, lost = cluster._deliver, [0]

    def without_copies(time_ns: int, dst: int, frames: list[Buffer]) -> None:
        if isinstance(decode_frame(frames)[1], Copy):
            lost[0] += 1
        else:
            deliver(time_ns, dst, frames)

    cluster._deliver = without_copies  # type: ignore[method-assign]
    copy = calls.XpmemCopy(world.importer.pid, apid, 0, apid, 0, PAGE)
    assert outcome_of(lambda: world.do(world.importer, copy)) == "ETIMEDOUT"
    cluster.run_for(5 * SECOND)
    assert lost[0] > 10  # it is sent on, or its slot would never be free again
    assert look() == b"innocent"
    assert sessions(cluster) == [1, 1]
    del cluster._deliver
    cluster.run_for(SECOND)


def test_what_is_told_in_one_session_is_not_told_in_the_next(cluster: SimCluster) -> None:
    """An EVICT that waited for its channel until the session was over: in the next session it
    would make the exporter forget a holder that it has."""
    world = World(cluster)
    at = world.attached()
    world.importer.load(at, SIZE)
    cluster.call(1, FailpointSet("xpc.call.begin", "1*pause"))
    told = world.importer.begin(calls.XpmemDetach(world.importer.pid, at))
    cluster.run_for(MILLISECOND)
    before = len(cluster.trace)
    cluster.kernels[1].xpc.deactivate(0, cluster.kernels[1].xpc.partitions[0].reason, "test")
    cluster.poke(1)
    cluster.run_for(MILLISECOND)
    cluster.run_until_active()
    cluster.call(1, FailpointResume("xpc.call.begin"))
    cluster.call(1, FailpointClear())
    cluster.run_until(lambda: told.ended)
    kinds = [each.kind for each in events_of(cluster.trace[before:], Sent)]
    assert "DETACH" not in kinds


def test_the_news_of_a_release_comes_after_that_of_its_pages(cluster: SimCluster) -> None:
    """Else the exporter would not know what a late DETACH is about, and keep the pages pinned for
    a partition that has another permit and none of them."""
    world = World(cluster)
    apid = world.permit()
    world.importer.load(world.importer.xpmem_attach(apid, 0, SIZE), SIZE)
    world.permit()
    cluster.call(1, FailpointSet("xpmem.evict.before_tell", "1*pause"))
    released = world.importer.begin(calls.XpmemRelease(world.importer.pid, apid))
    cluster.run_for(5 * MILLISECOND)
    assert not released.ended
    cluster.call(1, FailpointResume("xpmem.evict.before_tell"))
    cluster.run_until(lambda: released.ended)
    cluster.call(1, FailpointClear())
    assert cluster.audit(0)["pins"] == 0


def test_xpmem_leaves_verdicts_on_peers_to_xpc() -> None:
    """No module of xpmem decides on its own that a partition is lost; it can only charge one with
    what it did in a session (`Xpc.condemn`)."""
    for path in Path(xpmem.__path__[0]).glob("*.py"):
        assert ".deactivate(" not in path.read_text(), path
