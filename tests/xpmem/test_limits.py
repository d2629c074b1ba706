"""Limits are reserved before anybody sleeps, and an exporter's hold whatever a peer sends."""

from collections.abc import Callable

from msgspec.structs import replace

from tests.clusters import SMALL, leftovers
from tests.xpmem.world import PAGE, PAGES, World, outcome_of
from xpmem_emu.kernel import breaking, calls
from xpmem_emu.sim.cluster import SimCluster
from xpmem_emu.units import MILLISECOND
from xpmem_emu.xpc.messages import Attach, AttachReply, Get, GetReply, Message
from xpmem_emu.xpmem.ids import IdParts

SIZE = PAGES * PAGE
Make = Callable[..., SimCluster]


def test_faults_that_pin_at_the_same_time_stay_within_the_limit_together(
    cluster: SimCluster,
) -> None:
    world = World(cluster)
    limit = PAGES + 2  # room for what one fault reads ahead, not for what two do
    cluster.call(0, breaking.Strain("pin_limit", limit))
    cluster.call(0, breaking.FailpointSet("mm.gup.pin", "delay(1ms)"))
    other = world.exporter.xpmem_make(world.base, SIZE, 0o640)
    tickets = []
    for segid in (world.segid, other):
        task = world.spawn(1)
        at = task.xpmem_attach(task.xpmem_get(segid), 0, SIZE)
        tickets.append(task.begin(calls.Load(task.pid, at, 8)))
    cluster.run_until(lambda: all(ticket.ended for ticket in tickets))
    assert [outcome_of(ticket.answer) for ticket in tickets] == ["ok", "ok"]
    assert PAGES < cluster.audit(0)["pins"] <= limit


def tight(**limits: int) -> SimCluster:
    """Only p1, which imports, has these limits: no exporter helps it to keep to them."""
    images = [SMALL, replace(SMALL, limits=replace(SMALL.limits, **limits))]
    cluster = SimCluster(2, SMALL, image_of=images.__getitem__, audits=True)
    cluster.run_until_active()
    return cluster


def test_gets_at_the_same_time_stay_within_the_permits_of_a_task_together() -> None:
    cluster = tight(permits_per_task=3)
    world = World(cluster)
    gets = [world.importer.begin(calls.XpmemGet(world.importer.pid, world.segid)) for _ in range(6)]
    cluster.run_until(lambda: all(get.ended for get in gets))
    assert [outcome_of(get.answer) for get in gets] == ["ok"] * 3 + ["ENOMEM"] * 3
    assert cluster.audit(1)["permits"] == 3
    world.importer.exit()
    assert leftovers(cluster) == {}


def test_attaches_at_the_same_time_stay_within_the_attachments_of_a_task_together() -> None:
    cluster = tight(attachments_per_task=3)
    world = World(cluster)
    apid, task = world.permit(), world.importer
    covered = task.mmap(6 * SIZE)
    holder = world.spawn(0)
    segid = task.xpmem_make(covered, 6 * SIZE, 0o666)
    holder.load(holder.xpmem_attach(holder.xpmem_get(segid), 0, 6 * SIZE), 6 * SIZE)
    attaches = [
        task.begin(calls.XpmemAttach(task.pid, apid, 0, SIZE, covered + each * SIZE))
        for each in range(6)
    ]
    cluster.run_until(lambda: all(attach.ended for attach in attaches))
    assert [outcome_of(attach.answer) for attach in attaches].count("ok") == 3
    assert {outcome_of(attach.answer) for attach in attaches} == {"ok", "ENOMEM"}
    assert cluster.audit(1)["attachments"] == 3
    assert leftovers(cluster) == {}


def test_a_task_makes_no_more_segments_than_its_image_allows() -> None:
    cluster = tight(segments_per_task=2)
    task = cluster.spawn(1)
    base = task.mmap(PAGE)
    first, _ = task.xpmem_make(base, PAGE), task.xpmem_make(base, PAGE)
    assert outcome_of(lambda: task.xpmem_make(base, PAGE)) == "ENOMEM"
    task.xpmem_remove(first)
    task.xpmem_make(base, PAGE)
    assert cluster.audit(1)["segments"] == 2
    assert leftovers(cluster) == {}


def test_an_attach_whose_permit_is_released_while_it_sleeps_leaves_nothing(
    make_cluster: Make,
) -> None:
    cluster = make_cluster(3)
    world = World(cluster)
    apid, task = world.permit(), world.importer
    covered = task.mmap(SIZE)
    segid = task.xpmem_make(covered, SIZE, 0o666)
    third = world.spawn(2)
    third.store(third.xpmem_attach(third.xpmem_get(segid), 0, SIZE), b"held")
    cluster.latency_ns = lambda src, dst: 5 * MILLISECOND if 2 in (src, dst) else 20_000
    attach = task.begin(calls.XpmemAttach(task.pid, apid, 0, SIZE, covered))
    cluster.run_for(2 * MILLISECOND)  # the mapping under it is being recalled from p2
    release = task.begin(calls.XpmemRelease(task.pid, apid))
    cluster.run_until(lambda: attach.ended and release.ended)
    assert outcome_of(attach.answer) == "ENOENT"
    assert outcome_of(release.answer) == "ok"
    found = cluster.kernels[1].tasks.find(task.pid).mm.vmas.find(covered)
    assert found is None
    audit = cluster.audit(1)
    assert (audit["permits"], audit["attachments"], audit["imports"]) == (0, 0, 0)
    cluster.latency_ns = lambda src, dst: 20_000


def flood(cluster: SimCluster, *requests: Message) -> list[Message]:
    """What p1's kernel is told when it sends these itself, past its own checks."""
    kernel, answers = cluster.kernels[1], []

    async def send() -> None:
        session = kernel.xpmem.homes.session(0)
        for request in requests:
            answers.append(await kernel.xpmem.homes.ask(0, request, session))

    kernel.scheduler.spawn("flood", send())
    cluster.poke(1)
    cluster.run_until(lambda: len(answers) == len(requests))
    return answers


def errnos(replies: list[Message]) -> list[int]:
    found = [reply.errno for reply in replies if isinstance(reply, GetReply | AttachReply)]
    assert len(found) == len(replies)
    return found


def test_a_peer_cannot_make_the_exporters_tables_grow_past_its_image(make_cluster: Make) -> None:
    limits = replace(SMALL.limits, permits_per_task=5, attachments_per_task=5, tasks=5)
    cluster = make_cluster(2, replace(SMALL, limits=limits))
    world = World(cluster)

    def get(tgid: int, uniq: int, partid: int = 1) -> Get:
        return Get(world.segid, IdParts(partid, 1, tgid, uniq).pack(), 2, 0, [], True)

    of_a_task = flood(cluster, *(get(70, uniq) for uniq in range(1, 9)))
    assert errnos(of_a_task) == [0] * 5 + [12] * 3
    of_tasks = flood(cluster, *(get(tgid, 1) for tgid in range(71, 79)))
    assert errnos(of_tasks) == [0] * 4 + [12] * 4
    apid = IdParts(1, 1, 70, 1).pack()
    attached = flood(cluster, *(Attach(apid, number, 0, PAGE) for number in range(1, 9)))
    assert errnos(attached) == [0] * 5 + [12] * 3
    foreign = flood(cluster, get(70, 9, partid=0))
    assert errnos(foreign) == [13]
    assert len(cluster.kernels[0].xpmem.exporter.grants) == 9
    world.exporter.exit()


def test_after_a_remove_a_load_and_an_atomic_operation_get_the_same_signal(
    make_cluster: Make,
) -> None:
    for touched in (True, False):
        cluster = make_cluster()
        world = World(cluster)
        flags = calls.MAP_PRIVATE | calls.MAP_ANONYMOUS | calls.MAP_UNCACHED
        word = world.exporter.mmap(PAGE, flags=flags)
        segid = world.exporter.xpmem_make(word, PAGE, 0o666)
        at = world.importer.xpmem_attach(world.importer.xpmem_get(segid), 0, PAGE)
        amo = calls.AtomicOp(world.importer.pid, at, "add", 1)
        if touched:
            world.importer.load(at, 8)
        world.exporter.xpmem_remove(segid)
        assert outcome_of(lambda c=cluster, a=amo: c.call(1, a)) == "SIGBUS"


def test_an_atomic_operation_waits_for_the_end_of_a_fork(cluster: SimCluster) -> None:
    world = World(cluster)
    flags = calls.MAP_PRIVATE | calls.MAP_ANONYMOUS | calls.MAP_UNCACHED
    word = world.exporter.mmap(PAGE, flags=flags)
    segid = world.exporter.xpmem_make(word, PAGE, 0o666)
    at = world.importer.xpmem_attach(world.importer.xpmem_get(segid), 0, PAGE)
    world.do(world.exporter, calls.XpmemForkBegin(world.exporter.pid))
    ticket = world.importer.begin(calls.AtomicOp(world.importer.pid, at, "add", 1))
    cluster.run_for(10 * MILLISECOND)
    assert not ticket.ended
    world.do(world.exporter, calls.XpmemForkEnd(world.exporter.pid))
    cluster.run_until(lambda: ticket.ended)
    assert ticket.answer().value == 0
