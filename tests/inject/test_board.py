"""Faults in a simulated cluster: every kind put up by its text, its effect, and healing."""

import pytest

from tests.clusters import SMALL, events_of
from tests.xpmem.world import PAGE, PAGES, World, outcome_of
from xpmem_emu.errors import KernelError
from xpmem_emu.inject.events import InjectionBegin, InjectionEnd
from xpmem_emu.inject.table import INJECTIONS_MAX
from xpmem_emu.kernel import calls
from xpmem_emu.sim.cluster import SimCluster
from xpmem_emu.sim.injection.injections import HARNESS, SimInjections
from xpmem_emu.sim.ticket import Stuck
from xpmem_emu.units import MILLISECOND, SECOND

SIZE = PAGES * PAGE
MS = MILLISECOND


def loads(world: World, at: int) -> int:
    """How long a load takes in virtual time."""
    before = world.cluster.now_ns
    assert world.importer.load(at, 8) == b"exporter"
    return world.cluster.now_ns - before


def told(cluster: SimCluster) -> list[str]:
    return [record.name for record in cluster.trace if record.partid == HARNESS]


# -- the board --------------------------------------------------------------------------------


def test_begin_hits_and_end_are_in_the_event_stream(
    cluster: SimCluster, faults: SimInjections
) -> None:
    world = World(cluster)
    at = world.attached()
    name = faults.add("drop --match type=FAULT_REPLY --times 1 --for 3s")
    world.importer.load(at, 8)
    assert faults.board.rows()[0]["hits"] == 1
    cluster.run_for(3 * SECOND)
    assert (faults.board.rows(), cluster.interconnect.idle) == ([], True)
    assert told(cluster) == ["fabric:begin", "fabric:hit", "fabric:end"]
    ended = events_of(cluster.trace, InjectionEnd)
    assert (ended[0].name, ended[0].hits) == (name, 1)


def test_names_are_made_kept_and_refused(faults: SimInjections) -> None:
    assert [faults.add("drop --prob 0") for _ in range(2)] == ["drop-1", "drop-2"]
    for text, why in {
        "hold --name drop-1": "in force",
        "dorp": "no fault is called",
        "p0:mm.gup.pni=pause": "no failpoint",
        "p0:mm.mmap.reserve=pause": "atomic",
        "poison p0 0xffffffff": "has no frame",
    }.items():
        with pytest.raises(KernelError, match=why):
            faults.add(text)
    with pytest.raises(KernelError, match="no fault is named x"):
        faults.board.remove("x")
    assert faults.board.reset() == ["drop-1", "drop-2"]
    for _ in range(INJECTIONS_MAX):
        faults.add("drop --prob 0")
    with pytest.raises(KernelError, match="faults are in force"):
        faults.add("drop")


@pytest.mark.parametrize(
    "text",
    [
        "drop --prob 0",
        "link p0->p1 delay 5ms --jitter 9ms --prob 0",
        "split p0|p1 --prob 0",
        "corrupt --prob 0",
        "loss 0.5 --burst 3 --prob 0",
        "p0:kernel.call.begin=0%return",
    ],
)
def test_probability_0_changes_no_event_of_a_seeded_run(text: str) -> None:
    def run(*texts: str) -> list[object]:
        cluster = SimCluster(2, SMALL, seed=11)
        faults = SimInjections(cluster, seed=11)
        faults.add("drop --prob 0.05 --name noise")
        begun = len(cluster.trace)
        for each in texts:
            faults.add(each)
        cluster.run_until_active()
        world = World(cluster)
        at = world.attached()
        for page in range(PAGES):
            world.importer.store(at + page * PAGE, b"x" * 64)
        world.exporter.munmap(world.base, SIZE)
        cluster.run_for(SECOND)
        return [
            (r.time_ns, r.partid, r.thread, r.event)
            for r in cluster.trace[begun:]
            if not r.name.startswith("failpoint:")
            and "failpoint" not in r.thread
            and getattr(r.event, "op", "") != "failpoint_set"
            and not (isinstance(r.event, InjectionBegin) and "%return" in r.event.fault)
        ]

    assert run() == run(text)


# -- messages, links and membership -----------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "drop --prob 0.1 --match type=FAULT_REPLY",
        "duplicate",
        "delay 1ms --jitter 5ms",
        "reorder 2 --prob 0.3",
        "corrupt --match type=FAULT_REPLY,nth=2",
        "replay",
        "link p0<->p1 latency 2ms --jitter 1ms",
        "loss 0.1 --match type=FAULT_REPLY",
        "bandwidth 10M",
        "link *->p1 capacity 64",
        "flap 20ms --up 100ms",
    ],
)
def test_sharing_survives_what_a_network_may_do(
    cluster: SimCluster, faults: SimInjections, text: str
) -> None:
    world = World(cluster)
    at = world.attached()
    faults.add(text)
    for number in range(20):
        data = f"round {number}".encode()
        world.exporter.store(world.base, data)
        world.do(world.exporter, calls.Migrate(world.exporter.pid, world.base, SIZE))
        assert world.importer.load(at, len(data)) == data
    assert faults.board.rows()[0]["hits"]
    faults.board.reset()
    cluster.run_until_active()


def test_a_held_reply_waits_for_its_release(cluster: SimCluster, faults: SimInjections) -> None:
    world = World(cluster)
    at = world.attached()
    name = faults.add("hold --match type=FAULT_REPLY")
    access = world.importer.begin(calls.Load(world.importer.pid, at, 8))
    cluster.run_for(MS)
    assert access.outcome is None
    assert faults.board.rows()[0]["held"] == 1
    assert faults.board.release(name) == 1
    cluster.run_for(MS)
    assert bytes(access.answer().bulk) == b"exporter"
    faults.board.reset()


@pytest.mark.parametrize(
    "text", ["split p0|p1", "isolate p1", "asymmetric p0|p1", "link p0->p1 cut", "clog"]
)
def test_who_is_cut_off_is_lost_and_comes_back_when_it_heals(
    cluster: SimCluster, faults: SimInjections, text: str
) -> None:
    world = World(cluster)
    at = world.attached()
    world.importer.load(at, 8)
    faults.add(text)
    cluster.run_until(lambda: cluster.kernels[1].xpc.incarnation(0) is None)
    assert outcome_of(lambda: world.importer.load(at, 8)) == "SIGBUS"
    faults.board.reset()
    cluster.run_until_active()
    assert world.spawn(1).xpmem_get(world.segid) > 0


# -- clocks and pace --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["clock p1 jump 30s", "clock p0,p1 skew 0.5", "clock p1 skew -0.5", "clock p0 jump 1h"]
)
def test_only_deadlines_notice_a_clock(
    cluster: SimCluster, faults: SimInjections, text: str
) -> None:
    world = World(cluster)
    at = world.attached()
    world.importer.store(at, b"mine")
    kernel_time = cluster.kernels[1].scheduler.now_ns
    faults.add(text)
    cluster.run_for(2 * SECOND)
    cluster.run_until_active()
    assert world.exporter.load(world.base, 4) == b"mine"
    assert cluster.kernels[1].scheduler.now_ns > kernel_time
    faults.board.reset()
    before = cluster.kernels[1].scheduler.now_ns
    cluster.run_for(SECOND)
    passed = cluster.kernels[1].scheduler.now_ns - before
    assert 0.5 * SECOND < passed < 2 * SECOND


def test_a_frozen_clock_beats_no_heart_and_thaws(
    cluster: SimCluster, faults: SimInjections
) -> None:
    world = World(cluster)
    faults.add("clock p1 freeze --for 5s")
    cluster.run_until(lambda: cluster.kernels[0].xpc.incarnation(1) is None)
    frozen = cluster.kernels[1].scheduler.now_ns
    assert world.importer.mmap(PAGE)
    assert cluster.kernels[1].scheduler.now_ns == frozen
    cluster.run_for(5 * SECOND)
    cluster.run_until_active()


def test_a_throttled_partition_is_slow_and_loses_nothing(
    cluster: SimCluster, faults: SimInjections
) -> None:
    world = World(cluster)
    faults.add("throttle p0 8ms")
    before = cluster.now_ns
    maps = [world.exporter.begin(calls.Mmap(world.exporter.pid, PAGE)) for _ in range(10)]
    cluster.run_until(lambda: all(each.ended for each in maps))
    assert cluster.now_ns - before >= 72 * MS
    assert len({each.answer().value for each in maps}) == 10
    faults.board.reset()
    before = cluster.now_ns
    world.exporter.mmap(PAGE)
    assert cluster.now_ns == before


def test_a_stalled_partition_takes_everything_when_it_goes_on(
    cluster: SimCluster, faults: SimInjections
) -> None:
    world = World(cluster)
    at = world.attached()
    faults.add("stall p0 --for 200ms")
    assert loads(world, at) >= 200 * MS
    name = faults.add("stall p0")
    ticket = world.exporter.begin(calls.Mmap(world.exporter.pid, PAGE))
    with pytest.raises(Stuck):
        cluster.run_until(lambda: ticket.ended, limit_ns=100 * MS)
    faults.board.remove(name)
    assert ticket.answer().value


# -- partitions -------------------------------------------------------------------------------


def test_a_crash_heals_what_the_partition_sends_and_nothing_else(
    cluster: SimCluster, faults: SimInjections
) -> None:
    faults.add("drop --match type=GET")
    cluster.crash(1)
    cluster.boot(1)
    cluster.run_until_active()
    world = World(cluster)
    assert world.permit()
    away = cluster.spawn(1)
    segid = away.xpmem_make(away.mmap(PAGE), PAGE, 0o666)
    assert outcome_of(lambda: cluster.spawn(0).xpmem_get(segid)) != "ok"


def test_a_partition_in_a_crash_loop_harms_nobody_and_comes_back(cluster: SimCluster) -> None:
    for boot in range(2, 12):
        cluster.crash(1)
        cluster.boot(1)
        cluster.prove_gone(1, boot - 1)
        cluster.run_for(boot * 7 * MS)  # at every stage of coming back
    cluster.run_until_active()
    world = World(cluster)
    assert loads(world, world.attached()) >= 0
    assert {kernel.stopped for kernel in cluster.kernels.values()} == {None}


# -- numbers ----------------------------------------------------------------------------------


def test_a_pin_limit_bounds_what_importers_hold(cluster: SimCluster, faults: SimInjections) -> None:
    world = World(cluster)
    at = world.attached()
    name = faults.add("strain p0 pin_limit 3")
    for page in range(3):
        world.importer.load(at + page * PAGE, 1)
    assert cluster.audit(0)["pins"] == 3
    assert outcome_of(lambda: world.importer.load(at + 3 * PAGE, 1)) == "SIGBUS"
    faults.board.remove(name)
    world.importer.load(at, SIZE)


@pytest.mark.parametrize("near", [(1 << 31) - 4, (1 << 32) - 4])
@pytest.mark.parametrize("bound", ["sequence", "number"])
def test_nothing_happens_when_numbers_pass_2_to_the_31_and_32(
    cluster: SimCluster, faults: SimInjections, bound: str, near: int
) -> None:
    world = World(cluster)
    at = world.attached()
    faults.add(f"strain p0,p1 {bound} {near}")
    for number in range(12):
        data = f"round {number}".encode()
        world.exporter.store(world.base, data)
        assert world.importer.load(at, len(data)) == data
        world.do(world.exporter, calls.Migrate(world.exporter.pid, world.base, SIZE))
    seen = [
        getattr(r.event, bound)
        for r in cluster.trace
        if r.name in ("xpc:send", "xpmem:sequence") and hasattr(r.event, bound)
    ]
    assert max(seen) > near + 4
    assert cluster.kernels[0].xpc.counters["activations"] == 1


def test_a_failpoint_is_a_fault_like_the_others(cluster: SimCluster, faults: SimInjections) -> None:
    world = World(cluster)
    name = faults.add("p0:xpmem.make.segment=1*return(ENOSPC)->off")
    assert outcome_of(lambda: world.exporter.xpmem_make(world.base, PAGE)) == "ENOSPC"
    assert world.exporter.xpmem_make(world.base, PAGE)
    faults.board.remove(name)
    assert not cluster.kernels[0].failpoints.armed
