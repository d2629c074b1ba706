"""Explores a world: first with no deviation, then with one, two, ... until something is found.

Going deeper step by step costs little, since each depth is many times the one before, and makes
what is found as small as it can be: no schedule with fewer deviations fails. Of those that fail in
one way the earliest is kept. Workers are forked and share the table of states.
"""

import multiprocessing as mp
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.pool import Pool

import msgspec

from xpmem_emu.sim.explore.choices import PLAINNESS, Chooser, Replay, parse_line
from xpmem_emu.sim.explore.explored import ExploredWorld
from xpmem_emu.sim.explore.schedule import Schedule
from xpmem_emu.sim.explore.tree import (
    Branch,
    End,
    Found,
    ScheduleTally,
    States,
    run_branch,
    run_tree,
)
from xpmem_emu.sim.explore.verdict import judge_world
from xpmem_emu.sim.explore.world import World
from xpmem_emu.sim.mutations.table import mutated
from xpmem_emu.sim.workers import deaf

_context = mp.get_context("fork")


class Retold(msgspec.Struct, frozen=True):
    """One schedule, told in full."""

    line: str
    deviations: list[str]
    told: list[str]
    violations: list[str]
    invariants: list[str]
    digest: str
    missed: list[int]
    """Points of the line that were not there."""
    endless: bool


class Explored(msgspec.Struct):
    """What exploring a world brought in."""

    world: str
    deviations: int
    """The depth that was reached."""
    tally: ScheduleTally
    states: int
    complete: bool = True

    @classmethod
    def nothing(cls, world: str) -> "Explored":
        """Nothing yet."""
        return cls(world, 0, ScheduleTally(), 0, complete=False)

    @property
    def violations(self) -> list[Found]:
        """The earliest schedule of each way to fail, in the order of the lines."""
        first: dict[str, Found] = {}
        for found in sorted(self.tally.found, key=lambda each: _place(each.line)):
            first.setdefault(found.invariant, found)
        return [found for found in first.values() if found.invariant]

    @property
    def endless(self) -> list[Found]:
        """Schedules that were given up."""
        return [found for found in self.tally.found if not found.invariant]


def run_once(world: World, chooser: Chooser) -> End:
    """Run one schedule of a world and judge it."""
    ground = ExploredWorld(world)
    try:
        schedule = Schedule(ground, chooser)
        walk = schedule.run()
        violations = ground.watch.scene.violations
        if not (walk.cut or walk.endless or violations):
            schedule.close()
            judge_world(ground)
        if violations:
            return End(walk.events, walk.cut, violations[0].invariant, str(violations[0]))
        return End(walk.events, walk.cut, "", "it does not end" if walk.endless else "")
    finally:
        ground.close()


def retell(world: World, line: str, mutant: str = "") -> Retold:
    """Run the schedule of a replay line. Raises ValueError for one that cannot be read."""
    replay = Replay(parse_line(line))
    with mutated(mutant):
        ground = ExploredWorld(world)
        try:
            schedule = Schedule(ground, replay)
            walk = schedule.run()
            if not walk.endless:
                schedule.close()
                judge_world(ground)
            violations = ground.watch.scene.violations
            return Retold(
                line,
                [f"{each.point} {each.text}" for each in replay.taken],
                walk.told,
                [str(each) for each in violations],
                [each.invariant for each in violations],
                ground.watch.digest,
                replay.missed,
                walk.endless,
            )
        finally:
            ground.close()


def explore(
    world: World, deviations: int, jobs: int = 1, mutant: str = "", start: int = 0
) -> Generator[tuple[Explored, int, int], None, None]:
    """What was explored so far, how many of the first deviations are done, and how many there
    are; the last one is the whole. Stops at the depth at which something is found; begins with
    at most `start` deviations."""
    with mutated(mutant):
        for depth in range(start, deviations + 1):
            for explored, done, total in _one_depth(world, depth, jobs):
                yield explored, done, total
            if explored.tally.found or explored.tally.errors:
                return


def _one_depth(world: World, depth: int, jobs: int) -> Iterator[tuple[Explored, int, int]]:
    """Every schedule with at most `depth` deviations."""
    states, tally = States(), ScheduleTally()
    run = _Runner(world)
    # The latest first, as in every tree.
    branches = run_branch(run, Branch((), depth), states, tally)[::-1]
    explored = Explored(world.name, depth, tally, 0, complete=not branches)
    yield explored, 0, len(branches)
    with _trees(run, branches, states, jobs) as trees:
        for done, grown in enumerate(trees, 1):
            tally.add(grown)
            explored.complete = done == len(branches)
            explored.states = states.count if explored.complete else 0
            yield explored, done, len(branches)


class _Runner:
    """Runs schedules of one world."""

    def __init__(self, world: World) -> None:
        self._world = world

    def __call__(self, chooser: Chooser) -> End:
        return run_once(self._world, chooser)


_grow: Callable[[int], ScheduleTally]
"""In a worker: grows the tree of a branch. Forked workers find it here, with all it refers to:
worlds are full of functions that cannot be sent to anybody."""


@contextmanager
def _trees(
    run: _Runner, branches: Sequence[Branch], states: States, jobs: int
) -> Iterator[Iterator[ScheduleTally]]:
    """What grows from each branch, in any order."""
    global _grow
    _grow = lambda number: run_tree(run, branches[number], states)  # noqa: E731
    if jobs == 1 or len(branches) < 2:
        yield map(_grow, range(len(branches)))
        return
    pool: Pool
    with _context.Pool(jobs, deaf) as pool:
        yield pool.imap_unordered(_worker, range(len(branches)))


def _worker(number: int) -> ScheduleTally:
    return _grow(number)


def _place(line: str) -> tuple[tuple[int, int, str], ...]:
    """Early ones first, and of those at one point what happens every day before what is rare."""
    return tuple(
        (each.point, PLAINNESS.index(each.key.rstrip("0123456789")), each.key)
        for each in parse_line(line)
    )
