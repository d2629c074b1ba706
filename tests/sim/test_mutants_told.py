"""Mutants that a campaign needs many seeds for, each in the few calls that show what it breaks."""

from collections.abc import Callable
from contextlib import suppress

import pytest

from tests.judge.judged import World, judged, share
from xpmem_emu.errors import KernelError, Signalled
from xpmem_emu.kernel import calls
from xpmem_emu.sim.mutations.table import MUTANTS, mutated
from xpmem_emu.units import PAGE_SIZE, SECOND, TASK_SIZE

Story = Callable[[World], None]


def _may_fail(do: Callable[[], object]) -> None:
    with suppress(KernelError, Signalled):
        do()


def importer_of_protected(world: World) -> None:
    shared = share(world.cluster)
    shared.importer.store(shared.there, b"in time")
    shared.exporter.mprotect(shared.address, PAGE_SIZE, calls.PROT_READ)
    _may_fail(lambda: shared.importer.store(shared.there, b"too late"))
    _may_fail(lambda: shared.exporter.store(shared.address, b"forbidden"))


def moved_under_importer(world: World) -> None:
    shared = share(world.cluster)
    shared.importer.store(shared.there, b"in time")
    world.cluster.call(
        0,
        calls.Mremap(shared.exporter.pid, shared.address, 4 * PAGE_SIZE, 4 * PAGE_SIZE, 3, 1 << 40),
    )
    _may_fail(lambda: shared.importer.load(shared.there, 8))


def released_one_of_two(world: World) -> None:
    shared = share(world.cluster)
    shared.importer.store(shared.there, b"held")
    other = world.cluster.spawn(1)
    other.xpmem_release(other.xpmem_get(shared.segid))
    _may_fail(lambda: shared.importer.load(shared.there, 8))


def held_by_two(world: World) -> None:
    shared = share(world.cluster)
    other = world.cluster.spawn(2)
    there = other.xpmem_attach(other.xpmem_get(shared.segid), 0, PAGE_SIZE)
    for task, at in ((shared.importer, shared.there), (other, there)):
        task.store(at, b"held")
    other.xpmem_detach(there)
    _may_fail(lambda: shared.importer.load(shared.there, 8))


def recalled_and_touched(world: World) -> None:
    shared = share(world.cluster)
    shared.importer.store(shared.there, b"held")
    shared.exporter.madvise(shared.address, PAGE_SIZE, calls.MADV_DONTNEED)
    stranger = world.cluster.spawn(0)
    stranger.store(stranger.mmap(PAGE_SIZE), b"a stranger's")
    _may_fail(lambda: shared.importer.load(shared.there, 8))


def nothing_written_beyond_the_end(world: World) -> None:
    world.cluster.call(0, calls.Creat("f", 10))
    world.cluster.call(0, calls.Pwrite("f", 1 << 16), b"")


def segment_beyond_all_addresses(world: World) -> None:
    exporter, importer = world.cluster.spawn(0), world.cluster.spawn(1)
    _may_fail(
        lambda: importer.xpmem_get(exporter.xpmem_make(TASK_SIZE + PAGE_SIZE, (1 << 64) - 1, 0o666))
    )
    world.cluster.run_for(10 * SECOND)


STORIES: dict[str, Story] = {
    "protect_without_recall": importer_of_protected,
    "protect_keeps_entries": importer_of_protected,
    "move_without_recall": moved_under_importer,
    "release_drops_all": released_one_of_two,
    "drop_forgets_others": held_by_two,
    "table_remembers": recalled_and_touched,
    "empty_write_extends": nothing_written_beyond_the_end,
    "sender_unchecked": segment_beyond_all_addresses,
}


@pytest.mark.parametrize("name", STORIES)
def test_the_mutant_is_seen(name: str) -> None:
    with mutated(name):
        world = judged(3)
        STORIES[name](world)
        world.watch.shadow.settled()
    assert world.invariants & MUTANTS[name].caught_by, world.said()


@pytest.mark.parametrize("story", dict.fromkeys(STORIES.values()), ids=lambda s: s.__name__)
def test_nothing_is_seen_without_it(story: Story) -> None:
    world = judged(3)
    story(world)
    world.watch.shadow.settled()
    assert world.invariants == set(), world.said()
