"""S19: between fork_begin and fork_end nobody gets the pages of who forks."""

from collections.abc import Callable

import pytest

from xpmem_emu.kernel import calls
from xpmem_emu.sim.mutants import mutated
from xpmem_emu.units import MILLISECOND

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


STORIES: list[tuple[str, str]] = [
    ("fault_ignores_fork", "S19"),
    ("fork_begin_recalls_nothing", "S19"),
    ("fork_end_wakes_nobody", "L7"),
]


@pytest.mark.parametrize(("mutant", "invariant"), STORIES)
def test_the_judge_sees(mutant: str, invariant: str) -> None:
    with mutated(mutant):
        world = judged()
        touched_while_forking(world)
    assert invariant in world.invariants


@pytest.mark.parametrize("story", [touched_while_forking, served_when_a_fork_is_over])
def test_the_judge_invents_nothing(story: Story) -> None:
    world = judged()
    story(world)
    assert world.invariants == set(), world.said()
