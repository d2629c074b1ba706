"""Many seeds, several processes: what a campaign counts and what it concludes.

Seeds are independent, so a campaign is a map over them; results come in the order of the seeds. A
campaign is invalid when one run is, or when a situation that its swarm names was never reached
although there were seeds enough; unknown when a run is unknown and none is invalid.
"""

import signal
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import msgspec

from xpmem_emu.judge.verdict import Verdict
from xpmem_emu.sim.draw.swarm import Swarm, read_swarm
from xpmem_emu.sim.draw.world import draw_plan
from xpmem_emu.sim.mutations.table import mutated
from xpmem_emu.sim.run import Result, run_plan
from xpmem_emu.sim.workers import workers

_CHUNK = 4
SEED_LIMIT_S = 300.0
"""Processor time that a seed may take, a thousand times what one takes: neither a loop without end
in the system nor one in a judge may keep a campaign from telling what it found."""


class HarnessError(msgspec.Struct, frozen=True):
    """A run that could not be judged, because the simulator itself failed."""

    seed: int
    text: str


@dataclass
class CampaignTally:
    """Sums over the runs of a campaign."""

    swarm: Swarm
    runs: int = 0
    steps: int = 0
    events: int = 0
    virtual_ns: int = 0
    verdicts: Counter[Verdict] = field(default_factory=Counter)
    injected: Counter[str] = field(default_factory=Counter)
    reached: Counter[str] = field(default_factory=Counter)
    failed: list[Result] = field(default_factory=list)
    """Results that are not valid."""
    errors: list[HarnessError] = field(default_factory=list)

    def add(self, result: Result | HarnessError) -> None:
        """Count one run."""
        if isinstance(result, HarnessError):
            self.errors.append(result)
            return
        self.runs += 1
        self.steps += result.steps
        self.events += result.events
        self.virtual_ns += result.virtual_ns
        self.verdicts[result.verdict] += 1
        self.injected.update(result.injected)
        self.reached.update(result.reached)
        if result.verdict is not Verdict.VALID:
            self.failed.append(result)

    @property
    def missing(self) -> list[str]:
        """Situations that should have come up and did not."""
        if self.runs < self.swarm.sometimes_after:
            return []
        return [name for name in self.swarm.situations if not self.reached[name]]

    @property
    def verdict(self) -> Verdict:
        """What the campaign says."""
        if self.verdicts[Verdict.INVALID] or self.missing:
            return Verdict.INVALID
        return Verdict.UNKNOWN if self.verdicts[Verdict.UNKNOWN] else Verdict.VALID


class _Overtime(BaseException):
    """No Exception, which a simulated kernel would take for its own panic."""


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """The body gets so much processor time, however loaded this machine is. Raises _Overtime."""

    def over(*_: object) -> None:
        raise _Overtime(f"not at its end after {seconds:g} s of processor time")

    before = signal.signal(signal.SIGVTALRM, over)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def run_seed(swarm: Swarm, mutant: str, seed: int) -> Result | HarnessError:
    """One run of a campaign. Never raises for what a run does."""
    try:
        with _limited(SEED_LIMIT_S), mutated(mutant):
            return run_plan(draw_plan(swarm, seed))
    except (Exception, _Overtime):
        return HarnessError(seed, traceback.format_exc())


def results(
    scenario: Path, seeds: Sequence[int], jobs: int, mutant: str = ""
) -> Iterator[Result | HarnessError]:
    """The results of all seeds, as they come in."""
    work = partial(run_seed, read_swarm(scenario), mutant)
    if jobs == 1:
        yield from map(work, seeds)
        return
    with workers(jobs) as pool:
        yield from pool.map(work, seeds, chunksize=_CHUNK)
