"""Attachments across coherence domains: p0 exports in domain A, p1 imports in domain B."""

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from tests.clusters import SMALL, events_of
from tests.xpmem.world import AT, PAGE, PAGES, World, outcome_of
from xpmem_emu.errors import Signalled
from xpmem_emu.image import Bytes, ExtensionSection, XpcSection
from xpmem_emu.kernel import breaking, calls
from xpmem_emu.sim.cluster import SimCluster
from xpmem_emu.sim.task import SimTask
from xpmem_emu.xpc.events import Sent

SIZE = PAGES * PAGE
MADE = b"exporter" * (SIZE // 8)
ANON = calls.MAP_PRIVATE | calls.MAP_ANONYMOUS
UNCACHED = calls.MAP_SHARED | calls.MAP_ANONYMOUS | calls.MAP_UNCACHED


@pytest.fixture
def world(make_cluster: Callable[..., SimCluster]) -> World:
    return World(make_cluster(domains="AB"))


def why(action: Callable[[], object]) -> str:
    with pytest.raises(Signalled) as caught:
        action()
    assert caught.value.info.signal.name == "SIGBUS"
    return caught.value.info.reason


def sent(cluster: SimCluster, since: int, kind: str) -> int:
    return sum(each.kind == kind for each in events_of(cluster.trace[since:], Sent))


def copies(cluster: SimCluster, since: int) -> int:
    return sent(cluster, since, "COPY")


# -- what an access is ------------------------------------------------------------------------


def test_loads_and_stores_reach_the_home_and_nothing_is_pinned_or_held(world: World) -> None:
    at = world.attached()
    assert world.importer.load(at, SIZE) == MADE
    world.importer.store(at + PAGE + 3, b"far")
    assert world.exporter.load(world.base + PAGE, 8) == b"expfarer"
    world.exporter.store(world.base, b"anew")
    assert world.importer.load(at, 4) == b"anew"
    audits = [world.cluster.audit(partid) for partid in (0, 1)]
    assert [(a["pins"], a["imported_pages"], a["far_accesses"]) for a in audits] == [(0, 0, 0)] * 2
    assert not [r for r in world.cluster.trace if r.name in ("xpmem:fault_begin", "xpmem:install")]


def test_every_access_is_a_message_and_inside_the_domain_a_warm_one_is_none(
    make_cluster: Callable[..., SimCluster],
) -> None:
    world = World(make_cluster(domains="AAB"))
    near, far = world.importer, world.spawn(2)
    spots = {t: t.xpmem_attach(t.xpmem_get(world.segid), 0, SIZE, AT) for t in (near, far)}
    for expected, task in ((0, near), (5, far)):
        task.load(spots[task], 8)
        before = len(world.cluster.trace)
        for _ in range(5):
            assert task.load(spots[task], 8) == b"exporter"
        assert copies(world.cluster, before) == expected
    near.store(spots[near], b"from p1.")
    assert far.load(spots[far], 8) == b"from p1."
    far.store(spots[far], b"from p2.")
    assert near.load(spots[near], 8) == b"from p2."


def test_accesses_straddle_pages_and_areas_and_have_any_size(world: World) -> None:
    at = world.attached()
    behind = world.importer.mmap(PAGE, flags=calls.MAP_FIXED | ANON, address=at + SIZE)
    world.importer.store(at + PAGE - 3, b"seven!!")
    assert world.importer.load(at + PAGE - 3, 7) == b"seven!!"
    assert world.exporter.load(world.base + PAGE - 4, 9) == b"rseven!!r"
    world.importer.store(at + SIZE - 4, b"both sides")
    assert world.exporter.load(world.base + SIZE - 4, 4) == b"both"
    assert world.importer.load(at + SIZE - 4, 10) == b"both sides"
    assert world.importer.load(behind, 6) == b" sides"
    world.importer.store(at + 5, b"x")
    assert world.importer.load(at, 8) == b"exporxer"


@pytest.mark.parametrize("slots", [2, 128])
def test_a_bulk_access_goes_in_blocks_of_the_payload_several_at_a_time(
    make_cluster: Callable[..., SimCluster], slots: int
) -> None:
    image = replace(SMALL, xpc=XpcSection(payload=Bytes(8192), slots=slots))
    world = World(make_cluster(image=image, domains="AB"))
    at = world.attached()
    world.importer.load(at, 8)
    before, begun = len(world.cluster.trace), world.cluster.now_ns
    assert world.importer.load(at, SIZE) == MADE
    took = world.cluster.now_ns - begun
    assert copies(world.cluster, before) == SIZE // 8192
    one = world.cluster.now_ns
    world.importer.load(at, 8)
    assert took < (world.cluster.now_ns - one) * (SIZE // 8192)
    data = bytes(range(256)) * (SIZE // 256)
    world.importer.store(at + 8, data[8:])
    assert world.exporter.load(world.base, SIZE) == MADE[:8] + data[8:]


def test_two_attachments_of_one_segment_are_windows_on_the_same_bytes(world: World) -> None:
    other = world.spawn(1)
    one = world.attached()
    two = other.xpmem_attach(other.xpmem_get(world.segid), 4 * PAGE, 4 * PAGE)
    world.importer.store(one + 4 * PAGE, b"both see")
    assert other.load(two, 8) == b"both see"
    world.importer.xpmem_detach(one)
    assert other.load(two, 8) == b"both see"
    assert outcome_of(lambda: world.importer.load(one, 8)) == "SIGSEGV"


def test_both_partitions_export_to_each_other(world: World) -> None:
    base = world.importer.mmap(SIZE)
    world.importer.store(base, b"of p1")
    segid = world.importer.xpmem_make(base, SIZE, 0o666)
    at = world.exporter.xpmem_attach(world.exporter.xpmem_get(segid), 0, SIZE)
    assert world.exporter.load(at, 5) == b"of p1"
    world.exporter.store(at, b"by p0")
    assert world.importer.load(base, 5) == b"by p0"


def test_atomic_operations_are_carried_out_at_home_once_each(world: World) -> None:
    word = world.exporter.mmap(PAGE, flags=UNCACHED)
    segid = world.exporter.xpmem_make(word, PAGE, 0o666)
    at = world.importer.xpmem_attach(world.importer.xpmem_get(segid), 0, PAGE)
    tickets = [
        world.importer.begin(calls.AtomicOp(world.importer.pid, at, "add", 1)) for _ in range(40)
    ]
    world.cluster.run_until(lambda: all(ticket.ended for ticket in tickets))
    assert sorted(ticket.answer().value for ticket in tickets) == list(range(40))
    assert world.importer.load(at, 8) == (40).to_bytes(8, "little")
    cached = calls.AtomicOp(world.importer.pid, world.attached(), "add", 1)
    assert outcome_of(lambda: world.cluster.call(1, cached)) == "EINVAL"


def test_what_an_attachment_is_can_be_seen(world: World) -> None:
    at = world.attached()
    world.importer.load(at, 8)
    row = world.cluster.call(1, calls.Look("attachments")).value[0]
    assert (row["access"], row["held_pages"]) == ("by message", 0)
    walk = world.cluster.call(1, calls.Pagetable(world.importer.pid, at)).value
    assert walk["entry"] == "none: every access is a message"
    names = {record.name for record in world.cluster.trace}
    assert {"xpmem:attach_by_message", "xpmem:access_by_message", "xpmem:copy_serve"} <= names


# -- what the exporter does -------------------------------------------------------------------

EXPORTER_DOES: list[tuple[str, Callable[[World], object], str]] = [
    ("munmap", lambda w: w.exporter.munmap(w.base, PAGE), "nothing is mapped"),
    ("mprotect to none", lambda w: w.exporter.mprotect(w.base, PAGE, 0), "forbids all access"),
    (
        "mremap away",
        lambda w: w.do(w.exporter, calls.Mremap(w.exporter.pid, w.base, PAGE, PAGE, 3, AT * 3)),
        "nothing is mapped",
    ),
    ("remove", lambda w: w.exporter.xpmem_remove(w.segid), "the exporter removed the segment"),
    ("close", lambda w: w.do(w.exporter, calls.XpmemClose(w.exporter.pid)), "exporter exited"),
    ("exec", lambda w: w.do(w.exporter, calls.Exec(w.exporter.pid)), "exporter exited"),
    ("exit", lambda w: w.exporter.exit(), "exporter exited"),
    ("kill", lambda w: w.exporter.kill(), "exporter exited"),
]


@pytest.mark.parametrize(
    ("act", "reason"), [row[1:] for row in EXPORTER_DOES], ids=[row[0] for row in EXPORTER_DOES]
)
def test_the_next_access_is_sigbus_with_the_reason(
    world: World, act: Callable[[World], object], reason: str
) -> None:
    at = world.attached()
    assert world.importer.load(at, 8) == b"exporter"
    act(world)
    assert reason in why(lambda: world.importer.load(at, 8))
    assert reason in why(lambda: world.importer.store(at, b"x"))
    world.importer.xpmem_detach(at)


def test_a_removed_segment_is_asked_about_once(world: World) -> None:
    at = world.attached()
    world.exporter.xpmem_remove(world.segid)
    why(lambda: world.importer.load(at, 8))
    before = len(world.cluster.trace)
    assert why(lambda: world.importer.load(at, 8)) == "the exporter removed the segment"
    assert copies(world.cluster, before) == 0
    row = world.cluster.call(1, calls.Look("attachments")).value[0]
    assert row["state"] == "the exporter removed the segment"


def test_memory_that_came_new_is_seen_at_once(world: World) -> None:
    at = world.attached()
    world.importer.load(at, SIZE)
    world.exporter.madvise(world.base, PAGE, calls.MADV_DONTNEED)
    assert world.importer.load(at, 8) == bytes(8)
    world.exporter.munmap(world.base, SIZE)
    world.exporter.mmap(SIZE, flags=calls.MAP_FIXED | ANON, address=world.base)
    world.exporter.store(world.base, b"the next")
    assert world.importer.load(at, 8) == b"the next"


def test_pages_that_are_out_are_faulted_in_at_home(world: World) -> None:
    at = world.attached()
    out = calls.Reclaim(PAGES, world.exporter.pid, world.base, SIZE)
    assert world.do(world.exporter, out) == PAGES
    assert world.importer.load(at, SIZE) == MADE
    world.do(world.exporter, out)
    world.importer.store(at + PAGE, b"in again")
    assert world.exporter.load(world.base + PAGE, 8) == b"in again"


def test_a_truncated_file_is_sigbus_beyond_its_end_and_grows_back(world: World) -> None:
    world.cluster.call(0, calls.Creat("f", 2 * PAGE))
    base = world.exporter.mmap(2 * PAGE, flags=calls.MAP_SHARED, file="f")
    segid = world.exporter.xpmem_make(base, 2 * PAGE, 0o666)
    at = world.importer.xpmem_attach(world.importer.xpmem_get(segid), 0, 2 * PAGE)
    world.importer.store(at + PAGE, b"stored")
    assert world.cluster.call(0, calls.Pread("f", PAGE, 6)).bulk == b"stored"
    world.cluster.call(0, calls.Truncate("f", PAGE))
    assert "beyond the end" in why(lambda: world.importer.load(at + PAGE, 8))
    assert world.importer.load(at, 8) == bytes(8)


def test_a_fork_of_the_exporter_leaves_the_importer_with_the_parents_page(world: World) -> None:
    at = world.attached()
    child = world.exporter.fork()
    world.importer.store(at, b"from far")
    assert world.exporter.load(world.base, 8) == b"from far"
    assert child.load(world.base, 8) == b"exporter"
    child.store(world.base, b"by child")
    assert world.importer.load(at, 8) == b"from far"


def test_memory_that_the_exporter_may_only_read_is_not_stored_into_for_others(world: World) -> None:
    at = world.attached()
    world.exporter.mprotect(world.base, SIZE, calls.PROT_READ)
    assert world.importer.load(at, 8) == b"exporter"
    assert "may not store" in why(lambda: world.importer.store(at, b"x"))


def test_a_poisoned_page_is_a_machine_check_for_an_access_and_an_error_for_a_transfer(
    world: World,
) -> None:
    at, apid = world.attached(), world.permit()
    table = world.cluster.kernels[0].tasks.find(world.exporter.pid).mm.page_table
    frame = table.walk(world.base >> 12) >> 12
    world.cluster.call(0, breaking.Poison(0, frame))
    copy = calls.XpmemCopy(world.importer.pid, apid, 0, apid, PAGE, 8)
    assert outcome_of(lambda: world.do(world.importer, copy)) == "EIO"
    with pytest.raises(Signalled) as caught:
        world.importer.load(at, 8)
    assert caught.value.info.forced
    assert "machine check" in caught.value.info.reason
    assert outcome_of(lambda: world.importer.load(at, 8)) in ("SIGBUS", "ESRCH")
    world.cluster.call(0, breaking.Unpoison(0, frame))


def test_accesses_wait_between_fork_begin_and_fork_end(world: World) -> None:
    at = world.attached()
    world.do(world.exporter, calls.XpmemForkBegin(world.exporter.pid))
    ticket = world.importer.begin(calls.Load(world.importer.pid, at, 8))
    world.cluster.run_for(50_000_000)
    assert not ticket.ended
    world.do(world.exporter, calls.XpmemForkEnd(world.exporter.pid))
    world.cluster.run_until(lambda: ticket.ended)
    assert bytes(ticket.answer().bulk) == b"exporter"


def test_an_attachment_of_an_attachment_is_refused_at_its_touch(world: World) -> None:
    at = world.attached()
    again = world.importer.xpmem_make(at, SIZE, 0o666)
    there = world.exporter.xpmem_attach(world.exporter.xpmem_get(again), 0, SIZE)
    assert "attachment" in why(lambda: world.exporter.load(there, 8))
    local = world.spawn(1)
    here = local.xpmem_attach(local.xpmem_get(again), 0, SIZE)
    assert "attachment" in why(lambda: local.load(here, 8))


# -- what the importer does -------------------------------------------------------------------


def test_the_importer_forks_protects_and_zaps_as_inside_the_domain(world: World) -> None:
    at = world.attached()
    child = world.importer.fork()
    assert outcome_of(lambda: child.load(at, 8)) == "SIGSEGV"
    assert outcome_of(lambda: world.importer.madvise(at, PAGE, calls.MADV_DONTNEED)) == "EINVAL"
    world.do(world.importer, calls.ZapPageRange(world.importer.pid, at, SIZE))
    assert world.importer.load(at, 8) == b"exporter"
    world.importer.mprotect(at, SIZE, calls.PROT_READ)
    assert outcome_of(lambda: world.importer.store(at, b"x")) == "SIGSEGV"
    assert world.importer.load(at, 8) == b"exporter"
    world.importer.mprotect(at, SIZE, calls.PROT_NONE)
    assert outcome_of(lambda: world.importer.load(at, 8)) == "SIGSEGV"
    world.importer.mprotect(at, PAGE, calls.PROT_READ)
    assert world.importer.load(at, 8) == b"exporter"
    assert outcome_of(lambda: world.importer.load(at + PAGE, 8)) == "SIGSEGV"
    world.importer.mprotect(at + PAGE, SIZE - PAGE, calls.PROT_READ)
    assert "cut off" in why(lambda: world.importer.load(at + PAGE, 8))


def test_an_importer_that_unmaps_it_itself_is_killed(world: World) -> None:
    at = world.attached()
    outcome_of(lambda: world.importer.munmap(at + PAGE, PAGE))
    assert outcome_of(lambda: world.importer.load(at, 8)) in ("SIGKILL", "ESRCH")


@pytest.mark.parametrize("how", ["detach", "release", "exit", "close"])
def test_ends_of_the_importer_leave_nothing_at_home(world: World, how: str) -> None:
    apid = world.permit()
    at = world.importer.xpmem_attach(apid, 0, SIZE, AT)
    world.importer.load(at, SIZE)
    ends: dict[str, Callable[[], object]] = {
        "detach": lambda: world.importer.xpmem_detach(at),
        "release": lambda: world.importer.xpmem_release(apid),
        "exit": lambda: world.importer.exit(),
        "close": lambda: world.do(world.importer, calls.XpmemClose(world.importer.pid)),
    }
    ends[how]()
    world.cluster.run_for(1_000_000)
    assert world.cluster.audit(0)["grants"] == (1 if how == "detach" else 0)


def test_a_transfer_works_when_caller_source_and_target_are_of_three_domains(
    make_cluster: Callable[..., SimCluster],
) -> None:
    world = World(make_cluster(domains="ABC"))
    third = world.spawn(2)
    base = third.mmap(SIZE)
    target = world.importer.xpmem_get(third.xpmem_make(base, SIZE, 0o666))
    copy = calls.XpmemCopy(world.importer.pid, world.permit(), 8, target, 0, SIZE - 8)
    world.do(world.importer, copy)
    assert third.load(base, SIZE - 8) == MADE[8:]


def test_a_read_only_permit_reads_and_never_stores(make_cluster: Callable[..., SimCluster]) -> None:
    image = replace(SMALL, extensions=ExtensionSection(readonly_attach=True))
    world = World(make_cluster(image=image, domains="AB"))
    at = world.importer.xpmem_attach(world.permit(1), 0, SIZE)
    assert world.importer.load(at, 8) == b"exporter"
    assert outcome_of(lambda: world.importer.store(at, b"x")) == "SIGSEGV"
    assert outcome_of(lambda: world.importer.mprotect(at, SIZE, 3)) == "EACCES"


def test_a_task_of_the_same_partition_uses_no_permit_but_its_own(world: World) -> None:
    apid, other = world.permit(), world.spawn(1)
    assert outcome_of(lambda: other.xpmem_attach(apid, 0, SIZE)) == "EACCES"
    copy = calls.XpmemCopy(other.pid, apid, 0, apid, PAGE, PAGE)
    assert outcome_of(lambda: world.do(SimTask(world.cluster, 1, other.pid), copy)) == "EACCES"
