"""S17 and L6: who begins and ends tasks, and who finds a place to do it. S16 and S13 of calls."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any
from unittest.mock import patch

import pytest

from xpmem_emu.errors import KernelError, Signalled
from xpmem_emu.image import Image, LimitsSection
from xpmem_emu.kernel import calls
from xpmem_emu.kernel.breaking import FailpointResume, FailpointSet
from xpmem_emu.sim.mutations.table import mutated
from xpmem_emu.units import PAGE_SIZE
from xpmem_emu.xpmem import transfer
from xpmem_emu.xpmem.blocks import blocks_of

from .judged import World, judged, share

Story = Callable[[World], None]
FEW = Image(limits=LimitsSection(threads=64))
_POINT = "kernel.call.before_answer"


def exec_inside_a_fault(world: World) -> None:
    shared = share(world.cluster)
    task = shared.importer
    load = task.begin(calls.Load(task.pid, shared.there, 8))
    execute = task.begin(calls.Exec(task.pid))
    world.cluster.run_until(lambda: load.ended and execute.ended)


def kill_inside_a_fork(world: World) -> None:
    shared = share(world.cluster)
    shared.importer.store(shared.there, b"recalled by the fork")
    fork = shared.exporter.begin(calls.Fork(shared.exporter.pid))
    shared.exporter.kill()
    world.cluster.run_until(lambda: fork.ended)


def heal_when_full(world: World) -> None:
    victim = world.cluster.spawn(0)
    world.cluster.call(0, FailpointSet(_POINT, "pause"))
    for _ in range(80):
        world.cluster.submit(0, calls.Status())
    with suppress(KernelError):
        victim.kill()
    with suppress(KernelError):
        world.cluster.call(0, FailpointResume(_POINT))


def word_of_a_removed_segment(world: World) -> None:
    exporter, importer = world.cluster.spawn(0), world.cluster.spawn(1)
    flags = calls.MAP_PRIVATE | calls.MAP_ANONYMOUS | calls.MAP_UNCACHED
    segid = exporter.xpmem_make(exporter.mmap(PAGE_SIZE, flags=flags), PAGE_SIZE, 0o666)
    there = importer.xpmem_attach(importer.xpmem_get(segid), 0, PAGE_SIZE)
    exporter.xpmem_remove(segid)
    with suppress(KernelError, Signalled):
        world.cluster.call(1, calls.AtomicOp(importer.pid, there, "add", 1))


STORIES: list[tuple[str, Story, str]] = [
    ("exec_leaves_calls", exec_inside_a_fault, "S17"),
    ("killed_fork_lives", kill_inside_a_fork, "S17"),
    ("healing_needs_places", heal_when_full, "L6"),
    ("removed_words_refused", word_of_a_removed_segment, "S13"),
]


@pytest.mark.parametrize(("mutant", "story", "invariant"), STORIES)
def test_the_judge_sees(mutant: str, story: Story, invariant: str) -> None:
    with mutated(mutant):
        world = judged(image=FEW)
        story(world)
        world.watch.endings.settled()
    assert invariant in world.invariants


@pytest.mark.parametrize("story", [story for _, story, _ in STORIES], ids=lambda s: s.__name__)
def test_the_judge_invents_nothing(story: Story) -> None:
    world = judged(image=FEW)
    story(world)
    world.watch.endings.settled()
    assert world.invariants == set(), world.said()


def copy_giants(world: World) -> None:
    exporter, importer = world.cluster.spawn(0), world.cluster.spawn(1)
    exporter.mmap(PAGE_SIZE)
    segid = exporter.xpmem_make(0, 1 << 36, 0o666)
    source, target = importer.xpmem_get(segid), importer.xpmem_get(segid)
    with suppress(KernelError):
        world.cluster.call(1, calls.XpmemCopy(importer.pid, source, 0, target, 0, 1 << 36))


def test_a_call_that_plans_all_that_it_is_going_to_do_is_seen() -> None:
    world = judged()
    copy_giants(world)
    assert world.invariants == set(), world.said()

    def at_once(*args: Any) -> Any:
        return list(blocks_of(*args))

    with patch.object(transfer, "blocks_of", at_once):
        copy_giants(world)
    assert world.invariants == {"S16"}


def test_a_child_that_nobody_was_told_of_is_seen() -> None:
    world = judged()
    parent = world.cluster.spawn(0)
    table = world.cluster.kernels[0].tasks
    thread = world.cluster.kernels[0].scheduler.spawn("nobody", _fork(table, parent.pid))
    world.cluster.poke(0)
    assert thread not in world.cluster.kernels[0].scheduler.threads
    world.watch.endings.settled()
    assert world.invariants == {"S17"}


async def _fork(table: Any, pid: int) -> None:
    await table.fork(table.find(pid))
