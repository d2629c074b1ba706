"""Faults: one faulter per range, windows that grow, waits that end, tasks that can be killed."""

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from tests.clusters import LARGE, SMALL, events_of
from tests.xpmem.world import PAGE, PAGES, World, outcome_of
from xpmem_emu.errors import Signalled
from xpmem_emu.image import FaultSection, LimitsSection
from xpmem_emu.kernel import breaking, calls
from xpmem_emu.kernel.calls import MADV_DONTNEED
from xpmem_emu.sim.cluster import LATENCY_NS, SimCluster
from xpmem_emu.trace import Record
from xpmem_emu.units import SECOND
from xpmem_emu.xpc.events import Sent
from xpmem_emu.xpmem.events import FaultBegin, FaultEnd, FaultServe


def events(cluster: SimCluster, name: str, start: int = 0) -> list[Record]:
    return [record for record in cluster.trace[start:] if record.name == name]


def faults_sent(cluster: SimCluster, start: int = 0) -> int:
    return sum(each.kind == "FAULT" for each in events_of(cluster.trace[start:], Sent))


def test_fifty_tasks_that_touch_one_page_make_one_fault(cluster: SimCluster) -> None:
    world = World(cluster)
    group = [world.spawn(1) for _ in range(50)]
    spots = [task.xpmem_attach(task.xpmem_get(world.segid), 0, PAGES * PAGE) for task in group]
    tickets = [
        task.begin(calls.Load(task.pid, at + 3 * PAGE, 8))
        for task, at in zip(group, spots, strict=True)
    ]
    cluster.run_until(lambda: all(ticket.outcome for ticket in tickets))
    assert {bytes(ticket.answer().bulk) for ticket in tickets} == {b"exporter"}
    assert faults_sent(cluster) == 1


def test_a_place_goes_on_when_who_is_woken_needs_none_any_more(
    make_cluster: Callable[..., SimCluster],
) -> None:
    """Chaos-windows, seed 3118: two of those that wait for the only place want the same page."""
    cluster = make_cluster(
        2,
        replace(
            SMALL, limits=LimitsSection(inflight_faults=1), faults=FaultSection(after=0, before=0)
        ),
    )
    world = World(cluster)
    group = [world.spawn(1) for _ in range(4)]
    spots = [task.xpmem_attach(task.xpmem_get(world.segid), 0, PAGES * PAGE) for task in group]
    tickets = [
        task.begin(calls.Load(task.pid, at + page * PAGE, 8))
        for task, at, page in zip(group, spots, (0, 2, 2, 4), strict=True)
    ]
    cluster.run_for(20 * LATENCY_NS)
    assert [bytes(ticket.answer().bulk) for ticket in tickets] == [b"exporter"] * 4


def test_a_page_that_is_mapped_costs_no_message(cluster: SimCluster) -> None:
    world = World(cluster)
    at = world.attached()
    world.importer.load(at, 8)
    start = len(cluster.trace)
    world.importer.load(at, PAGES * PAGE)
    world.importer.store(at, b"x" * PAGE)
    assert not events(cluster, "xpc:send", start)


def test_a_sequential_reader_asks_for_more_each_time(
    make_cluster: Callable[..., SimCluster],
) -> None:
    cluster = make_cluster(2, LARGE)
    exporter, importer = cluster.spawn(0), cluster.spawn(1)
    pages = 16384
    base = exporter.mmap(pages * PAGE)
    segid = exporter.xpmem_make(base, pages * PAGE)
    at = importer.xpmem_attach(importer.xpmem_get(segid), 0, pages * PAGE)
    for offset in range(0, pages * PAGE, 1 << 20):
        importer.load(at + offset, 1 << 20)
    assert pages / faults_sent(cluster) >= 64
    assert max(each.count for each in events_of(cluster.trace, FaultBegin)) == 1024


def test_a_random_reader_gets_fault_around(make_cluster: Callable[..., SimCluster]) -> None:
    cluster = make_cluster(2, LARGE)
    exporter, importer = cluster.spawn(0), cluster.spawn(1)
    base = exporter.mmap(1000 * PAGE)
    segid = exporter.xpmem_make(base, 1000 * PAGE)
    at = importer.xpmem_attach(importer.xpmem_get(segid), 0, 1000 * PAGE)
    importer.load(at + 500 * PAGE, 1)
    begin = events_of(cluster.trace, FaultBegin)[0]
    assert (begin.page, begin.count) == (484, 49)


def test_who_asks_for_no_neighbours_gets_none(cluster: SimCluster) -> None:
    world = World(cluster)
    at = world.attached()
    old = [
        world.do(world.importer, calls.XpmemTunable(name, 0))
        for name in ("faults_after", "faults_before")
    ]
    assert old == [32, 16]
    world.importer.load(at + 3 * PAGE, 1)
    [begin] = events_of(cluster.trace, FaultBegin)
    assert (begin.page, begin.count) == (3, 1)


def test_a_window_stops_where_pages_are_known(cluster: SimCluster) -> None:
    world = World(cluster)
    at = world.attached()
    for page in (1, 6):
        one = world.spawn(1)
        spot = one.xpmem_attach(one.xpmem_get(world.segid), page * PAGE, PAGE)
        one.load(spot, 1)
    world.importer.load(at + 3 * PAGE, 1)
    last = events_of(cluster.trace, FaultBegin)[-1]
    assert (last.page, last.count) == (2, 4)


def test_a_task_that_waits_for_a_dead_partition_can_be_killed_at_once(cluster: SimCluster) -> None:
    world = World(cluster)
    at = world.attached()
    cluster.crash(0)
    ticket = world.importer.begin(calls.Load(world.importer.pid, at, 8))
    cluster.run_for(1_000_000)
    assert ticket.outcome is None
    before = cluster.now_ns
    world.importer.kill()
    assert cluster.now_ns - before < 1_000_000
    assert outcome_of(ticket.answer) == "SIGKILL"
    cluster.prove_gone(0)


def test_a_fault_at_a_dead_partition_ends_in_sigbus_within_its_deadline(
    cluster: SimCluster,
) -> None:
    world = World(cluster)
    at = world.attached()
    cluster.crash(0)
    before = cluster.now_ns
    with pytest.raises(Signalled) as signalled:
        world.importer.load(at, 8)
    deadlines = cluster.image.deadlines
    assert cluster.now_ns - before <= deadlines.fault_attempt * deadlines.fault_tries + SECOND
    assert "p0" in signalled.value.info.describe()


def test_a_full_fault_table_makes_faults_wait_not_fail(unaudited: SimCluster) -> None:
    cluster = unaudited
    world = World(cluster)
    at = world.attached()
    cluster.kernels[1].xpmem.faults.inflight = cluster.image.limits.inflight_faults
    ticket = world.importer.begin(calls.Load(world.importer.pid, at, 8))
    cluster.run_for(1_000_000)
    assert ticket.outcome is None
    assert not faults_sent(cluster)
    cluster.kernels[1].xpmem.faults.inflight = 0
    cluster.kernels[1].xpmem.faults._place.wake_all()
    cluster.run_until(lambda: ticket.outcome is not None)
    assert bytes(ticket.answer().bulk) == b"exporter"


def test_a_full_fault_table_that_stays_full_ends_in_sigbus(unaudited: SimCluster) -> None:
    cluster = unaudited
    world = World(cluster)
    at = world.attached()
    cluster.kernels[1].xpmem.faults.inflight = cluster.image.limits.inflight_faults
    assert outcome_of(lambda: world.importer.load(at, 8)) == "SIGBUS"
    cluster.kernels[1].xpmem.faults.inflight = 0


def test_faults_wait_between_fork_begin_and_fork_end(cluster: SimCluster) -> None:
    world = World(cluster)
    at = world.attached()
    world.importer.load(at, 8)
    world.do(world.exporter, calls.XpmemForkBegin(world.exporter.pid))
    assert cluster.audit(0)["pins"] == 0
    ticket = world.importer.begin(calls.Load(world.importer.pid, at, 8))
    cluster.run_for(3 * SECOND)
    assert ticket.outcome is None
    world.do(world.exporter, calls.XpmemForkEnd(world.exporter.pid))
    cluster.run_until(lambda: ticket.outcome is not None)
    assert bytes(ticket.answer().bulk) == b"exporter"


def test_fork_begin_waits_for_what_a_close_still_recalls(cluster: SimCluster) -> None:
    world = World(cluster)
    at = world.attached()
    world.importer.store(at, b"before")
    closing = world.exporter.begin(calls.XpmemClose(world.exporter.pid))
    world.do(world.exporter, calls.XpmemOpen(world.exporter.pid))
    assert not closing.ended
    assert cluster.audit(0)["pins"] == PAGES
    world.do(world.exporter, calls.XpmemForkBegin(world.exporter.pid))
    assert cluster.audit(0)["pins"] == 0


def test_a_neighbour_that_is_replaced_meanwhile_costs_its_read_ahead_and_nothing_else(
    cluster: SimCluster,
) -> None:
    world = World(cluster)
    at = world.attached()
    cluster.call(0, breaking.FailpointSet("mm.gup.pin", "1*delay(50ms)"))
    ticket = world.importer.begin(calls.Load(world.importer.pid, at, 8))
    cluster.run_for(1_000_000)
    for _ in range(cluster.image.faults.collisions + 1):
        world.exporter.madvise(world.base + 5 * PAGE, PAGE, MADV_DONTNEED)
    cluster.run_until(lambda: ticket.ended)
    assert ticket.answer().bulk == b"exporter"
    assert len(events(cluster, "failpoint:hit")) == 1
    (served,) = events_of(cluster.trace, FaultServe)
    assert served.pages == PAGES - 1
    assert cluster.audit(0)["pins"] == PAGES - 1
    assert world.importer.load(at + 5 * PAGE, 8) == bytes(8)


def test_a_fault_waits_for_no_recall_of_a_neighbour(
    make_cluster: Callable[..., SimCluster],
) -> None:
    cluster = make_cluster(3)
    world = World(cluster)
    holder = world.spawn(2)
    holder.load(holder.xpmem_attach(holder.xpmem_get(world.segid), 5 * PAGE, PAGE), 8)
    at = world.attached()
    cluster.hang(2)
    reclaim = calls.Reclaim(1, world.exporter.pid, world.base + 5 * PAGE, PAGE)
    recall = world.exporter.begin(reclaim)
    cluster.run_until(lambda: bool(events(cluster, "xpmem:recall_begin")))
    before = cluster.now_ns
    assert world.importer.load(at, 8) == b"exporter"
    assert cluster.now_ns - before < cluster.image.deadlines.recall_attempt
    assert not recall.ended
    cluster.run_until(lambda: recall.ended)
    assert world.importer.load(at + 5 * PAGE, 8) == b"exporter"
    cluster.resume(2)
    cluster.run_until_active()


def test_an_answer_shows_nothing_where_no_access_is_allowed_any_more(cluster: SimCluster) -> None:
    world = World(cluster)
    at = world.attached()
    cluster.call(0, breaking.FailpointSet("mm.gup.pin", "1*delay(50ms)"))
    load = world.importer.begin(calls.Load(world.importer.pid, at, 8))
    cluster.run_for(1_000_000)
    world.importer.mprotect(at, PAGES * PAGE, calls.PROT_NONE)
    cluster.run_until(lambda: load.ended)
    with pytest.raises(Signalled, match="which forbids it"):
        load.answer()
    world.importer.mprotect(at, PAGES * PAGE, calls.PROT_READ)
    assert world.importer.load(at, 8) == b"exporter"


def test_an_invalidation_that_crosses_an_answer_spoils_its_own_pages_only(
    cluster: SimCluster,
) -> None:
    world = World(cluster)
    at = world.attached()
    slow = cluster.image.deadlines.recall_attempt // 2
    cluster.latency_ns = lambda src, dst: slow if src == 0 else LATENCY_NS
    ticket = world.importer.begin(calls.Load(world.importer.pid, at, 8))
    cluster.run_until(lambda: bool(events(cluster, "xpmem:fault_serve")))
    cluster.latency_ns = lambda src, dst: LATENCY_NS
    world.exporter.madvise(world.base + 5 * PAGE, PAGE, MADV_DONTNEED)
    assert not ticket.ended  # INVALIDATE overtook the answer
    cluster.run_until(lambda: ticket.ended)
    assert ticket.answer().bulk == b"exporter"
    assert not events(cluster, "xpmem:fault_collision")
    assert faults_sent(cluster) == 1
    table = cluster.kernels[1].tasks.find(world.importer.pid).mm.page_table
    present = [bool(entry) for entry in table.read_range(at >> 12, PAGES).tolist()]
    assert present == [page != 5 for page in range(PAGES)]
    assert world.importer.load(at + 5 * PAGE, 8) == bytes(8)


def test_what_was_read_ahead_for_a_page_that_is_not_there_stays_pinned_for_nobody() -> None:
    image = replace(LARGE, faults=FaultSection(after=3, before=0, collisions=0))
    cluster = SimCluster(2, image)
    cluster.run_until_active()
    exporter, importer = cluster.spawn(0), cluster.spawn(1)
    address = exporter.mmap(4 * PAGE)
    exporter.store(address, b"x")
    exporter.fork()
    there = importer.xpmem_attach(
        importer.xpmem_get(exporter.xpmem_make(address, 4 * PAGE, 0o666)), 0, 4 * PAGE
    )
    with pytest.raises(Signalled):  # copy on write takes the touched page, and no try is left
        importer.load(there, 1)
    assert cluster.audit(0)["mm_frames_pinned"] == 0


@pytest.mark.parametrize("end", ["release", "remove"])
def test_a_fault_whose_permit_ends_while_its_page_is_being_pinned_does_not_blame_the_page(
    end: str,
) -> None:
    """Chaos-pauses, seeds 240 and 173: nothing had changed, and places were counted as lost."""
    image = replace(SMALL, faults=replace(SMALL.faults, collisions=0))
    cluster = SimCluster(2, image, audits=True)
    cluster.run_until_active()
    world = World(cluster)
    apid = world.permit()
    at = world.importer.xpmem_attach(apid, 0, PAGES * PAGE)
    cluster.call(0, breaking.FailpointSet("mm.gup.pin", "1*delay(50ms)"))
    load = world.importer.begin(calls.Load(world.importer.pid, at, 8))
    cluster.run_for(1_000_000)
    if end == "release":
        world.importer.begin(calls.XpmemRelease(world.importer.pid, apid))
    else:
        world.exporter.begin(calls.XpmemRemove(world.exporter.pid, world.segid))
    cluster.run_until(lambda: load.ended)
    cluster.run_for(100_000_000)
    (ended,) = events_of(cluster.trace, FaultEnd)
    assert "keeps changing" not in ended.outcome
    assert cluster.audit(0)["pins"] == 0


def test_a_fault_that_waits_for_anothers_pin_ends_when_the_segment_is_removed() -> None:
    """Chaos, seed 8130: it waited on a queue that nobody wakes any more."""
    cluster = SimCluster(2, SMALL, audits=True)
    cluster.run_until_active()
    world = World(cluster)
    at, neighbour = world.attached(), world.spawn(0)
    near = neighbour.xpmem_attach(neighbour.xpmem_get(world.segid), 0, PAGES * PAGE)
    cluster.call(0, breaking.FailpointSet("mm.gup.pin", "1*pause"))
    pinning = world.importer.begin(calls.Load(world.importer.pid, at, 8))
    cluster.run_for(1_000_000)
    waiting = neighbour.begin(calls.Load(neighbour.pid, near, 8))
    cluster.run_for(1_000_000)
    assert not waiting.ended
    world.exporter.xpmem_remove(world.segid)
    cluster.run_for(1_000_000)
    assert (waiting.ended, pinning.ended) == (True, False)
    with pytest.raises(Signalled, match="going away"):
        waiting.answer()
    cluster.call(0, breaking.FailpointResume("mm.gup.pin"))
    cluster.run_until(lambda: pinning.ended)
    assert cluster.audit(0)["pins"] == 0
