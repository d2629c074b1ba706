"""One declaration bounds calls and messages: no argument of a caller, however large, and no table
of ours, however long, becomes a message that its receiver would drop as bad."""

import random
from collections.abc import Callable

import pytest

from tests.clusters import events_of
from tests.xpmem.world import AT, PAGE, PAGES, World, outcome_of
from xpmem_emu.kernel import calls
from xpmem_emu.kernel.calls import Call
from xpmem_emu.kernel.interface import Done
from xpmem_emu.sim.cluster import SimCluster
from xpmem_emu.units import MILLISECOND, TASK_SIZE
from xpmem_emu.xpc.events import Sent
from xpmem_emu.xpc.messages import Fault, FaultReply
from xpmem_emu.xpc.wire import Requester
from xpmem_emu.xpmem import exporter, import_registry, recall

SIZE = PAGES * PAGE
EDGES = [
    0,
    1,
    PAGE - 1,
    PAGE,
    SIZE,
    TASK_SIZE - PAGE,
    TASK_SIZE,
    TASK_SIZE + PAGE,
    1 << 36,
    1 << 48,
    (1 << 56) - 1,
    1 << 56,
    (1 << 60) - 1,
    (1 << 63) - PAGE,
    (1 << 63) - 1,
    1 << 63,
    (1 << 64) - PAGE,
    (1 << 64) - 1,
]
SIGNED = [*EDGES[:15], -1, -PAGE, -(1 << 63)]


def healthy(cluster: SimCluster) -> bool:
    """Whether nobody panicked and nobody was ever given up."""
    return all(
        kernel.stopped is None and partition.counters.activations == 1
        for kernel in cluster.kernels.values()
        for partition in kernel.xpc.partitions.values()
    )


def extreme(draw: random.Random, pid: int, apid: int, at: int, ids: list[int]) -> Call:
    """Some call about cross-partition memory whose arguments are typed and that is all."""

    def edge() -> int:
        return draw.choice(EDGES)

    def signed() -> int:
        return draw.choice(SIGNED)

    def ident() -> int:
        return draw.choice(ids)

    inside = at + draw.choice([0, 8, PAGE - 8, SIZE - 8])
    kinds: list[Callable[[], Call]] = [
        lambda: calls.XpmemMake(pid, edge(), edge(), 1, draw.choice([0o777, signed()])),
        lambda: calls.XpmemMake(pid, edge(), (1 << 64) - 1, 1, 0o777),
        lambda: calls.XpmemGet(pid, ident(), draw.choice([1, 2, signed()])),
        lambda: calls.XpmemAttach(pid, ident(), signed(), edge(), draw.choice([0, edge()])),
        lambda: calls.XpmemAttach(pid, apid, signed(), edge()),
        lambda: calls.XpmemCopy(pid, apid, signed(), apid, signed(), draw.choice(EDGES[:5])),
        lambda: calls.XpmemDetach(pid, edge()),
        lambda: calls.XpmemRemove(pid, ident()),
        lambda: calls.AtomicOp(pid, inside, "add", edge(), edge()),
        lambda: calls.Setuid(pid, draw.choice([0, 1000, (1 << 32) - 2, edge()]), [edge()]),
        lambda: calls.Load(pid, draw.choice([inside, edge()]), 8),
    ]
    return draw.choice(kinds)()


@pytest.mark.parametrize("seed", range(8))
def test_no_typed_argument_costs_anybody_a_session(cluster: SimCluster, seed: int) -> None:
    draw = random.Random(f"edges {seed}")
    world = World(cluster)
    apid = world.permit()
    at = world.importer.xpmem_attach(apid, 0, SIZE, AT)
    ids = [world.segid, apid, *SIGNED]
    for _ in range(60):
        task, other = draw.sample([world.importer, world.exporter], 2)
        call = extreme(draw, task.pid, apid, at, ids)
        ticket = task.begin(call)
        cluster.run_until(lambda: ticket.ended)  # noqa: B023
        if isinstance(call, calls.XpmemMake) and isinstance(ticket.outcome, Done):
            ids.append(ticket.outcome.value)
            outcome_of(lambda other=other: other.xpmem_get(ids[-1]))
        assert healthy(cluster), (seed, call)


@pytest.mark.parametrize("uid", [(1 << 32) - 1, 1 << 63, -1])
def test_an_id_that_no_message_carries_is_refused_to_its_caller(
    cluster: SimCluster, uid: int
) -> None:
    world = World(cluster)
    for call in (
        calls.Spawn(uid=uid),
        calls.Spawn(gids=[uid]),
        calls.Setuid(world.importer.pid, uid),
    ):
        assert outcome_of(lambda call=call: world.do(world.importer, call)) == "EINVAL"
    assert world.permit() > 0


def told(cluster: SimCluster, before: int, kind: str) -> int:
    return [each.kind for each in events_of(cluster.trace[before:], Sent)].count(kind)


def test_a_detach_of_more_ranges_than_a_message_carries_is_told_in_several(
    cluster: SimCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every second page is shown by another attachment as well."""
    monkeypatch.setattr(import_registry, "RANGES_MAX", 3)
    world = World(cluster)
    at = world.attached()
    world.importer.load(at, SIZE)
    other = world.spawn(1)
    apid = other.xpmem_get(world.segid)
    for page in range(1, PAGES, 2):
        other.xpmem_attach(apid, page * PAGE, PAGE)
    before = len(cluster.trace)
    world.importer.xpmem_detach(at)
    assert (told(cluster, before, "EVICT"), told(cluster, before, "DETACH")) == (1, 1)
    table = cluster.kernels[0].xpmem.exporter.segments[world.segid].table
    assert table.held_by(1, 0, PAGES) == [(page, 1) for page in range(1, PAGES, 2)]


def test_a_recall_of_more_segments_than_a_message_speaks_of_is_told_in_several(
    cluster: SimCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recall, "ENTRIES_MAX", 2)
    world = World(cluster)
    for _ in range(4):
        segid = world.exporter.xpmem_make(world.base, SIZE, 0o666)
        other = world.importer.xpmem_attach(world.importer.xpmem_get(segid), 0, SIZE)
        world.importer.load(other, SIZE)
    world.importer.load(world.attached(), SIZE)
    before = len(cluster.trace)
    world.exporter.munmap(world.base, SIZE)
    assert told(cluster, before, "INVALIDATE") == 3
    assert cluster.audit(0)["pins"] == 0
    assert healthy(cluster)


@pytest.mark.parametrize("touched", [0, 5, PAGES - 1])
def test_a_fault_for_more_pages_than_an_answer_carries_reads_ahead_less(
    cluster: SimCluster, monkeypatch: pytest.MonkeyPatch, touched: int
) -> None:
    monkeypatch.setattr(exporter, "WINDOW_MAX", 3)
    world = World(cluster)
    apid = world.permit()
    serving = cluster.kernels[0].xpmem.exporter
    asked = Fault(apid, touched, 0, 1 << 20)
    replies: list[object] = []

    async def ask() -> None:
        replies.append(await serving.serve(Requester(1, 1), asked))

    cluster.kernels[0].scheduler.spawn("ask", ask())
    cluster.poke(0)
    cluster.run_for(MILLISECOND)
    (reply,) = replies
    assert isinstance(reply, FaultReply)
    assert reply.errno == 0
    pages = [first + each for first, _, count, _ in reply.extents for each in range(count)]
    assert touched in pages
    assert len(pages) <= 3
