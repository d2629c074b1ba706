"""Block transfers, and answers of a home partition that make no sense."""

import tracemalloc
from itertools import islice, pairwise

import pytest

from tests.xpmem.world import PAGE, PAGES, World, outcome_of
from xpmem_emu.kernel import calls
from xpmem_emu.sim.cluster import SimCluster
from xpmem_emu.xpc.messages import Fault, FaultReply, Message
from xpmem_emu.xpc.wire import Requester
from xpmem_emu.xpmem.blocks import Blocks
from xpmem_emu.xpmem.exporter import Exporter

SIZE = PAGES * PAGE


def copy(world: World, source: int, target: int, size: int, at: int = 0) -> None:
    world.do(world.importer, calls.XpmemCopy(world.importer.pid, source, at, target, 0, size))


def test_a_transfer_moves_bytes_between_partitions_and_maps_nothing(cluster: SimCluster) -> None:
    world = World(cluster)
    local = world.spawn(1)
    base = local.mmap(SIZE)
    target = world.importer.xpmem_get(local.xpmem_make(base, SIZE, 0o666))
    copy(world, world.permit(), target, SIZE)
    assert local.load(base, SIZE) == b"exporter" * (SIZE // 8)
    assert [cluster.audit(partid)["pins"] for partid in (0, 1)] == [0, 0]


def test_blocks_are_cut_between_words_and_cover_the_range() -> None:
    for offset, size, step in ((0, 8, 8), (5, 100, 16), (16, 32, 16), (15, 2, 16), (0, 1 << 46, 8)):
        blocks = Blocks(offset, size, step)
        first = list(islice(blocks, 20))
        assert first[0][0] == offset
        assert all(a + n == b and b % step == 0 for (a, n), (b, _) in pairwise(first))
        if len(blocks) <= 20:
            assert sum(first[-1]) == offset + size
            assert len(first) == len(blocks)


def test_a_huge_transfer_ends_at_its_first_hole(cluster: SimCluster) -> None:
    world = World(cluster)
    everything = world.exporter.xpmem_make(0, (1 << 64) - 1, 0o666)
    source, target = (world.importer.xpmem_get(everything) for _ in range(2))
    before = len(cluster.trace)
    tracemalloc.start()
    assert outcome_of(lambda: copy(world, source, target, 1 << 46)) == "EFAULT"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    sends = [record for record in cluster.trace[before:] if record.name == "xpc:send"]
    assert len(sends) < 20
    assert peak < 16 << 20


def test_the_permits_and_ranges_of_a_transfer_are_checked(cluster: SimCluster) -> None:
    world = World(cluster)
    apid, readonly = world.permit(), world.permit(1)
    other = world.spawn(1).xpmem_get(world.segid)
    for source, target, size, at, expected in (
        (readonly, apid, PAGE, 0, "ok"),
        (apid, readonly, PAGE, 0, "EACCES"),
        (other, apid, PAGE, 0, "EACCES"),
        (apid, other, PAGE, 0, "EACCES"),
        (12345, apid, PAGE, 0, "ENOENT"),
        (-1, apid, PAGE, 0, "ENOENT"),
        (apid, apid, 0, 0, "EINVAL"),
        (apid, apid, SIZE + 1, 0, "EINVAL"),
        (apid, apid, PAGE, SIZE, "EINVAL"),
        (apid, apid, PAGE, -PAGE, "EINVAL"),
    ):
        got = outcome_of(lambda s=source, t=target, n=size, a=at: copy(world, s, t, n, a))
        assert got == expected, (source, target, size, at)


def test_a_hole_at_the_far_end_is_an_error_not_a_signal(cluster: SimCluster) -> None:
    world = World(cluster)
    apid = world.permit()
    world.exporter.munmap(world.base + PAGE, PAGE)
    assert outcome_of(lambda: copy(world, apid, apid, 2 * PAGE)) == "EFAULT"


def test_a_transfer_from_a_dead_partition_ends_after_its_retries(cluster: SimCluster) -> None:
    world = World(cluster)
    apid = world.permit()
    cluster.crash(0)
    before = cluster.now_ns
    assert outcome_of(lambda: copy(world, apid, apid, PAGE)) in ("ETIMEDOUT", "EHOSTDOWN")
    times = cluster.image.deadlines
    assert cluster.now_ns - before <= times.bte_timeout * (1 + times.bte_retries)
    cluster.prove_gone(0)


@pytest.mark.parametrize(
    "extents",
    [
        [(PAGES + 5, 7, 1, 0)],
        [(0, 7, PAGES + 1, 0)],
        [(0, 0, 1, 0)],
        [(0, 1 << 38, 1, 0)],
        [(1, 7, 2, 0), (0, 9, 1, 0)],
        [(0, 7, 2, 0), (1, 9, 1, 0)],
        [],
        [(1, 7, 1, 0)],
    ],
)
def test_a_home_that_answers_nonsense_is_given_up_and_nothing_panics(
    cluster: SimCluster, monkeypatch: pytest.MonkeyPatch, extents: list[tuple[int, int, int, int]]
) -> None:
    world = World(cluster)
    at = world.attached()
    honest = Exporter._fault

    async def lie(self: Exporter, requester: Requester, request: Fault) -> Message:
        await honest(self, requester, request)
        return FaultReply(0, "", 0, extents)

    monkeypatch.setattr(Exporter, "_fault", lie)
    assert outcome_of(lambda: world.importer.load(at, 8)) == "SIGBUS"
    assert [kernel.stopped for kernel in cluster.kernels.values()] == [None, None]
    place = cluster.kernels[1].xpc.partitions[0].place
    assert "extents nobody asked for" in place
