"""S19: between fork_begin and fork_end nobody gets the pages of who forks."""

from collections.abc import Callable

import pytest

from xpmem_emu.kernel import calls
from xpmem_emu.sim.mutations.table import mutated
from xpmem_emu.units import MILLISECOND, PAGE_SIZE

from .judged import World, judged, share

Story = Callable[[World], None]


def touched_while_forking(world: World) -> None:
    shared = share(world.cluster)
    shared.importer.store(shared.there, b"before")
    world.cluster.call(0, calls.XpmemForkBegin(shared.exporter.pid))
    store = shared.importer.begin(calls.Store(shared.importer.pid, shared.there), b"between")
    world.cluster.run_for(20 * MILLISECOND)
    world.cluster.call(0, calls.XpmemForkEnd(shared.exporter.pid))
    world.cluster.run_until(lambda: store.ended)


def served_when_a_fork_is_over(world: World) -> None:
    """fork_end is asked for before fork_begin has returned."""
    shared = share(world.cluster)
    shared.importer.store(shared.there, b"before")
    begin = shared.exporter.begin(calls.XpmemForkBegin(shared.exporter.pid))
    end = shared.exporter.begin(calls.XpmemForkEnd(shared.exporter.pid))
    world.cluster.run_until(lambda: begin.ended and end.ended)
    shared.importer.store(shared.there, b"after")


def closed_and_opened_while_forking(world: World) -> None:
    """What the device had before is still being recalled as fork_begin is called (chaos 4464)."""
    shared = share(world.cluster)
    shared.importer.store(shared.there, b"before")
    pid = shared.exporter.pid
    for each in (calls.XpmemClose(pid), calls.XpmemOpen(pid), calls.XpmemForkBegin(pid)):
        last = shared.exporter.begin(each)
    world.cluster.run_until(lambda: last.ended)


def closed_while_forking(world: World) -> None:
    """The exporter closes the device in the middle of a fork; its first segment takes a while to
    go, because a holder is slow, and faults on the second one go on meanwhile."""
    first = share(world.cluster)
    exporter, importer = first.exporter, world.cluster.spawn(1)
    segid = exporter.xpmem_make(exporter.mmap(PAGE_SIZE), PAGE_SIZE, 0o666)
    there = importer.xpmem_attach(importer.xpmem_get(segid), 0, PAGE_SIZE)
    first.importer.store(first.there, b"held")
    world.faults.add("link p1->p0 delay 20ms --match type=INVALIDATE_ACK")
    exporter.begin(calls.XpmemForkBegin(exporter.pid))
    load = importer.begin(calls.Load(importer.pid, there, 8))
    world.cluster.run_for(3 * MILLISECOND)
    close = exporter.begin(calls.XpmemClose(exporter.pid))
    world.cluster.run_for(5 * MILLISECOND)
    assert load.ended
    assert not close.ended
    world.cluster.run_until(lambda: close.ended)


STORIES: list[tuple[str, str]] = [
    ("fault_ignores_fork", "S19"),
    ("fork_begin_recalls_nothing", "S19"),
    ("fork_end_wakes_nobody", "L7"),
]


@pytest.mark.parametrize(("mutant", "invariant"), STORIES)
def test_the_judge_sees_what_happens_to_the_touched(mutant: str, invariant: str) -> None:
    with mutated(mutant):
        world = judged()
        touched_while_forking(world)
    assert invariant in world.invariants


def test_the_judge_sees_a_fork_that_does_not_wait_for_a_close() -> None:
    with mutated("fork_begin_forgets_the_closed"):
        world = judged()
        closed_and_opened_while_forking(world)
    assert "S19" in world.invariants


@pytest.mark.parametrize(
    "story",
    [
        touched_while_forking,
        served_when_a_fork_is_over,
        closed_and_opened_while_forking,
        closed_while_forking,
    ],
)
def test_the_judge_invents_nothing(story: Story) -> None:
    world = judged()
    story(world)
    assert world.invariants == set(), world.said()
