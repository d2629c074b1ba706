"""Failpoints: their list, their grammar at work, and what each action does to a kernel."""

import errno
import re
from pathlib import Path

import pytest

import xpmem_emu
from tests.clusters import events_of
from tests.xpmem.world import AT, PAGE, PAGES, World, outcome_of
from xpmem_emu.errors import KernelError
from xpmem_emu.failpoints import POINTS, Context, Failpoints, points
from xpmem_emu.failpoints.events import PointCleared, PointHit
from xpmem_emu.kernel import breaking, calls
from xpmem_emu.kernel.events import TaskSignal
from xpmem_emu.kernel.interface import Failed, Panic
from xpmem_emu.sched import Scheduler
from xpmem_emu.sim.cluster import SimCluster
from xpmem_emu.trace import Tracer
from xpmem_emu.units import MILLISECOND

SIZE = PAGES * PAGE
ROOT = Path(xpmem_emu.__file__).parent


def new() -> Failpoints:
    scheduler = Scheduler()
    return Failpoints(scheduler, Tracer(0, scheduler))


def put(cluster: SimCluster, partid: int, text: str, seed: int = 0) -> None:
    point, _, terms = text.partition("=")
    cluster.call(partid, breaking.FailpointSet(point, terms, seed))


def passed(terms: str, times: int, seed: int = 0) -> list[int]:
    failpoints = new()
    failpoints.set("mm.mmap.reserve", terms, seed)
    return [failpoints.failing(points.MMAP_RESERVE) for _ in range(times)]


# -- the list ---------------------------------------------------------------------------------


def test_there_are_many_and_each_says_what_it_is_for() -> None:
    assert len(POINTS) >= 25
    assert {name.partition(".")[0] for name in POINTS} == {"mm", "xpc", "xpmem", "kernel"}
    assert all(len(point.gist) > 20 and "\n" not in point.gist for point in POINTS.values())


@pytest.mark.parametrize("name", sorted(POINTS))
def test_a_point_is_where_its_declaration_says(name: str) -> None:
    point = POINTS[name]
    constant = next(key for key, value in vars(points).items() if value is point)
    used = [
        str(path.relative_to(ROOT))
        for path in ROOT.rglob("*.py")
        if not {"failpoints", "mutations"} & set(path.parts)
        and re.search(rf"(?:reach|reached|check|failing|_reach)\({constant}\b", path.read_text())
    ]
    assert used == [point.place]


@pytest.mark.parametrize("name", sorted(POINTS))
def test_a_point_that_sleeps_is_awaited_and_an_atomic_one_is_not(name: str) -> None:
    point = POINTS[name]
    constant = next(key for key, value in vars(points).items() if value is point)
    source = (ROOT / point.place).read_text()
    awaited = re.search(rf"await [\w.]*_?reach(?:ed)?\({constant}\b", source) is not None
    assert awaited == (point.context is Context.SLEEPS)


# -- the grammar at work ----------------------------------------------------------------------


def test_counts_use_up_a_term_and_the_next_one_takes_over() -> None:
    assert passed("2*return(EIO)->1*return->off", 5) == [errno.EIO] * 2 + [errno.ENOMEM, 0, 0]
    assert passed("3*off->return", 5) == [0, 0, 0, errno.ENOMEM, errno.ENOMEM]


def test_percentages_draw_from_the_seed_and_from_nothing_else() -> None:
    drawn = passed("20%return", 2000, seed=7)
    assert 300 < sum(map(bool, drawn)) < 500
    assert drawn == passed("20%return", 2000, seed=7)
    assert drawn != passed("20%return", 2000, seed=8)
    assert passed("0%return", 100) == [0] * 100


def test_nothing_is_armed_unless_something_is_set() -> None:
    failpoints = new()
    assert not failpoints.armed
    failpoints.set("mm.mmap.reserve", "off", 0)
    assert failpoints.armed
    failpoints.reset()
    assert not failpoints.armed


@pytest.mark.parametrize(
    ("text", "number", "why"),
    [
        ("mm.mmap.reserv=off", errno.ENOENT, "mm.mmap.reserve"),
        ("completely.else=off", errno.ENOENT, "failpoint ls"),
        ("mm.mmap.reserve=pause", errno.EINVAL, "is atomic"),
        ("mm.mmap.reserve=delay(5ms)", errno.EINVAL, "is atomic"),
        ("mm.mmap.reserve=jump", errno.EINVAL, "no action is called 'jump'"),
        ("mm.mmap.reserve=return(ENOTHING)", errno.EINVAL, "no errno"),
        ("xpmem.fault.before_install=return(EIO)", errno.EINVAL, "nothing can fail"),
    ],
)
def test_what_a_point_cannot_do_is_refused(text: str, number: int, why: str) -> None:
    point, _, terms = text.partition("=")
    failpoints = new()
    with pytest.raises(KernelError) as caught:
        failpoints.set(point, terms, 0)
    assert caught.value.errno == number
    assert why in f"{caught.value.cause} {caught.value.remedy}"
    assert not failpoints.armed


# -- actions in a kernel ----------------------------------------------------------------------


def test_an_error_takes_the_way_of_the_real_one(cluster: SimCluster) -> None:
    """Out of memory kills the task that touches, and leaves the kernel and the others alone."""
    world = World(cluster)
    put(cluster, 0, "mm.frames.allocate=1*return")
    base = world.exporter.mmap(PAGE)
    assert outcome_of(lambda: world.exporter.store(base, b"x")) == "SIGKILL"
    assert world.spawn(0).mmap(PAGE)
    signals = [each.reason for each in events_of(cluster.trace, TaskSignal)]
    assert "out of memory: failpoint mm.frames.allocate said so" in signals[-1]


def test_a_delay_takes_virtual_time(cluster: SimCluster) -> None:
    world = World(cluster)
    put(cluster, 0, "kernel.call.before_answer=delay(70ms)")
    before = cluster.now_ns
    world.exporter.mmap(PAGE)
    assert cluster.now_ns - before >= 70 * MILLISECOND


def test_a_pause_lasts_until_it_is_resumed(cluster: SimCluster) -> None:
    world = World(cluster)
    put(cluster, 0, "kernel.call.before_answer=1*pause")
    ticket = world.exporter.begin(calls.Mmap(world.exporter.pid, PAGE))
    cluster.run_for(60_000 * MILLISECOND)
    assert ticket.outcome is None
    rows = {row["point"]: row for row in cluster.call(0, breaking.ListFailpoints()).value}
    assert rows["kernel.call.before_answer"]["paused"] == 1
    assert cluster.call(0, breaking.FailpointResume("kernel.call.before_answer")).value == 1
    assert ticket.outcome is not None


def test_a_paused_task_can_be_killed(cluster: SimCluster) -> None:
    world = World(cluster)
    put(cluster, 0, "mm.fault.begin=pause")
    fresh = world.exporter.mmap(PAGE)
    world.exporter.begin(calls.Load(world.exporter.pid, fresh, 1))
    world.exporter.kill()
    assert outcome_of(lambda: world.exporter.mmap(PAGE)) == "ESRCH"


def test_a_panic_ends_this_kernel_only(cluster: SimCluster) -> None:
    world = World(cluster)
    put(cluster, 0, "xpmem.make.segment=panic")
    outcome = world.exporter.begin(calls.XpmemMake(world.exporter.pid, world.base, PAGE)).outcome
    assert isinstance(outcome, Failed)
    stopped = cluster.kernels[0].stopped
    assert isinstance(stopped, Panic)
    assert "failpoint xpmem.make.segment panics" in stopped.reason
    assert cluster.kernels[1].stopped is None
    assert world.importer.mmap(PAGE)


def test_print_and_yield_change_nothing_but_the_stream(cluster: SimCluster) -> None:
    world = World(cluster)
    put(cluster, 0, "xpmem.make.segment=print")
    put(cluster, 0, "kernel.call.before_answer=yield")
    assert world.exporter.xpmem_make(world.base, PAGE) > 0
    hits = [(each.point, each.action) for each in events_of(cluster.trace, PointHit)]
    assert ("xpmem.make.segment", "print") in hits
    assert ("kernel.call.before_answer", "yield") in hits
    cluster.call(0, breaking.FailpointClear())
    ends = [each.point for each in events_of(cluster.trace, PointCleared)]
    assert ends == ["xpmem.make.segment", "kernel.call.before_answer"]


def test_the_inflight_race_can_be_made_with_a_pause(cluster: SimCluster) -> None:
    """Sources T16: the reply is slow, the invalidation overtakes it, the frame must not be
    installed."""
    world = World(cluster)
    at = world.attached()
    put(cluster, 0, "xpmem.fault.before_reply=1*pause")
    access = world.importer.begin(calls.Load(world.importer.pid, at, 8))
    cluster.run_for(MILLISECOND)
    world.exporter.munmap(world.base, SIZE)
    cluster.call(0, breaking.FailpointResume("xpmem.fault.before_reply"))
    cluster.run_until(lambda: access.outcome is not None)
    assert outcome_of(access.answer) == "SIGBUS"
    assert [r for r in cluster.trace if r.name == "xpmem:fault_collision"]


def test_a_reply_that_fails_leaves_no_page_held(cluster: SimCluster) -> None:
    world = World(cluster)
    at = world.attached()
    put(cluster, 0, "xpmem.fault.before_reply=1*return")
    assert outcome_of(lambda: world.importer.load(at, 8)) == "SIGBUS"
    assert cluster.audit(0)["pins"] == 0
    assert world.importer.load(at, 8) == b"exporter"


def test_a_permit_released_while_it_is_attached_maps_nothing(cluster: SimCluster) -> None:
    world = World(cluster)
    apid = world.permit()
    put(cluster, 1, "xpmem.attach.before_map=1*pause")
    attach = world.importer.begin(calls.XpmemAttach(world.importer.pid, apid, 0, SIZE))
    cluster.run_for(MILLISECOND)
    world.importer.xpmem_release(apid)
    cluster.call(1, breaking.FailpointResume("xpmem.attach.before_map"))
    cluster.run_until(lambda: attach.outcome is not None)
    assert outcome_of(attach.answer) == "ENOENT"
    assert cluster.audit(1)["attachments"] == 0


def test_an_exporter_that_cannot_be_told_at_once_is_told_later_and_keeps_no_pin(
    cluster: SimCluster,
) -> None:
    world = World(cluster)
    world.importer.load(world.attached(), SIZE)
    put(cluster, 1, "xpc.call.begin=1*return")
    world.importer.xpmem_detach(AT)
    assert cluster.audit(0)["pins"] == 0
    assert cluster.kernels[1].xpc.partitions[0].counters.activations == 1
