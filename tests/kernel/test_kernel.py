"""The kernel as a whole: calls, tasks and signals, looking, panic, shutdown."""

from collections.abc import Callable

import pytest

from tests.clusters import SMALL
from tests.xpmem.world import AT, PAGE, PAGES, World, outcome_of
from xpmem_emu.errors import KernelBug, KernelError, Signalled, errno_name
from xpmem_emu.image import ExtensionSection, Image, LimitsSection
from xpmem_emu.kernel import breaking, calls
from xpmem_emu.kernel.interface import Failed, Halt, Panic, Request, Tick
from xpmem_emu.sim.cluster import SimCluster
from xpmem_emu.sim.task import SimTask
from xpmem_emu.units import SECOND

TABLES = (
    "segments",
    "permits",
    "attachments",
    "faults",
    "partitions",
    "channels",
    "pins",
    "tasks",
    "files",
)


@pytest.mark.parametrize("kind", TABLES)
def test_rows_of_a_table_have_the_same_keys_and_say_their_partition(
    cluster: SimCluster, kind: str
) -> None:
    world = World(cluster)
    world.importer.load(world.attached(), PAGE)
    cluster.call(0, calls.Creat("f", PAGE))
    rows = [row for partid in (0, 1) for row in cluster.call(partid, calls.Look(kind)).value]
    assert rows or kind == "faults"
    assert all(row["partid"] in (0, 1) for row in rows)
    assert len({tuple(row) for row in rows}) <= 1


def test_an_unknown_table_names_the_ones_there_are(cluster: SimCluster) -> None:
    with pytest.raises(KernelError) as refused:
        cluster.call(0, calls.Look("elephants"))
    assert "segments" in refused.value.remedy


def test_describe_tells_an_object_with_its_relatives(cluster: SimCluster) -> None:
    world = World(cluster)
    apid = world.permit()
    at = world.importer.xpmem_attach(apid, 0, PAGES * PAGE, AT)
    world.exporter.munmap(world.base, PAGE)
    assert outcome_of(lambda: world.importer.load(at, 8)) == "SIGBUS"
    permit = cluster.call(1, calls.Describe(hex(apid))).value
    assert permit["kind"] == "permit"
    assert "nothing is mapped" in permit["attachments"][0]["last_failure"]
    assert cluster.call(0, calls.Describe(str(world.segid))).value["holders"] == {}
    assert cluster.call(0, calls.Describe("p1")).value["state"] == "ACTIVE"
    assert outcome_of(lambda: cluster.call(0, calls.Describe("4711"))) == "ENOENT"
    assert outcome_of(lambda: cluster.call(0, calls.Describe("nonsense"))) == "EINVAL"


def test_pagetable_shows_the_walk_level_by_level(cluster: SimCluster) -> None:
    world = World(cluster)
    at = world.attached()
    absent = cluster.call(1, calls.Pagetable(world.importer.pid, at)).value
    assert absent["entry"] == "absent"
    world.importer.load(at, 8)
    present = cluster.call(1, calls.Pagetable(world.importer.pid, at)).value
    assert [level["level"] for level in present["levels"]] == ["pgd", "pud", "pmd"]
    assert "special" in present["entry"]


def test_status_counts(cluster: SimCluster) -> None:
    World(cluster)
    status = cluster.call(0, calls.Status()).value
    assert status["peers"]["1"]["state"] == "ACTIVE"
    assert status["frames_used"] == PAGES
    assert status["tasks"] == 1
    assert status["counters"]["received"] > 0


def test_a_call_for_a_dead_task_says_what_became_of_it(cluster: SimCluster) -> None:
    world = World(cluster)
    world.importer.kill()
    with pytest.raises(KernelError) as refused:
        world.importer.load(AT, 8)
    assert refused.value.errno == 3
    assert "SIGKILL" in refused.value.cause


def test_an_unhandled_signal_kills_the_task(cluster: SimCluster) -> None:
    pid = cluster.call(0, calls.Spawn(handled=[])).value
    task = SimTask(cluster, 0, pid)
    with pytest.raises(Signalled) as signalled:
        task.load(AT, 8)
    assert signalled.value.info.signal.name == "SIGSEGV"
    cluster.run_until(lambda: cluster.kernels[0].tasks.get(pid) is None)


def test_a_handled_signal_fails_the_access_and_the_task_lives(cluster: SimCluster) -> None:
    world = World(cluster)
    assert outcome_of(lambda: world.importer.load(AT, 8)) == "SIGSEGV"
    rows = cluster.call(1, calls.Look("tasks")).value
    assert "SIGSEGV" in rows[0]["last_signal"]
    world.importer.mmap(PAGE)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (calls.Spawn(handled=[9]), "EINVAL"),
        (calls.Kill(4711), "ESRCH"),
        (calls.Exit(4711), "ESRCH"),
        (calls.Fork(4711), "ESRCH"),
        (calls.Unlink("nothing"), "ENOENT"),
        (calls.Truncate("nothing", 0), "ENOENT"),
        (calls.Pread("nothing", 0, 1), "ENOENT"),
        (calls.Creat("huge", 1 << 40), "EFBIG"),
        (calls.XpmemFind("nothing"), "ENOENT"),
    ],
    ids=str,
)
def test_refusals_without_a_task(cluster: SimCluster, call: calls.Call, expected: str) -> None:
    assert outcome_of(lambda: cluster.call(0, call)) == expected


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda pid: calls.Kill(pid, 5), "EINVAL"),
        (lambda pid: calls.Mmap(pid, PAGE, 8), "EINVAL"),
        (lambda pid: calls.Mmap(pid, PAGE, 3, 0x20), "EINVAL"),
        (lambda pid: calls.Mmap(pid, PAGE, 3, 0x23), "EINVAL"),
        (lambda pid: calls.Mmap(pid, PAGE, 3, 0x22, 0, "f"), "EINVAL"),
        (lambda pid: calls.Mmap(pid, PAGE, 3, 0x01), "EINVAL"),
        (lambda pid: calls.Mmap(pid, PAGE, 3, 0x01, 0, "nothing"), "ENOENT"),
        (lambda pid: calls.AtomicOp(pid, AT, "multiply"), "EINVAL"),
        (lambda pid: calls.AtomicOp(pid, AT, "add"), "SIGSEGV"),
        (lambda pid: calls.XpmemForkEnd(pid), "EINVAL"),
    ],
)
def test_refusals_of_a_task(cluster: SimCluster, call: object, expected: str) -> None:
    world = World(cluster)
    assert callable(call)
    assert outcome_of(lambda: world.do(world.exporter, call(world.exporter.pid))) == expected


def test_the_image_bounds_tasks_and_threads(make_cluster: Callable[..., SimCluster]) -> None:
    cluster = make_cluster(2, Image(memory=SMALL.memory, limits=LimitsSection(tasks=2, threads=16)))
    world = World(cluster)
    cluster.spawn(1)
    assert outcome_of(lambda: cluster.call(1, calls.Spawn())) == "EAGAIN"
    at = world.attached()
    cluster.crash(0)
    tickets = [world.importer.begin(calls.Load(world.importer.pid, at, 8)) for _ in range(20)]
    refused = [ticket.outcome for ticket in tickets if isinstance(ticket.outcome, Failed)]
    assert 4 <= len(refused) < 20
    assert {outcome.errno for outcome in refused} == {11}


def test_a_broken_invariant_panics_that_partition_alone(cluster: SimCluster) -> None:
    world = World(cluster)
    at = world.attached()
    world.importer.load(at, 8)
    cluster.kernels[0].memory.frames.pins[1] += 1
    ticket = cluster.submit(0, calls.Audit())
    kernel = cluster.kernels[0]
    assert isinstance(kernel.stopped, Panic)
    assert "S3" in kernel.stopped.reason
    assert "audit.py" in kernel.stopped.place
    assert isinstance(ticket.outcome, Failed)
    assert kernel.step(cluster.now_ns, Tick()).trace == []
    cluster.run_until(lambda: cluster.kernels[1].xpc.incarnation(0) is None)
    assert outcome_of(lambda: world.importer.load(at, 8)) == "SIGBUS"
    assert cluster.kernels[1].stopped is None


def test_shutdown_ends_tasks_leaves_peers_and_halts(cluster: SimCluster) -> None:
    world = World(cluster)
    at = world.attached()
    world.importer.load(at, PAGE)
    before = cluster.now_ns
    cluster.call(0, calls.Shutdown("enough"))
    assert cluster.now_ns - before < 3 * SECOND
    assert cluster.kernels[0].stopped == Halt("enough")
    assert outcome_of(lambda: world.importer.load(at, 8)) == "SIGBUS"


def test_a_shutdown_answers_every_call_and_begins_no_work(cluster: SimCluster) -> None:
    world = World(cluster)
    cluster.call(0, breaking.FailpointSet("kernel.call.before_answer", "1*pause"))
    paused = cluster.submit(0, calls.Spawn())
    cluster.call(0, breaking.FailpointSet("kernel.task.before_reap", "delay(1ms)"))
    shutdown, second = (cluster.submit(0, calls.Shutdown()) for _ in range(2))
    assert outcome_of(lambda: cluster.call(0, calls.Spawn())) == "ESHUTDOWN"
    assert outcome_of(lambda: cluster.call(0, calls.Mmap(world.exporter.pid, PAGE))) == "ESHUTDOWN"
    cluster.run_until(lambda: shutdown.ended)
    assert shutdown.answer().value is None
    assert outcome_of(paused.answer) == outcome_of(second.answer) == "ESHUTDOWN"
    assert cluster.outstanding == []


def test_a_kernel_that_stopped_answers_whoever_still_asks(cluster: SimCluster) -> None:
    cluster.call(0, calls.Shutdown())
    cluster.submit(1, breaking.CrashKernel())
    for partid, name in ((0, "ESHUTDOWN"), (1, "EIO")):
        effects = cluster.kernels[partid].step(cluster.now_ns, Request(7, calls.Status()))
        (reply,) = effects.replies
        assert isinstance(reply.outcome, Failed)
        assert (reply.call_id, errno_name(reply.outcome.errno)) == (7, name)


def test_a_call_that_panics_before_it_has_a_thread_is_answered(cluster: SimCluster) -> None:
    cluster.call(0, breaking.FailpointSet("kernel.call.begin", "panic"))
    assert outcome_of(lambda: cluster.call(0, calls.Spawn())) == "EIO"


def test_who_leaves_root_leaves_its_capability_behind(cluster: SimCluster) -> None:
    world = World(cluster)
    segid = world.exporter.xpmem_make(world.base, PAGE, 0o600)
    root = cluster.spawn(1, uid=0)
    assert root.xpmem_get(segid)
    for uid, gids, expected in (
        (1001, [100], "EACCES"),
        (1000, [], "ok"),
        (1001, [0], "EACCES"),
        (0, [], "ok"),
    ):
        cluster.call(1, calls.Setuid(root.pid, uid, gids))
        assert outcome_of(lambda: root.xpmem_get(segid)) == expected, uid


def test_a_capability_that_was_given_stays_with_its_task(cluster: SimCluster) -> None:
    world = World(cluster)
    segid = world.exporter.xpmem_make(world.base, PAGE, 0o600)
    pid = cluster.call(1, calls.Spawn(uid=1001, cap_ipc_owner=True)).value
    capable = SimTask(cluster, 1, pid)
    capable.xpmem_open()
    cluster.call(1, calls.Setuid(pid, 1002, []))
    assert capable.xpmem_get(segid)


def test_exec_gives_a_fresh_address_space_and_no_xpmem_state(cluster: SimCluster) -> None:
    world = World(cluster)
    at = world.attached()
    world.importer.load(at, 8)
    world.do(world.importer, calls.Exec(world.importer.pid))
    assert outcome_of(lambda: world.importer.load(at, 8)) == "SIGSEGV"
    assert outcome_of(lambda: world.importer.xpmem_make(AT, PAGE)) == "NOPROC"
    cluster.run_for(1_000_000)
    assert cluster.audit(0)["pins"] == 0


def test_the_same_events_give_the_same_stream() -> None:
    def run() -> list[dict[str, object]]:
        cluster = SimCluster(3, SMALL, seed=1)
        cluster.run_until_active()
        world = World(cluster)
        world.importer.load(world.attached(), PAGES * PAGE)
        world.exporter.exit()
        return [record.flat() for record in cluster.trace]

    assert run() == run()


def test_names_need_the_extension_and_are_found_on_any_partition(
    make_cluster: Callable[..., SimCluster],
) -> None:
    image = Image(memory=SMALL.memory, extensions=ExtensionSection(segment_names=True))
    cluster = make_cluster(2, image)
    world = World(cluster)
    named = calls.XpmemMake(world.exporter.pid, world.base, PAGE, 1, 0o600, "field")
    segid = world.do(world.exporter, named)
    assert cluster.call(1, calls.XpmemFind("field")).value == segid
    assert outcome_of(lambda: world.do(world.exporter, named)) == "EEXIST"


def test_read_only_attachments_need_the_extension(make_cluster: Callable[..., SimCluster]) -> None:
    world = World(make_cluster(2))
    with pytest.raises(KernelError, match=r"unless the image has extensions\.readonly_attach"):
        world.importer.xpmem_attach(world.permit(1), 0, PAGE)
    image = Image(memory=SMALL.memory, extensions=ExtensionSection(readonly_attach=True))
    cluster = make_cluster(2, image)
    world = World(cluster)
    at = world.importer.xpmem_attach(world.permit(1), 0, PAGE)
    assert world.importer.load(at, 8) == b"exporter"
    assert outcome_of(lambda: world.importer.store(at, b"x")) == "SIGSEGV"
    assert outcome_of(lambda: world.importer.mprotect(at, PAGE, 3)) == "EACCES"
    assert outcome_of(lambda: world.importer.store(at, b"x")) == "SIGSEGV"


def test_a_killed_call_is_told_the_signal(cluster: SimCluster) -> None:
    world = World(cluster)
    at = world.attached()
    cluster.crash(0)
    ticket = world.importer.begin(calls.Load(world.importer.pid, at, 8))
    world.importer.kill()
    assert outcome_of(ticket.answer) == "SIGKILL"


def test_kernel_bugs_in_a_step_never_leave_the_step(
    cluster: SimCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = cluster.kernels[0]

    def broken(*_: object) -> None:
        raise KernelBug("on purpose")

    monkeypatch.setattr(kernel.tasks, "spawn", broken)
    effects = kernel.step(cluster.now_ns, Request(1 << 40, calls.Spawn()))
    assert isinstance(effects.stopped, Panic)
    assert [reply.call_id for reply in effects.replies] == [1 << 40]
