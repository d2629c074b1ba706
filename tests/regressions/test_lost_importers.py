"""Found by seeded campaigns of `chaos`, each kept as the story that it was."""

from collections.abc import Callable

import pytest

from tests.xpmem.world import PAGE, PAGES, World
from xpmem_emu.kernel import calls
from xpmem_emu.mm import pte
from xpmem_emu.sim.cluster import SimCluster
from xpmem_emu.units import SECOND
from xpmem_emu.xpmem.events import FenceEnd

Make = Callable[..., SimCluster]


def frames_in_hand(cluster: SimCluster, partid: int, pid: int, address: int) -> list[int]:
    """The local frames of the home that a task's entries name, read raw."""
    task = cluster.kernels[partid].tasks.get(pid)
    assert task is not None
    entries = task.mm.page_table.read_range(address >> 12, PAGES)
    return [int(entry) >> pte.FRAME_SHIFT & pte.LOCAL_MASK for entry in entries]


@pytest.mark.parametrize("operation", ["fork", "mprotect"])
def test_pages_that_stay_after_a_failed_recall_leave_the_lost_importers_frames(
    make_cluster: Make, operation: str
) -> None:
    """Seed 97: fork recalled pages from a stopped importer. The recall timed out and the frames
    were quarantined, but only pages that were not being recalled were moved away from them; the
    forked page stayed, shared with the child, where the woken importer could store."""
    cluster = make_cluster()
    world = World(cluster)
    at = world.attached()
    before = world.importer.load(at, PAGES * PAGE)
    frames = frames_in_hand(cluster, 1, world.importer.pid, at)
    cluster.hang(1)
    if operation == "fork":
        world.exporter.fork()
    else:
        world.exporter.mprotect(world.base, PAGES * PAGE, calls.PROT_READ)
    cluster.run_for(SECOND)
    counts = cluster.kernels[0].memory.frames
    assert counts.quarantined[frames].all()
    assert not counts.mapcount[frames].any()
    arena = cluster.arena(0, 1)
    for frame in frames:  # the store in whose middle the importer was stopped goes on
        arena[frame * PAGE : (frame + 1) * PAGE] = b"!" * PAGE
    assert world.exporter.load(world.base, PAGES * PAGE) == before
    cluster.resume(1)
    cluster.run_until_active()
    assert cluster.audit(0)["quarantined"] == 0


def test_proof_that_comes_before_anybody_noticed_counts(make_cluster: Make) -> None:
    """The process was known gone before its heartbeat was missed. The fence came after the proof,
    and nothing would ever have emptied the quarantine."""
    cluster = make_cluster()
    world = World(cluster)
    world.importer.load(world.attached(), PAGES * PAGE)
    cluster.crash(1)
    cluster.prove_gone(1)
    cluster.run_for(5 * SECOND)
    audit = cluster.audit(0)
    assert (audit["quarantined"], audit["pins"], audit["grants"]) == (0, 0, 0)


def test_fences_of_the_same_pages_wait_for_each_other(make_cluster: Make) -> None:
    """Seed 6293: one fence was moving the pages when two more were to move the same ones. Each
    failed attempt woke the other fence, so all attempts were used up in no time at all, and the
    exporter was killed for pages that were about to be moved."""
    cluster = make_cluster(5)
    world = World(cluster)
    for partid in range(1, 5):
        importer = world.spawn(partid)
        at = importer.xpmem_attach(importer.xpmem_get(world.segid), 0, PAGES * PAGE)
        before = importer.load(at, PAGES * PAGE)
    for partid in range(1, 4):
        cluster.hang(partid)
    cluster.run_for(2 * SECOND)
    assert world.exporter.load(world.base, PAGES * PAGE) == before
    ends = [r.event.moved for r in cluster.trace if isinstance(r.event, FenceEnd)]
    assert (len(ends), sum(ends)) == (3, PAGES)
    for partid in range(1, 4):
        cluster.resume(partid)
    cluster.run_until_active()
