"""How many seeds it takes to catch each mutant, from several starts.

A start is a first seed; from there seeds are run one after the other until one of the invariants
that must catch the mutant is reported. A mutant that survives `limit` seeds from any start is a
hole in the checkers or in the worlds.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing import Pool
from pathlib import Path
from statistics import median

from xpmem_emu.sim.campaign import run_seed
from xpmem_emu.sim.mutants import MUTANTS
from xpmem_emu.sim.run import Result
from xpmem_emu.sim.swarm import Swarm, read_swarm

_APART = 10_000
"""Seeds between one start and the next."""


@dataclass(frozen=True, slots=True)
class Kill:
    """What became of one mutant. `seeds[i]`: how many seeds start i needed, 0: it survived."""

    mutant: str
    seeds: list[int]
    seed: int
    """The first seed that caught it from the first start, -1 when it survived."""
    invariants: list[str]

    @property
    def killed(self) -> bool:
        """Whether every start caught it."""
        return all(self.seeds)

    @property
    def median(self) -> float:
        """Median of the seeds needed."""
        return median(self.seeds)


def hunt(swarm: Swarm, starts: int, limit: int, mutant: str) -> Kill:
    """Hunt one mutant."""
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
    return Kill(mutant, needed, seed, invariants)


def hunt_all(
    scenario: Path, names: list[str], starts: int, limit: int, jobs: int
) -> Iterator[Kill]:
    """Hunt several mutants, in their order."""
    work = partial(hunt, read_swarm(scenario), starts, limit)
    if jobs == 1:
        yield from map(work, names)
        return
    with Pool(jobs) as pool:
        yield from pool.imap(work, names)
