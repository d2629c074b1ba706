"""What the commands of `sim` do with one seed or many: see `simulate`, which declares them."""

import re
from collections.abc import Mapping
from pathlib import Path

import click
import msgspec

from xpmem_emu.cli.campaigning import check_determinism, run_campaign
from xpmem_emu.cli.failure import CommandFailed, ExitCode
from xpmem_emu.cli.output import Format, show_record
from xpmem_emu.cli.verdicts import CODES, command_line, scenario_file, swarm_of, with_bundle
from xpmem_emu.fields import misfit_named
from xpmem_emu.judge.verdict import Verdict
from xpmem_emu.scenario.story import is_story
from xpmem_emu.sim.audits import want_audits
from xpmem_emu.sim.bundle import write_run_bundle
from xpmem_emu.sim.draw.world import draw_plan
from xpmem_emu.sim.mutations.table import mutated
from xpmem_emu.sim.plan import Plan, decode_plan, encode_plan
from xpmem_emu.sim.run import Result, Run
from xpmem_emu.sim.shrink import shrink as shrink_plan

_SEEDS = re.compile(r"(\d{1,18})\.\.(\d{1,18})")


def run(
    scenario: str,
    seed: int | None,
    seeds: str | None,
    jobs: int,
    mutant: str,
    runs: Path,
    audits: bool,
    output: Format,
) -> ExitCode:
    if audits:
        want_audits()
    path = scenario_file(scenario)
    if is_story(path):
        raise CommandFailed(
            f"{path.name} tells a story, it is no swarm of worlds",
            f"xpmem-emu run {scenario}",
            ExitCode.USAGE,
        )
    if (seed is None) == (seeds is None):
        raise click.UsageError("give either --seed or --seeds")
    swarm = swarm_of(path)
    if seed is not None:
        return _one(draw_plan(swarm, seed), mutant, runs, _replay(scenario, seed, mutant), output)
    return run_campaign(
        path,
        swarm,
        _span(seeds or ""),
        jobs,
        mutant,
        runs,
        lambda failed: _replay(scenario, failed, mutant),
        output,
    )


def replay(scenario: str, seed: int | None, mutant: str, runs: Path, output: Format) -> ExitCode:
    return _one(_plan(scenario, seed), mutant, runs, _replay(scenario, seed, mutant), output)


def shrink_seed(
    scenario: str, seed: int | None, mutant: str, out: Path, output: Format
) -> ExitCode:
    plan = _plan(scenario, seed)
    with mutated(mutant):
        small = shrink_plan(plan)
        result = Run(small).result()
    if result.verdict is not Verdict.INVALID:
        raise CommandFailed("this run does not fail", "a seed that does")
    counts = {
        "faults": (len(plan.faults), len(small.faults)),
        "operations": (len(plan.operations), len(small.operations)),
        "free schedulers": (
            plan.knobs.partitions - len(plan.fifo),
            small.knobs.partitions - len(small.fifo),
        ),
    }

    def tell(kept: Path | None) -> None:
        again = _replay(str(kept), None, mutant) if kept else _replay(scenario, seed, mutant)
        if not output.for_people:
            record = {
                "before": {name: each[0] for name, each in counts.items()},
                "after": {name: each[1] for name, each in counts.items()},
                "plan": str(kept or ""),
                "replay": again,
            } | _row(result)
            click.echo(show_record("shrunk", record, output))
            return
        for name, (before, after) in counts.items():
            click.echo(f"{name}: {before} -> {after}")
        for violation in result.violations:
            click.echo(str(violation))
        click.echo(f"replay: {again}")

    with_bundle(lambda: _kept(out, small), tell, "the plan", "--out FILE")
    return ExitCode.DONE


def _kept(out: Path, plan: Plan) -> Path:
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(encode_plan(plan))
    return out


def gate(scenario: str, seeds: str, output: Format) -> ExitCode:
    return check_determinism(scenario_file(scenario), _span(seeds), output)


def _span(text: str) -> range:
    """The seeds that `A..B` names."""
    match = _SEEDS.fullmatch(text)
    if match is None or int(match[2]) < int(match[1]):
        raise click.UsageError(f"{text!r} names no seeds; write --seeds 0..999")
    return range(int(match[1]), int(match[2]) + 1)


def _plan(scenario: str, seed: int | None) -> Plan:
    if scenario.endswith(".json"):
        try:
            return decode_plan(Path(scenario).read_bytes())
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            why = f"{scenario} is no plan: {misfit_named(str(error))}"
            raise CommandFailed(why, "the plan.json of a bundle", ExitCode.USAGE) from None
    if seed is None:
        raise click.UsageError("give --seed, or the plan.json of a bundle")
    return draw_plan(swarm_of(scenario_file(scenario)), seed)


def _one(plan: Plan, mutant: str, runs: Path, again: str, output: Format) -> ExitCode:
    if output.for_people:
        click.echo(plan.describe())
    with mutated(mutant):
        under_way = Run(plan)
        result = under_way.result()
    with_bundle(
        lambda: write_run_bundle(under_way, result, runs, again),
        lambda folder: _tell(result, again, folder, output),
    )
    return CODES[result.verdict]


def _tell(result: Result, again: str, folder: Path | None, output: Format) -> None:
    if not output.for_people:
        record = _row(result) | {"replay": again, "bundle": str(folder) if folder else None}
        click.echo(show_record("sim-run", record, output))
        return
    for violation in result.violations:
        click.echo(str(violation))
    click.echo(f"faults injected: {_counts(result.injected)}")
    click.echo(f"reached: {_counts(result.reached)}")
    click.echo(f"stream: {result.events} events, hash {result.digest}")
    if result.verdict is not Verdict.VALID:
        click.echo(f"replay: {again}")
    if folder is not None:
        click.echo(f"bundle: {folder}")
    click.echo(f"verdict: {result.verdict.value}")


def _replay(scenario: str, seed: int | None, mutant: str) -> str:
    where = [] if seed is None else ["--seed", seed]
    broken = ["--mutant", mutant] if mutant else []
    return command_line("sim", "replay", scenario, *where, *broken)


def _row(result: Result) -> dict[str, object]:
    return {
        "seed": result.seed,
        "verdict": result.verdict.value,
        "violations": [str(each) for each in result.violations],
        "events": result.events,
        "hash": result.digest,
        "steps": result.steps,
        "virtual_ns": result.virtual_ns,
        "injected": result.injected,
        "reached": result.reached,
    }


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()) if count) or "none"
