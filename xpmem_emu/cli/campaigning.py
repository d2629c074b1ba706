"""Many seeds: `sim run --seeds` and `sim gate`, with what was found until they are interrupted.

A seed that fails leaves a bundle as soon as it is known, so that Ctrl-C does not lose it.
"""

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import click

from xpmem_emu.cli.failure import CommandFailed, ExitCode
from xpmem_emu.cli.interrupts import terminated_like_interrupted
from xpmem_emu.cli.output import Format, show_record
from xpmem_emu.cli.progress import tracked
from xpmem_emu.cli.verdicts import CODES, unwritten
from xpmem_emu.judge.sometimes import MEANINGS
from xpmem_emu.judge.verdict import Verdict
from xpmem_emu.sim.bundle import write_run_bundle
from xpmem_emu.sim.campaign import CampaignTally, results
from xpmem_emu.sim.determinism import compared
from xpmem_emu.sim.draw.swarm import Swarm
from xpmem_emu.sim.draw.world import draw_plan
from xpmem_emu.sim.mutations.table import mutated
from xpmem_emu.sim.run import Result, Run

_SHOWN = 10
"""Failed runs that are told one by one, with a bundle each."""


@dataclass
class Campaign:
    """What a campaign came to. `replay`: the command that does a seed again."""

    tally: CampaignTally
    seeds: range
    mutant: str
    runs: Path
    replay: Callable[[int], str]
    took_s: float = 0.0
    interrupted: bool = False
    bundles: dict[int, Path] = field(default_factory=dict)
    lost: OSError | None = None
    """Why a bundle could not be written."""

    @property
    def done(self) -> int:
        """Seeds that were run."""
        return self.tally.runs + len(self.tally.errors)

    @property
    def code(self) -> ExitCode:
        """The verdict. Of seeds that were not run nobody knows."""
        if self.tally.errors:
            return ExitCode.HARNESS
        if self.interrupted and self.tally.verdict is Verdict.VALID:
            return ExitCode.INTERRUPTED
        return CODES[self.tally.verdict]

    @property
    def verdict(self) -> str:
        """The verdict in a word."""
        words = {ExitCode.HARNESS: "harness error", ExitCode.INTERRUPTED: "unknown"}
        return words.get(self.code, self.tally.verdict.value)

    def keep(self, failed: Result) -> None:
        """Runs a seed that failed again, for its bundle."""
        try:
            with mutated(self.mutant):
                under_way = Run(draw_plan(self.tally.swarm, failed.seed))
                result = under_way.result()
            again = self.replay(failed.seed)
            self.bundles[failed.seed] = write_run_bundle(under_way, result, self.runs, again)
        except OSError as error:
            self.lost = error


def run_campaign(
    path: Path,
    swarm: Swarm,
    seeds: range,
    jobs: int,
    mutant: str,
    runs: Path,
    replay: Callable[[int], str],
    output: Format,
) -> ExitCode:
    """Runs all seeds and tells what came of them; Ctrl-C ends it early. Raises CommandFailed when
    a bundle could not be written, after everything else was told."""
    campaign = Campaign(CampaignTally(swarm), seeds, mutant, runs, replay)
    begun = time.monotonic()
    try:
        with terminated_like_interrupted() as check:
            for result in tracked(results(path, seeds, jobs, mutant), len(seeds), "seeds"):
                campaign.tally.add(result)
                failed = campaign.tally.failed
                if failed and failed[-1] is result and len(failed) <= _SHOWN:
                    campaign.keep(failed[-1])
                check()
    except KeyboardInterrupt:
        campaign.interrupted = True
    campaign.took_s = time.monotonic() - begun
    if output.for_people:
        _tell(campaign)
    else:
        click.echo(show_record("campaign", _row(campaign), output))
    for error in campaign.tally.errors[:_SHOWN]:
        click.echo(f"seed {error.seed}: the simulator failed\n{error.text}", err=True)
    if campaign.lost is not None:
        raise unwritten(campaign.lost)
    return campaign.code


def _tell(campaign: Campaign) -> None:
    tally, took_s = campaign.tally, campaign.took_s
    for failed in tally.failed[:_SHOWN]:
        click.echo(f"seed {failed.seed} {failed.verdict.value}: {_first(failed)}")
        click.echo(f"    replay: {campaign.replay(failed.seed)}")
        if failed.seed in campaign.bundles:
            click.echo(f"    bundle: {campaign.bundles[failed.seed]}")
    if campaign.interrupted:
        click.echo(f"interrupted after {campaign.done} of {len(campaign.seeds)} seeds")
    click.echo(
        f"{tally.runs} seeds in {took_s:.1f} s: {tally.runs / took_s:.1f} seeds/s, "
        f"{tally.events / took_s:.0f} events/s, {tally.steps / took_s:.0f} kernel steps/s, "
        f"{tally.virtual_ns / 1e9:.1f} s of virtual time"
    )
    injected = ", ".join(f"{name} {count}" for name, count in sorted(tally.injected.items()))
    click.echo(f"faults injected: {injected or 'none'}")
    wanted = tally.swarm.situations
    reached = sum(bool(tally.reached[name]) for name in wanted)
    click.echo(f"situations reached: {reached} of {len(wanted)} that must be")
    for name, meaning in MEANINGS.items():
        if name in wanted or tally.reached[name]:
            click.echo(f"  {name:<34}{tally.reached[name]:>8}  {meaning}")
    for name in tally.missing:
        click.echo(f"never reached: {name}")
    invalid, unknown = tally.verdicts[Verdict.INVALID], tally.verdicts[Verdict.UNKNOWN]
    click.echo(f"{invalid} invalid, {unknown} unknown, {len(tally.errors)} harness errors")
    click.echo(f"verdict: {campaign.verdict}")


def _first(failed: Result) -> str:
    return str(failed.violations[0]) if failed.violations else "a word could not be judged"


def _row(campaign: Campaign) -> dict[str, object]:
    tally = campaign.tally
    return {
        "scenario": tally.swarm.name,
        "mutant": campaign.mutant,
        "verdict": campaign.verdict,
        "seeds": len(campaign.seeds),
        "run": campaign.done,
        "interrupted": campaign.interrupted,
        "invalid": tally.verdicts[Verdict.INVALID],
        "unknown": tally.verdicts[Verdict.UNKNOWN],
        "failed": [
            {
                "seed": each.seed,
                "verdict": each.verdict.value,
                "first": _first(each),
                "invariants": each.invariants,
                "replay": campaign.replay(each.seed),
                "bundle": str(campaign.bundles[each.seed])
                if each.seed in campaign.bundles
                else None,
            }
            for each in tally.failed
        ],
        "errors": [{"seed": each.seed, "text": each.text} for each in tally.errors],
        "seconds": round(campaign.took_s, 1),
        "events": tally.events,
        "steps": tally.steps,
        "virtual_ns": tally.virtual_ns,
        "injected": dict(tally.injected),
        "reached": {name: tally.reached[name] for name in MEANINGS},
        "missing": tally.missing,
    }


def check_determinism(path: Path, seeds: range, output: Format) -> ExitCode:
    """Each seed twice, and which differ; Ctrl-C ends it early. Raises CommandFailed when a process
    of it fails."""
    done, different, interrupted = 0, list[int](), False
    try:
        with terminated_like_interrupted() as check:
            for seed, same in tracked(compared(path, seeds), len(seeds), "seeds"):
                done += 1
                different += [] if same else [seed]
                check()
    except KeyboardInterrupt:
        interrupted = True
    except subprocess.CalledProcessError as error:
        raise CommandFailed(
            f"a process that simulates failed:\n{error.stderr}",
            "`xpmem-emu sim replay SCENARIO --seed N` of one of these seeds",
            ExitCode.HARNESS,
        ) from None
    if output.for_people:
        part = f" of {len(seeds)}, interrupted" if interrupted else ""
        click.echo(f"{done} seeds twice, {len(different)} with different event streams{part}")
        for seed in different:
            click.echo(f"seed {seed} differs")
    else:
        click.echo(
            show_record(
                "gate",
                {
                    "seeds": len(seeds),
                    "run": done,
                    "interrupted": interrupted,
                    "different": different,
                },
                output,
            )
        )
    if different:
        return ExitCode.FAILED
    return ExitCode.INTERRUPTED if interrupted else ExitCode.DONE
