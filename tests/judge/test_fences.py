"""S7 where one partition is lost twice, and two fences are at work."""

from xpmem_emu.kernel import calls
from xpmem_emu.kernel.breaking import FailpointSet
from xpmem_emu.units import PAGE_SIZE, SECOND

from .judged import World, judged, share


def lose(world: World, fence_s: int) -> None:
    """The home protects a page, its importer hangs, and the fence takes so long."""
    shared, cluster = share(world.cluster, 1), world.cluster
    shared.importer.store(shared.there, b"x")
    cluster.call(0, FailpointSet("xpmem.fence.before_migrate", f"1*delay({fence_s}s)"))
    cluster.hang(1)
    shared.exporter.begin(
        calls.Mprotect(shared.exporter.pid, shared.address, PAGE_SIZE, calls.PROT_READ)
    )
    cluster.run_until(lambda: cluster.kernels[0].xpc.incarnation(1) is None)


def test_who_is_lost_twice_is_judged_when_the_last_fence_has_ended() -> None:
    """Chaos-private, seed 586: what the first fence left was the second one's to move."""
    world = judged()
    lose(world, fence_s=60)
    world.cluster.resume(1)
    world.cluster.run_until_active()
    lose(world, fence_s=120)
    world.cluster.run_for(200 * SECOND)
    assert world.invariants == set(), world.said()
