"""The judge of what calls promise of a lost importer sees one that returns before its fence."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.clusters import SMALL
from tests.xpmem.world import PAGE, PAGES, World
from xpmem_emu.judge.monitor import Monitor
from xpmem_emu.kernel import breaking, calls
from xpmem_emu.kernel.calls import Call
from xpmem_emu.sim.cluster import SimCluster
from xpmem_emu.units import SECOND
from xpmem_emu.xpmem.fence import Fence

CALLS: dict[str, Callable[[World], Call]] = {
    "mprotect": lambda w: calls.Mprotect(w.exporter.pid, w.base, PAGES * PAGE, calls.PROT_READ),
    "fork": lambda w: calls.Fork(w.exporter.pid),
}


@pytest.mark.parametrize("hasty", [False, True])
@pytest.mark.parametrize("why", CALLS)
def test_a_call_that_returns_before_its_fence_is_seen(
    monkeypatch: pytest.MonkeyPatch, why: str, hasty: bool
) -> None:
    async def at_once(self: Fence, *where: Any) -> None:
        return

    if hasty:
        monkeypatch.setattr(Fence, "passed", at_once)
    watch = Monitor(SMALL)
    cluster = SimCluster(2, SMALL, observer=watch)
    watch.follow(cluster)
    cluster.run_until_active()
    world = World(cluster)
    world.importer.store(world.attached(), bytes(PAGES * PAGE))
    cluster.call(0, breaking.FailpointSet("xpmem.fence.before_migrate", "1*delay(5ms)"))
    cluster.hang(1)
    world.do(world.exporter, CALLS[why](world))
    assert {found.invariant for found in watch.scene.violations} == ({"S7"} if hasty else set())


def test_the_number_of_a_swap_slot_is_no_frame() -> None:
    """Chaos-private, seed 291: a forked task shared swap slots with its child, and one had the
    number of a frame that a lost importer had in hand."""
    watch = Monitor(SMALL)
    cluster = SimCluster(2, SMALL, observer=watch)
    watch.follow(cluster)
    cluster.run_until_active()
    world = World(cluster)
    world.importer.store(world.attached(), bytes(PAGES * PAGE))
    cluster.hang(1)
    cluster.run_for(SECOND)
    other, pages = cluster.spawn(0), 64
    address = other.mmap(pages * PAGE)
    other.store(address, b"x" * pages * PAGE)
    cluster.call(0, calls.Madvise(other.pid, address, pages * PAGE, calls.MADV_PAGEOUT))
    other.fork()
    assert cluster.audit(0)["mm_swap_in_use"] >= pages
    assert watch.scene.violations == []
