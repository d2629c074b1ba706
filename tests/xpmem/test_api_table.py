"""Every check of the API: bad input gets its errno or signal, says why, and changes nothing."""

from collections.abc import Callable

import pytest

from tests.xpmem.api_rows import SIZE, TABLE, Action, no_peer
from tests.xpmem.world import AT, FIXED, PAGE, World, outcome_of
from xpmem_emu.kernel import calls
from xpmem_emu.sim.cluster import SimCluster

ROWS = [
    pytest.param(prepare, expected, id=f"{group}: {what}")
    for group, rows in TABLE.items()
    for what, expected, prepare in rows
]


def test_the_table_is_complete() -> None:
    assert len(ROWS) >= 90


@pytest.mark.parametrize(("prepare", "expected"), ROWS)
def test_api(cluster: SimCluster, prepare: Callable[[World], Action], expected: str) -> None:
    world = World(cluster)
    action = prepare(world)
    before = world.state() if set(cluster.kernels) == {0, 1} else None
    assert outcome_of(action) == expected
    if expected != "ok" and before is not None:
        if expected.startswith("SIG"):
            return  # the access is refused; what it records of its failure is not state
        cluster.run_for(10_000_000)
        assert world.state() == before


@pytest.mark.parametrize(
    "change",
    [
        lambda w, at: w.importer.munmap(at + PAGE, PAGE),
        lambda w, at: w.importer.mmap(PAGE, flags=FIXED, address=at + PAGE),
        lambda w, at: w.do(w.importer, calls.Mremap(w.importer.pid, at, SIZE, SIZE, 3, AT * 2)),
    ],
    ids=["munmap", "mmap over", "mremap"],
)
def test_an_importer_that_unmaps_an_attachment_itself_is_killed(
    cluster: SimCluster, change: Callable[[World, int], object]
) -> None:
    world = World(cluster)
    at = world.attached()
    world.importer.load(at, SIZE)
    outcome_of(lambda: change(world, at))
    assert outcome_of(lambda: world.importer.load(at, 8)) in ("SIGKILL", "ESRCH")
    cluster.run_until(lambda: cluster.kernels[1].tasks.get(world.importer.pid) is None)
    cluster.run_for(10_000_000)
    assert cluster.audit(0)["pins"] == 0


def test_a_lost_partition_is_named_when_a_permit_is_wanted(cluster: SimCluster) -> None:
    world = World(cluster)
    assert outcome_of(no_peer(world)) == "EHOSTUNREACH"
