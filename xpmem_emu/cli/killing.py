"""`sim mutants`, declared in `simulate`: break the protocol in every known way, and be caught.

Exit codes: 0 when every mutant was caught, by seeds from each start or in a small world; else 1.
"""

import shlex
from statistics import median

import click

from xpmem_emu.cli.failure import ExitCode
from xpmem_emu.cli.interrupts import terminated_like_interrupted
from xpmem_emu.cli.output import Format, show_record
from xpmem_emu.cli.progress import tracked
from xpmem_emu.cli.verdicts import scenario_file
from xpmem_emu.sim.mutation_score import MutationScore, score_all
from xpmem_emu.sim.mutations.table import MUTANTS


def kill_mutants(
    scenario: str,
    starts: int,
    limit: int,
    deviations: int,
    jobs: int,
    only: tuple[str, ...],
    output: Format,
) -> ExitCode:
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
