"""`sim mutants`: the protocol broken in every known way, and what catches each.

Exit codes: 0 when every mutant was caught, by seeds from each start or in a small world; else 1.
"""

import shlex
from statistics import median

import click

from xpmem_emu.cli import completion
from xpmem_emu.cli.arguments import JOBS
from xpmem_emu.cli.commands import Command
from xpmem_emu.cli.failure import ExitCode
from xpmem_emu.cli.interrupts import terminated_like_interrupted
from xpmem_emu.cli.output import Format, output_option, show_record
from xpmem_emu.cli.progress import tracked
from xpmem_emu.cli.verdicts import scenario_file
from xpmem_emu.sim.mutants import MUTANTS
from xpmem_emu.sim.mutation_score import MutationScore, score_all


@click.command("mutants", cls=Command)
@click.argument("scenario", default="", shell_complete=completion.swarms)
@click.option(
    "--starts",
    type=click.IntRange(1, 1000),
    default=3,
    show_default=True,
    help="How many times each mutant is hunted.",
)
@click.option(
    "--limit",
    type=click.IntRange(1, 1_000_000),
    default=1000,
    show_default=True,
    help="Seeds in which a mutant must be caught.",
)
@click.option(
    "--explore",
    "deviations",
    type=click.IntRange(-1, 2),
    default=2,
    show_default=True,
    metavar="K",
    help="Explore the small worlds up to so many deviations; -1: do not.",
)
@JOBS
@click.option("--only", multiple=True, type=click.Choice(list(MUTANTS)), help="Only this mutant.")
@output_option
def kill_mutants(
    scenario: str,
    starts: int,
    limit: int,
    deviations: int,
    jobs: int,
    only: tuple[str, ...],
    output: Format,
) -> ExitCode:
    """Break the protocol in every known way; each mutant must be caught.

    SCENARIO is the swarm of worlds; without one each mutant is hunted in the one that it names.
    """
    if scenario:
        scenario_file(scenario)
    names = list(only) or list(MUTANTS)
    kills: list[MutationScore] = []
    if output.for_people:
        click.echo(f"{'mutant':<29}{'median':>7}{'max':>6}{'deviations':>12}  caught by")
    hunts = score_all(scenario, names, starts, limit, deviations, jobs)
    interrupted = False
    try:
        with terminated_like_interrupted() as check:
            for kill in tracked(hunts, len(names), "mutants"):
                kills.append(kill)
                if output.for_people:
                    _tell(kill, limit)
                check()
    except KeyboardInterrupt:
        interrupted = True
    survivors = [kill.mutant for kill in kills if not kill.killed]
    if not output.for_people:
        click.echo(
            show_record(
                "mutants",
                {
                    "mutants": [_row(kill) for kill in kills],
                    "survivors": survivors,
                    "interrupted": interrupted,
                },
                output,
            )
        )
    elif kills:
        _tell_sum(kills, survivors)
    if interrupted and output.for_people:
        click.echo(f"interrupted: {len(names) - len(kills)} mutants were not hunted to the end")
    if survivors:
        return ExitCode.FAILED
    return ExitCode.INTERRUPTED if interrupted else ExitCode.DONE


def _tell(kill: MutationScore, limit: int) -> None:
    caught = ", ".join(kill.invariants) + f"  ({kill.swarm})"
    if not all(kill.seeds):
        caught = f"{'' if kill.killed else 'SURVIVED: '}not by {limit} seeds of {kill.swarm}"
    deviations = "-" if kill.schedule is None else kill.schedule.deviations
    click.echo(f"{kill.mutant:<29}{kill.median:>7g}{max(kill.seeds):>6}{deviations:>12}  {caught}")
    for line in _replays(kill):
        click.echo(f"    replay: {line}")


def _tell_sum(kills: list[MutationScore], survivors: list[str]) -> None:
    depths = [kill.schedule.deviations for kill in kills if kill.schedule is not None]
    highest = max(kills, key=lambda kill: kill.median)
    most = max(kills, key=lambda kill: max(kill.seeds))
    click.echo(
        f"{len(kills) - len(survivors)} of {len(kills)} mutants killed; of the medians the "
        f"highest is {highest.median:g} ({highest.mutant}) and the middle one "
        f"{median(kill.median for kill in kills):g}; most seeds: {max(most.seeds)} "
        f"({most.mutant})"
    )
    click.echo(
        f"{len(depths)} caught by exploring: "
        + ", ".join(f"{depths.count(n)} with {n}" for n in sorted(set(depths)))
        + " deviations"
        if depths
        else "none caught by exploring"
    )
    if survivors:
        click.echo(f"survived: {', '.join(survivors)}")


def _replays(kill: MutationScore) -> list[str]:
    lines = []
    if kill.seed >= 0:
        lines.append(["xpmem-emu", "sim", "replay", kill.swarm, "--seed", str(kill.seed)])
    if kill.schedule is not None:
        lines.append(
            [
                "xpmem-emu",
                "sim",
                "explore",
                kill.schedule.world,
                *(
                    ["--replay", kill.schedule.line]
                    if kill.schedule.line
                    else ["--deviations", "0"]
                ),
            ]
        )
    return [shlex.join([*line, "--mutant", kill.mutant]) for line in lines]


def _row(kill: MutationScore) -> dict[str, object]:
    schedule = kill.schedule
    return {
        "mutant": kill.mutant,
        "meaning": MUTANTS[kill.mutant].meaning,
        "judges": sorted(MUTANTS[kill.mutant].caught_by),
        "swarm": kill.swarm,
        "killed": kill.killed,
        "seeds": kill.seeds,
        "median": kill.median,
        "invariants": kill.invariants,
        "deviations": None if schedule is None else schedule.deviations,
        "world": None if schedule is None else schedule.world,
        "replays": _replays(kill),
    }
