"""Found by the determinism gate: order that came from where objects happened to lie in memory."""

from tests.clusters import events_of
from tests.xpmem.world import PAGE, PAGES, World
from xpmem_emu.kernel import calls
from xpmem_emu.kernel.events import SyscallDone
from xpmem_emu.sim.cluster import SimCluster


def test_the_calls_of_a_killed_task_end_in_the_order_in_which_they_began(
    cluster: SimCluster,
) -> None:
    """Seed 14: a task's threads were a set of objects, so they were killed in any order."""
    world = World(cluster)
    views = [world.attached(0x10_0000_0000 + n * 0x100_0000) for n in range(12)]
    cluster.hang(0)
    sizes = range(1, len(views) + 1)
    for view, size in zip(views, sizes, strict=True):
        world.importer.begin(calls.Load(world.importer.pid, view + size % PAGES * PAGE, 8))
    began = [thread for thread in cluster.kernels[1].scheduler.threads if "load" in thread.name]
    task = cluster.kernels[1].tasks.get(world.importer.pid)
    assert task is not None
    assert list(task.threads) == began
    before = len(cluster.trace)
    world.importer.kill()
    ended = events_of(cluster.trace[before:], SyscallDone)
    assert [each.outcome for each in ended[:12]] == ["SIGKILL"] * 12
    cluster.resume(0)
    cluster.run_until_active()
