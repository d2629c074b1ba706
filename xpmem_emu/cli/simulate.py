"""`sim`: seeded runs on virtual time, their verdicts, and what to do with one that fails.

Exit codes are those of verdicts: 0 valid, 1 invalid, 2 unknown, 3 when the simulator itself
failed. A seed that fails prints the one command that does it again.
"""

import re
import shlex
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from xpmem_emu.cli import parameters
from xpmem_emu.cli.arguments import JOBS
from xpmem_emu.cli.commands import Command, Group
from xpmem_emu.cli.exploring import explore_worlds
from xpmem_emu.cli.failure import CommandFailed, ExitCode
from xpmem_emu.cli.killing import kill_mutants
from xpmem_emu.scenario.story import is_story
from xpmem_emu.shipped import find_toml
from xpmem_emu.sim.audits import want_audits
from xpmem_emu.sim.bundle import write_bundle
from xpmem_emu.sim.campaign import HarnessError, Tally, results
from xpmem_emu.sim.gate import differing
from xpmem_emu.sim.mutants import MUTANTS, mutated
from xpmem_emu.sim.plan import Plan, decode_plan, encode_plan
from xpmem_emu.sim.run import Result, Run, Verdict
from xpmem_emu.sim.shrink import shrink as shrink_plan
from xpmem_emu.sim.sometimes import MEANINGS
from xpmem_emu.sim.swarm import read_swarm
from xpmem_emu.sim.world import draw

_CODES = {
    Verdict.VALID: ExitCode.DONE, Verdict.INVALID: ExitCode.FAILED,
    Verdict.UNKNOWN: ExitCode.UNKNOWN,
}  # fmt: skip
_SHOWN = 10
"""Failed runs that are told one by one."""

_scenario = click.argument("scenario")
_SEEDS = re.compile(r"(\d{1,18})\.\.(\d{1,18})")

_seed = click.option("--seed", type=parameters.number, metavar="N", help="One seed.")
_mutant = click.option("--mutant", default="", type=click.Choice(["", *MUTANTS]),
                       help="Break the protocol on purpose, to see it caught.")  # fmt: skip
_audits = click.option("--audits", is_flag=True,
                       help="Let kernels compare all their counts after each step; slow.")
_runs = click.option("--runs", type=click.Path(path_type=Path), default=Path("runs"),
                     show_default=True, help="Where result bundles go.")  # fmt: skip


@click.group(cls=Group)
def sim() -> None:
    """Simulate seeded worlds full of faults, and judge every invariant."""


sim.add_command(explore_worlds)
sim.add_command(kill_mutants)


@sim.command(cls=Command)
@_scenario
@_seed
@click.option("--seeds", metavar="A..B", help="Many seeds, both ends included.")
@JOBS
@_mutant
@_runs
@_audits
def run(
    scenario: str, seed: int | None, seeds: str | None, jobs: int, mutant: str, runs: Path,
    audits: bool,
) -> ExitCode:
    """Run one seed, which leaves a result bundle, or a campaign of many."""
    if audits:
        want_audits()
    path = find_toml("scenarios", scenario)
    if is_story(path):
        raise CommandFailed(f"{path.name} tells a story, it is no swarm of worlds",
                            f"xpmem-emu run {scenario}", ExitCode.USAGE)  # fmt: skip
    if (seed is None) == (seeds is None):
        raise click.UsageError("give either --seed or --seeds")
    if seed is not None:
        return _one(draw(read_swarm(path), seed), mutant, runs, _replay(scenario, seed, mutant))
    return _campaign(path, scenario, _span(seeds or ""), jobs, mutant)


@sim.command(cls=Command)
@_scenario
@_seed
@_mutant
@_runs
def replay(scenario: str, seed: int | None, mutant: str, runs: Path) -> ExitCode:
    """Do a run again: a scenario with a seed, or the plan.json of a bundle."""
    return _one(_plan(scenario, seed), mutant, runs, _replay(scenario, seed, mutant))


@sim.command(cls=Command)
@_scenario
@_seed
@_mutant
@click.option("--out", type=click.Path(path_type=Path), default=Path("shrunk.json"),
              show_default=True, help="Where the small plan goes.")  # fmt: skip
def shrink(scenario: str, seed: int | None, mutant: str, out: Path) -> ExitCode:
    """Delete from a failing plan all that the failure does not need."""
    plan = _plan(scenario, seed)
    with mutated(mutant):
        small = shrink_plan(plan)
        result = Run(small).result()
    if result.verdict is not Verdict.INVALID:
        raise CommandFailed("this run does not fail", "a seed that does")
    out.write_bytes(encode_plan(small))
    for name, before, after in (
        ("faults", len(plan.faults), len(small.faults)),
        ("operations", len(plan.operations), len(small.operations)),
        ("free schedulers", plan.knobs.partitions - len(plan.fifo),
         small.knobs.partitions - len(small.fifo)),
    ):  # fmt: skip
        click.echo(f"{name}: {before} -> {after}")
    _tell_violations(result)
    click.echo(f"replay: {_replay(str(out), None, mutant)}")
    return ExitCode.DONE


@sim.command(cls=Command)
@_scenario
@click.option("--seeds", metavar="A..B", default="0..49", show_default=True,
              help="Which seeds.")  # fmt: skip
def gate(scenario: str, seeds: str) -> ExitCode:
    """Check determinism: each seed twice, in fresh processes with different hash seeds."""
    span = _span(seeds)
    different = differing(find_toml("scenarios", scenario), span)
    click.echo(f"{len(span)} seeds twice, {len(different)} with different event streams")
    for each in different:
        click.echo(f"seed {each} differs")
    return ExitCode.FAILED if different else ExitCode.DONE


# -- one run ---------------------------------------------------------------------------------


def _plan(scenario: str, seed: int | None) -> Plan:
    if scenario.endswith(".json"):
        try:
            return decode_plan(Path(scenario).read_bytes())
        except msgspec.ValidationError as error:
            why = f"{scenario} is no plan: {error}"
            raise CommandFailed(why, "the plan.json of a bundle") from None
    if seed is None:
        raise click.UsageError("give --seed, or the plan.json of a bundle")
    return draw(read_swarm(find_toml("scenarios", scenario)), seed)


def _one(plan: Plan, mutant: str, runs: Path, again: str) -> ExitCode:
    click.echo(plan.describe())
    with mutated(mutant):
        under_way = Run(plan)
        result = under_way.result()
    folder = write_bundle(under_way, result, runs, again)
    _tell_violations(result)
    _tell_counts("faults injected", result.injected)
    _tell_counts("reached", result.reached)
    click.echo(f"stream: {result.events} events, hash {result.digest}")
    click.echo(f"bundle: {folder}")
    click.echo(f"verdict: {result.verdict.value}")
    return _CODES[result.verdict]


def _replay(scenario: str, seed: int | None, mutant: str) -> str:
    words = ["xpmem-emu", "sim", "replay", scenario]
    words += [] if seed is None else ["--seed", str(seed)]
    return shlex.join(words + (["--mutant", mutant] if mutant else []))


def _tell_violations(result: Result) -> None:
    for violation in result.violations:
        click.echo(str(violation))


def _tell_counts(title: str, counts: Mapping[str, int]) -> None:
    shown = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()) if count)
    click.echo(f"{title}: {shown or 'none'}")


# -- many runs -------------------------------------------------------------------------------


def _span(text: str) -> range:
    """The seeds that `A..B` names."""
    match = _SEEDS.fullmatch(text)
    if match is None or int(match[2]) < int(match[1]):
        raise click.UsageError(f"{text!r} names no seeds; write --seeds 0..999")
    return range(int(match[1]), int(match[2]) + 1)


def _campaign(path: Path, scenario: str, seeds: range, jobs: int, mutant: str) -> ExitCode:
    tally = Tally(read_swarm(path))
    begun = time.monotonic()
    for result in _watched(results(path, seeds, jobs, mutant), len(seeds)):
        tally.add(result)
    took_s = time.monotonic() - begun
    for failed in tally.failed[:_SHOWN]:
        first = failed.violations[0] if failed.violations else "a word could not be judged"
        click.echo(f"seed {failed.seed} {failed.verdict.value}: {first}")
        click.echo(f"    replay: {_replay(scenario, failed.seed, mutant)}")
    for error in tally.errors[:_SHOWN]:
        click.echo(f"seed {error.seed}: the simulator failed\n{error.text}", err=True)
    _tell_tally(tally, took_s)
    return ExitCode.HARNESS if tally.errors else _CODES[tally.verdict]


def _watched(
    stream: Iterable[Result | HarnessError], total: int
) -> Iterable[Result | HarnessError]:
    """With a progress bar on a terminal."""
    console = Console(file=sys.stderr)
    columns = (TextColumn("seeds"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
               TextColumn("{task.speed} seeds/s"))  # fmt: skip
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield from progress.track(stream, total=total)


def _tell_tally(tally: Tally, took_s: float) -> None:
    invalid, unknown = tally.verdicts[Verdict.INVALID], tally.verdicts[Verdict.UNKNOWN]
    click.echo(
        f"{tally.runs} seeds in {took_s:.1f} s: {tally.runs / took_s:.1f} seeds/s, "
        f"{tally.events / took_s:.0f} events/s, {tally.steps / took_s:.0f} kernel steps/s, "
        f"{tally.virtual_ns / 1e9:.1f} s of virtual time"
    )
    _tell_counts("faults injected", tally.injected)
    wanted = tally.swarm.situations
    reached = sum(bool(tally.reached[name]) for name in wanted)
    click.echo(f"situations reached: {reached} of {len(wanted)} that must be")
    for name, meaning in MEANINGS.items():
        if name in wanted or tally.reached[name]:
            click.echo(f"  {name:<34}{tally.reached[name]:>8}  {meaning}")
    for name in tally.missing:
        click.echo(f"never reached: {name}")
    click.echo(f"{invalid} invalid, {unknown} unknown, {len(tally.errors)} harness errors")
    click.echo(f"verdict: {'harness error' if tally.errors else tally.verdict.value}")
