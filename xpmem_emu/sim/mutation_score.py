"""How a mutant is caught: by seeds of a campaign, and by how many deviations of a small world.

A start is a first seed; from there seeds are run one after the other until one of the invariants
that must catch the mutant is reported.

The other way, every schedule of the small worlds is run with no deviation, then with one, until
something is found; with two only the world that is about what the mutant breaks. Many mutants are
out of reach of those worlds, which have neither files nor swap; others are races that a campaign
hardly ever draws. A mutant that survives both is a hole in the checkers or in the worlds.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from statistics import median

from xpmem_emu.shipped import find_toml
from xpmem_emu.sim.campaign import run_seed
from xpmem_emu.sim.draw.swarm import Swarm, read_swarm
from xpmem_emu.sim.explore.search import explore
from xpmem_emu.sim.explore.worlds import WORLDS
from xpmem_emu.sim.mutations.table import MUTANTS
from xpmem_emu.sim.run import Result
from xpmem_emu.sim.workers import workers

_APART = 10_000
"""Seeds between one start and the next."""
_EVERYWHERE = 1
"""With so many deviations all worlds are explored."""


@dataclass(frozen=True, slots=True)
class CatchingSchedule:
    """The first schedule of a small world in which a mutant was caught."""

    world: str
    deviations: int
    line: str


@dataclass(frozen=True, slots=True)
class MutationScore:
    """What became of one mutant. `seeds[i]`: how many seeds start i needed, 0: it survived."""

    mutant: str
    swarm: str
    seeds: list[int]
    seed: int
    """The first seed that caught it from the first start that did, -1 when it survived."""
    invariants: list[str]
    schedule: CatchingSchedule | None = None

    @property
    def killed(self) -> bool:
        """Whether every start caught it, or every schedule of a small world was run and one did."""
        return all(self.seeds) or self.schedule is not None

    @property
    def median(self) -> float:
        """Median of the seeds needed."""
        return median(self.seeds)


def hunt(swarm: Swarm, starts: int, limit: int, mutant: str) -> MutationScore:
    """Hunt one mutant with seeds; a start that fails ends the hunt."""
    wanted = MUTANTS[mutant].caught_by
    needed: list[int] = []
    seed, invariants = -1, []
    for start in range(starts):
        found = 0
        for number in range(limit):
            result = run_seed(swarm, mutant, start * _APART + number)
            if isinstance(result, Result) and wanted & set(result.invariants):
                found = number + 1
                if seed < 0:
                    seed, invariants = result.seed, result.invariants
                break
        needed.append(found)
        if not found:
            break
    return MutationScore(mutant, swarm.name, needed, seed, invariants)


def shortest(
    mutant: str, deviations: int, worlds: Iterable[str] = tuple(WORLDS)
) -> CatchingSchedule | None:
    """The schedule with the fewest deviations, at most so many, in which a mutant is caught; the
    world that it names is looked at first."""
    own = MUTANTS[mutant].world
    for depth in range(deviations + 1):
        for name in sorted(worlds, key=lambda name: name != own):
            if depth <= _EVERYWHERE or name == own:
                line = _line(name, depth, mutant)
                if line is not None:
                    return CatchingSchedule(name, depth, line)
    return None


def _line(name: str, depth: int, mutant: str) -> str | None:
    """The first line with so many deviations of a world that catches the mutant."""
    for explored, _, _ in explore(WORLDS[name], depth, 1, mutant, start=depth):
        for found in explored.violations:
            if found.invariant in MUTANTS[mutant].caught_by:
                return found.line
    return None


def score(scenario: str, starts: int, limit: int, deviations: int, mutant: str) -> MutationScore:
    """Hunt one mutant in both ways. An empty `scenario`: the swarm that the mutant names."""
    swarm = read_swarm(find_toml("scenarios", scenario or MUTANTS[mutant].swarm))
    found = hunt(swarm, starts, limit, mutant)
    return replace(found, schedule=shortest(mutant, deviations))


def score_all(
    scenario: str, names: list[str], starts: int, limit: int, deviations: int, jobs: int
) -> Iterator[MutationScore]:
    """Hunt several mutants, in their order."""
    work = partial(score, scenario, starts, limit, deviations)
    if jobs == 1:
        yield from map(work, names)
        return
    with workers(jobs) as pool:
        yield from pool.map(work, names)
