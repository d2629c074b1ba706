"""L7 and S18, and more of S4, S7, S15 and S16: each judge refuses a kernel that has a slip."""

from collections.abc import Callable

import pytest

from xpmem_emu.image import Image, LimitsSection
from xpmem_emu.kernel import calls
from xpmem_emu.kernel.breaking import FailpointSet
from xpmem_emu.sim.mutations.table import mutated
from xpmem_emu.units import MILLISECOND, PAGE_SIZE, SECOND
from xpmem_emu.xpc.messages import Invalidate, RecallEntry
from xpmem_emu.xpc.slots import Patience

from .judged import Shared, World, judged, share

Story = Callable[[World], None]


def _second(world: World, shared: Shared, pages: int = 4) -> tuple[int, int]:
    """Another task that has the same segment attached: its pid, and where."""
    task = world.cluster.spawn(1)
    apid = task.xpmem_get(shared.segid)
    return task.pid, task.xpmem_attach(apid, 0, pages * PAGE_SIZE)


def two_want_one_page(world: World) -> None:
    shared = share(world.cluster)
    pid, there = _second(world, shared)
    shared.importer.begin(calls.Load(shared.importer.pid, shared.there, 8))
    world.cluster.submit(1, calls.Load(pid, there, 8))
    world.cluster.run_for(SECOND)


def more_faults_than_places(world: World) -> None:
    several = [share(world.cluster, 1) for _ in range(3)]
    for shared in several:
        shared.importer.begin(calls.Load(shared.importer.pid, shared.there, 8))
    world.cluster.run_for(SECOND)


def killed_in_a_fault(world: World) -> None:
    """A neighbour keeps the segment; nobody keeps the pages."""
    shared = share(world.cluster)
    world.cluster.spawn(1).xpmem_get(shared.segid)
    world.faults.add("link p1->p0 delay 20ms --match type=FAULT")
    world.faults.add("link p1->p0 delay 60ms --match type=RELEASE")
    load = shared.importer.begin(calls.Load(shared.importer.pid, shared.there, 8))
    world.cluster.run_for(MILLISECOND)
    shared.importer.begin(calls.Kill(shared.importer.pid, 9))
    world.cluster.run_until(lambda: load.ended)
    world.cluster.run_for(SECOND)


def unmapped(world: World) -> None:
    shared = share(world.cluster)
    shared.importer.store(shared.there, b"x")
    shared.exporter.munmap(shared.address, PAGE_SIZE)


def detached(world: World) -> None:
    shared = share(world.cluster)
    shared.importer.store(shared.there, b"x")
    shared.importer.xpmem_detach(shared.there)
    world.cluster.run_for(SECOND)


def recalled_by_a_stranger(world: World) -> None:
    shared = share(world.cluster)
    shared.importer.store(shared.there, b"x")
    xpc = world.cluster.kernels[2].xpc
    entry = RecallEntry(shared.segid, 9, [(0, 1)])

    async def recall() -> None:
        session = xpc.incarnation(1)
        assert session is not None
        await xpc.call(1, 0, session, Invalidate([entry]), patience=Patience(SECOND, 1, SECOND))

    world.cluster.kernels[2].scheduler.spawn("stranger", recall())
    world.cluster.poke(2)
    world.cluster.run_for(MILLISECOND)


def removed_from_a_lost_importer(world: World) -> None:
    """The fence has not begun to move anything when the removal might return."""
    shared = share(world.cluster)
    shared.importer.store(shared.there, b"x")
    world.cluster.call(0, FailpointSet("xpmem.fence.before_migrate", "1*delay(5ms)"))
    world.cluster.hang(1)
    shared.exporter.xpmem_remove(shared.segid)


STORIES: list[tuple[str, Story, str]] = [
    ("fault_end_wakes_nobody", two_want_one_page, "L7"),
    ("place_not_passed_on", more_faults_than_places, "L7"),
    ("one_fault_too_many", more_faults_than_places, "S16"),
    ("late_pages_kept", killed_in_a_fault, "S15"),
    ("detach_forgets_attachment", detached, "S15"),
    ("pins_never_returned", unmapped, "S18"),
    ("any_home_recalls", recalled_by_a_stranger, "S4"),
    ("remove_does_not_wait_for_fence", removed_from_a_lost_importer, "S7"),
]
FEW = Image(limits=LimitsSection(inflight_faults=1))


@pytest.mark.parametrize(("mutant", "story", "invariant"), STORIES)
def test_the_judge_sees(mutant: str, story: Story, invariant: str) -> None:
    with mutated(mutant):
        world = judged(3, FEW)
        story(world)
        world.watch.agreement.settled()
        world.watch.permits.quiet()
    assert invariant in world.invariants


@pytest.mark.parametrize(
    "story", dict.fromkeys(story for _, story, _ in STORIES), ids=lambda s: s.__name__
)
def test_the_judge_invents_nothing(story: Story) -> None:
    world = judged(3, FEW)
    story(world)
    world.watch.agreement.settled()
    world.watch.permits.quiet()
    assert world.invariants == set(), world.said()
