"""Machine checks: who touches what cannot be read, and what becomes of it (sources T17)."""

import errno
from collections.abc import Callable

import pytest

from tests.xpmem.world import PAGE, PAGES, World, outcome_of
from xpmem_emu.errors import KernelError, Signalled
from xpmem_emu.kernel import breaking
from xpmem_emu.mm import pte
from xpmem_emu.sim.cluster import SimCluster


def frame_of(world: World) -> int:
    """The frame of the exporter's first page."""
    found = world.cluster.kernels[0].tasks.get(world.exporter.pid)
    assert found is not None
    entry = found.mm.page_table.walk(world.base >> 12)
    return entry >> pte.FRAME_SHIFT & pte.LOCAL_MASK


def stopped(cluster: SimCluster) -> list[int]:
    return [partid for partid, kernel in cluster.kernels.items() if kernel.stopped is not None]


def raw_load(cluster: SimCluster, partid: int, home: int, frame: int) -> object:
    return cluster.call(partid, breaking.RawLoad(home, frame)).value


def test_a_kernel_loads_a_word_of_any_frame_that_it_can_reach(cluster: SimCluster) -> None:
    world = World(cluster)
    expected = int.from_bytes(b"exporter", "little")
    assert [raw_load(cluster, each, 0, frame_of(world)) for each in (0, 1)] == [expected] * 2


@pytest.mark.parametrize("reader", [0, 1])
def test_a_bad_frame_panics_the_kernel_that_loads_it_and_no_other(
    make_cluster: Callable[..., SimCluster], reader: int
) -> None:
    cluster = make_cluster(partitions=3)
    world = World(cluster)
    frame = frame_of(world)
    for partid in cluster.kernels:
        cluster.call(partid, breaking.Poison(0, frame))
    assert outcome_of(lambda: raw_load(cluster, reader, 0, frame)) == "EIO"
    assert stopped(cluster) == [reader]
    assert "machine check in kernel mode" in str(cluster.kernels[reader].stopped)
    cluster.run_for(1_000_000_000)
    others = [partid for partid in cluster.kernels if partid != reader]
    assert all(cluster.spawn(partid).mmap(PAGE) for partid in others)
    for partid in others:
        cluster.call(partid, breaking.Unpoison(0, frame))


def test_memory_of_a_dead_peer_kills_no_kernel_but_one_that_loads_it_raw(
    cluster: SimCluster,
) -> None:
    world = World(cluster)
    frame, at = frame_of(world), world.attached()
    own = world.importer.mmap(PAGES * PAGE)
    world.importer.load(at, PAGE)
    cluster.crash(0)
    cluster.run_until(lambda: cluster.kernels[1].xpc.incarnation(0) is None)
    cluster.prove_gone(0)
    with pytest.raises(KernelError, match="bytes arrived") as refused:
        world.importer.bte_copy(at, own, PAGE)
    assert refused.value.errno == errno.EHOSTDOWN
    with pytest.raises(Signalled, match="lost"):
        world.importer.load(at, 1)
    assert stopped(cluster) == []
    assert outcome_of(lambda: raw_load(cluster, 1, 0, frame)) == "EIO"
    assert stopped(cluster) == [1]


def test_what_no_kernel_could_load_is_refused(make_cluster: Callable[..., SimCluster]) -> None:
    cluster = make_cluster(domains="AB")
    for home, frame, error, cause in (
        (1, 1, "EXDEV", "block transfer"),
        (0, 1 << 30, "EINVAL", "p0 has no frame"),
        (7, 1, "EINVAL", "no partition p7"),
    ):
        with pytest.raises(KernelError) as refused:
            raw_load(cluster, 0, home, frame)
        assert errno.errorcode[refused.value.errno] == error
        assert cause in f"{refused.value.cause} {refused.value.remedy}"
    assert stopped(cluster) == []
