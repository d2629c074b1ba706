"""Losing a partner: importers and exporters that exit, crash, reboot, or only seem dead."""

import errno
from collections.abc import Callable

import pytest

from tests.clusters import events_of
from tests.xpmem.world import AT, FIXED, PAGE, PAGES, World, outcome_of
from xpmem_emu.errors import KernelError, Signalled
from xpmem_emu.kernel import calls
from xpmem_emu.mm import pte
from xpmem_emu.sim.cluster import SimCluster
from xpmem_emu.units import SECOND
from xpmem_emu.xpmem.events import RecallEnd
from xpmem_emu.xpmem.ids import unpack_id

SIZE = PAGES * PAGE


def lost(cluster: SimCluster, at: int, who: int) -> Callable[[], bool]:
    return lambda: cluster.kernels[at].xpc.incarnation(who) is None


def test_an_importer_that_exits_gives_everything_back(cluster: SimCluster) -> None:
    world = World(cluster)
    world.importer.load(world.attached(), SIZE)
    assert cluster.audit(0)["pins"] == PAGES
    world.importer.exit()
    cluster.run_for(1_000_000)
    audit = cluster.audit(0)
    assert (audit["pins"], audit["grants"]) == (0, 0)


def test_pages_stay_while_another_attachment_of_the_partition_shows_them(
    cluster: SimCluster,
) -> None:
    world = World(cluster)
    first = world.attached()
    second = world.spawn(1)
    at = second.xpmem_attach(second.xpmem_get(world.segid), 4 * PAGE, 4 * PAGE)
    world.importer.load(first, SIZE)
    world.importer.xpmem_detach(first)
    assert cluster.audit(0)["pins"] == 4
    before = len(cluster.trace)
    assert second.load(at, 8) == b"exporter"
    assert not [r for r in cluster.trace[before:] if r.name == "xpc:send"]
    second.xpmem_detach(at)
    assert cluster.audit(0)["pins"] == 0


def test_a_crashed_importers_pages_are_fenced_and_come_back_on_proof(cluster: SimCluster) -> None:
    world = World(cluster)
    world.importer.load(world.attached(), SIZE)
    cluster.crash(1)
    cluster.run_until(lost(cluster, 0, 1))
    cluster.run_for(SECOND)
    audit = cluster.audit(0)
    assert audit["pins"] == 0
    assert audit["quarantined"] == PAGES
    assert world.exporter.load(world.base, SIZE) == b"exporter" * (SIZE // 8)
    cluster.prove_gone(1)
    assert cluster.audit(0)["quarantined"] == 0


def test_a_store_that_wakes_late_lands_in_a_retired_frame(cluster: SimCluster) -> None:
    world = World(cluster)
    at = world.attached()
    world.importer.load(at, SIZE)
    table = cluster.kernels[1].tasks.find(world.importer.pid).mm.page_table
    gpfn = table.walk(at >> 12) >> 12
    stale = cluster.kernels[1].memory.physical.view(gpfn, 1)
    cluster.crash(1)
    cluster.run_until(lost(cluster, 0, 1))
    cluster.run_for(SECOND)
    stale[:8] = b"too late"
    assert world.exporter.load(world.base, 8) == b"exporter"
    for _ in range(3):
        other = world.spawn(0)
        there = other.mmap(SIZE)
        assert other.load(there, SIZE) == bytes(SIZE)
    cluster.prove_gone(1)


def test_an_importer_that_comes_back_in_a_newer_session_proves_that_it_left(
    cluster: SimCluster,
) -> None:
    world = World(cluster)
    world.importer.load(world.attached(), SIZE)
    cluster.hang(1)
    cluster.run_until(lost(cluster, 0, 1))
    cluster.run_for(SECOND)
    assert cluster.audit(0)["quarantined"] == PAGES
    cluster.resume(1)
    cluster.run_until_active()
    audit = cluster.audit(0)
    assert (audit["pins"], audit["quarantined"], audit["grants"]) == (0, 0, 0)


def test_a_new_boot_proves_nothing_about_the_process_before(cluster: SimCluster) -> None:
    world = World(cluster)
    at = world.attached()
    world.importer.load(at, SIZE)
    table = cluster.kernels[1].tasks.find(world.importer.pid).mm.page_table
    frames = [(table.walk((at >> 12) + page) >> 12) & pte.LOCAL_MASK for page in range(PAGES)]
    cluster.hang(1)
    stopped = cluster.supersede(1)
    cluster.run_until_active()
    cluster.run_for(SECOND)
    audit = cluster.audit(0)
    assert (audit["pins"], audit["quarantined"], audit["grants"]) == (0, PAGES, 0)
    stranger = world.spawn(0)
    there = stranger.mmap(4 * SIZE)
    stranger.store(there, bytes(4 * SIZE))
    arena = cluster.arena(0, 1)
    for frame in frames:  # the stopped process wakes in the middle of its store
        arena[frame * PAGE : (frame + 1) * PAGE] = b"!" * PAGE
    assert stranger.load(there, 4 * SIZE) == bytes(4 * SIZE)
    assert world.exporter.load(world.base, SIZE) == b"exporter" * (SIZE // 8)
    fresh = world.spawn(1)
    again = fresh.xpmem_attach(fresh.xpmem_get(world.segid), 0, SIZE)
    assert fresh.load(again, 8) == b"exporter"
    cluster.end_superseded(1, stopped)
    cluster.prove_gone(1, stopped)
    assert cluster.audit(0)["quarantined"] == 0
    assert fresh.load(again, 8) == b"exporter"


def test_proof_names_one_process_and_says_nothing_about_another(cluster: SimCluster) -> None:
    world = World(cluster)
    world.importer.load(world.attached(), SIZE)
    cluster.hang(1)
    stopped = cluster.supersede(1)
    cluster.run_until_active()
    cluster.crash(1)
    cluster.prove_gone(1)
    assert cluster.audit(0)["quarantined"] == PAGES
    cluster.end_superseded(1, stopped)
    cluster.prove_gone(1, stopped)
    assert cluster.audit(0)["quarantined"] == 0


def test_a_crashed_exporter_means_sigbus_with_the_reason(cluster: SimCluster) -> None:
    world = World(cluster)
    at = world.attached()
    world.importer.load(at, SIZE)
    cluster.crash(0)
    cluster.run_until(lost(cluster, 1, 0))
    with pytest.raises(Signalled) as signalled:
        world.importer.load(at, 8)
    assert "p0 is lost" in signalled.value.info.reason
    assert signalled.value.info.segid == world.segid
    world.importer.xpmem_detach(at)
    assert outcome_of(lambda: world.importer.load(at, 8)) == "SIGSEGV"


def test_ids_of_an_earlier_boot_resolve_to_nothing(cluster: SimCluster) -> None:
    world = World(cluster)
    apid = world.permit()
    cluster.crash(0)
    cluster.boot(0)
    cluster.run_until_active()
    stranger = world.spawn(0)
    fresh = stranger.xpmem_make(stranger.mmap(PAGE), PAGE, 0o666)
    same = unpack_id(fresh)._replace(boot=unpack_id(world.segid).boot)
    assert same == unpack_id(world.segid), "all is as before but for the boot"
    assert fresh != world.segid
    with pytest.raises(KernelError, match="of another boot than 2, which runs now") as caught:
        world.importer.xpmem_get(world.segid)
    assert caught.value.errno == errno.ENOENT
    assert "xpmem-emu get segments" in caught.value.remedy
    assert outcome_of(lambda: world.importer.xpmem_attach(apid, 0, SIZE)) == "ENOENT"
    world.importer.xpmem_release(apid)
    assert world.importer.xpmem_get(fresh)


def test_a_recall_of_a_crashed_holder_ends_by_its_deadline(cluster: SimCluster) -> None:
    world = World(cluster)
    world.importer.load(world.attached(), SIZE)
    cluster.crash(1)
    before = cluster.now_ns
    world.exporter.munmap(world.base, SIZE)
    deadlines = cluster.image.deadlines
    assert cluster.now_ns - before <= deadlines.recall_attempt * deadlines.recall_tries
    ends = events_of(cluster.trace, RecallEnd)
    assert ends[-1].fenced == [1]
    assert cluster.audit(0)["quarantined"] == PAGES
    cluster.prove_gone(1)


@pytest.mark.parametrize(
    "order",
    [
        "detach remove",
        "remove detach",
        "exit exporter",
        "exit importer",
        "release remove",
        "remove release",
    ],
)
def test_teardown_in_any_order_leaves_nothing(cluster: SimCluster, order: str) -> None:
    world = World(cluster)
    apid = world.permit()
    at = world.importer.xpmem_attach(apid, 0, SIZE, AT)
    world.importer.load(at, SIZE)
    steps: dict[str, Callable[[], object]] = {
        "detach": lambda: world.importer.xpmem_detach(at),
        "release": lambda: world.importer.xpmem_release(apid),
        "remove": lambda: world.exporter.xpmem_remove(world.segid),
        "exit": lambda: (world.exporter if "exporter" in order else world.importer).exit(),
    }
    for step in order.split():
        if step in steps:
            steps[step]()
    cluster.run_for(1_000_000)
    assert cluster.audit(0)["pins"] == 0


def test_an_exporter_that_exits_first_does_not_hold_the_importer(cluster: SimCluster) -> None:
    world = World(cluster)
    at = world.attached()
    world.importer.load(at, SIZE)
    world.exporter.exit()
    assert outcome_of(lambda: world.importer.load(at, 8)) == "SIGBUS"
    world.importer.exit()
    cluster.run_until(lambda: cluster.kernels[1].tasks.get(world.importer.pid) is None)


def test_atomic_operations_are_carried_out_by_the_home_partition(cluster: SimCluster) -> None:
    exporter, one, two = cluster.spawn(0), cluster.spawn(1), cluster.spawn(1)
    base = exporter.mmap(PAGE, flags=calls.MAP_SHARED | calls.MAP_ANONYMOUS | calls.MAP_UNCACHED)
    segid = exporter.xpmem_make(base, PAGE)
    spots = [(t, t.xpmem_attach(t.xpmem_get(segid), 0, PAGE)) for t in (one, two)]
    for task, at in spots:
        task.load(at, 8)
    tickets = [
        task.begin(calls.AtomicOp(task.pid, at, "add", 1)) for _ in range(50) for task, at in spots
    ]
    cluster.run_until(lambda: all(ticket.outcome for ticket in tickets))
    assert sorted(ticket.answer().value for ticket in tickets) == list(range(100))
    assert exporter.load(base, 8) == (100).to_bytes(8, "little")
    swap = calls.AtomicOp(one.pid, spots[0][1], "compare_swap", operand=7, compare=100)
    assert cluster.call(1, swap).value == 100
    assert exporter.load(base, 8) == (7).to_bytes(8, "little")


def test_atomic_operations_on_cached_memory_are_refused(cluster: SimCluster) -> None:
    world = World(cluster)
    at = world.attached()
    world.importer.load(at, 8)
    for task, address in ((world.importer, at), (world.exporter, world.base)):
        amo = calls.AtomicOp(task.pid, address, "add", 1)
        assert outcome_of(lambda t=task, a=amo: t.cluster.call(t.partid, a)) == "EINVAL"


@pytest.mark.parametrize("leave", ["detach", "release", "close", "exec"])
def test_giving_up_an_attachment_leaves_what_took_its_tails_place(
    cluster: SimCluster, leave: str
) -> None:
    world = World(cluster)
    task, tail = world.importer, AT + PAGE
    apid = world.permit()
    at = task.xpmem_attach(apid, 0, 3 * PAGE, AT)
    task.load(at, 3 * PAGE)
    task.mprotect(tail, PAGE, calls.PROT_READ)
    task.munmap(tail, PAGE)
    own = task.mmap(PAGE, flags=FIXED, address=tail)
    task.store(own, b"my own data")
    ways: dict[str, Callable[[], object]] = {
        "detach": lambda: task.xpmem_detach(at),
        "release": lambda: task.xpmem_release(apid),
        "close": lambda: world.do(task, calls.XpmemClose(task.pid)),
        "exec": lambda: world.do(task, calls.Exec(task.pid)),
    }
    ways[leave]()
    rows = cluster.call(1, calls.Look("tasks")).value
    assert [row["areas"] for row in rows] == [0 if leave == "exec" else 1]
    if leave != "exec":
        assert task.load(own, 11) == b"my own data"
    cluster.run_for(1_000_000)
    assert cluster.audit(0)["pins"] == 0


def test_detach_leaves_another_attachment_in_the_place_of_its_tail_alone(
    cluster: SimCluster,
) -> None:
    world = World(cluster)
    task, tail = world.importer, AT + PAGE
    first = task.xpmem_attach(world.permit(), 0, 2 * PAGE, AT)
    task.mprotect(tail, PAGE, calls.PROT_READ)
    second = task.xpmem_attach(world.permit(), 4 * PAGE, PAGE, tail)
    task.load(second, PAGE)
    before = len(cluster.trace)
    task.xpmem_detach(first)
    assert task.load(second, 8) == b"exporter"
    assert not [r for r in cluster.trace[before:] if r.name == "xpmem:fault_begin"]
