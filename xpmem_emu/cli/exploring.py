"""`sim explore`, declared in `simulate`: every schedule that deviates at most K times.

Exit codes are those of verdicts: 0 valid, 1 invalid, 2 unknown because a schedule did not end or
time was up, 3 when the simulator itself failed, 130 for Ctrl-C before anything was found; what
was explored until then is told all the same.
"""

import shlex
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from xpmem_emu.cli.failure import CommandFailed, ExitCode
from xpmem_emu.cli.interrupts import terminated_like_interrupted
from xpmem_emu.cli.lines import of_pieces, on_terminal
from xpmem_emu.cli.output import Format, show_record
from xpmem_emu.cli.progress import announce
from xpmem_emu.sim.explore.search import Explored, Retold, explore, retell
from xpmem_emu.sim.explore.tree import Found
from xpmem_emu.sim.explore.world import World
from xpmem_emu.sim.explore.worlds import WORLDS

_ALL = "all"


@dataclass
class WorldReport:
    """What exploring one world came to."""

    world: World
    explored: Explored
    seconds: float
    cause: ExitCode = ExitCode.DONE
    """Why it was left before its end."""
    stories: list[tuple[Found, Retold]] = field(default_factory=list)

    @property
    def code(self) -> ExitCode:
        """The verdict."""
        tally = self.explored.tally
        if tally.errors:
            return ExitCode.HARNESS
        if self.explored.violations:
            return ExitCode.FAILED
        return ExitCode.UNKNOWN if self.explored.endless else self.cause

    @property
    def verdict(self) -> str:
        """The verdict in a word."""
        words = {
            ExitCode.DONE: "valid",
            ExitCode.FAILED: "invalid",
            ExitCode.HARNESS: "harness error",
        }
        return words.get(self.code, "unknown")


def explore_worlds(
    story: str,
    deviations: int,
    jobs: int,
    mutant: str,
    replay: str | None,
    limit: float | None,
    output: Format,
) -> ExitCode:
    if replay is not None:
        return _replay(story, replay, mutant, output)
    reports: list[WorldReport] = []
    for name in WORLDS if story == _ALL else [story]:
        report = _explore(WORLDS[name], deviations, jobs, mutant, limit)
        reports.append(report)
        if output.for_people:
            _tell(report, mutant)
        if report.cause is ExitCode.INTERRUPTED:
            break
    if not output.for_people:
        click.echo(show_record("explore", _record(reports, mutant), output))
    elif len(reports) > 1:
        total = sum(report.explored.tally.total for report in reports)
        took_s = sum(report.seconds for report in reports)
        click.echo(f"{len(reports)} worlds: {total:,} schedules in {took_s:.0f} s")
    return _worst([report.code for report in reports])


# -- exploring -------------------------------------------------------------------------------


def _explore(
    world: World, deviations: int, jobs: int, mutant: str, limit_s: float | None
) -> WorldReport:
    begun = time.monotonic()
    report = WorldReport(world, Explored.nothing(world.name), 0.0)
    try:
        with (
            terminated_like_interrupted() as check,
            closing(explore(world, deviations, jobs, mutant)) as steps,
        ):
            for report.explored in _watched(world.name, steps):
                check()
                if limit_s is not None and time.monotonic() - begun > limit_s:
                    report.cause = ExitCode.UNKNOWN
                    break
    except KeyboardInterrupt:
        report.cause = ExitCode.INTERRUPTED
    if report.explored.complete and report.explored.deviations == deviations:
        report.cause = ExitCode.DONE
    report.seconds = time.monotonic() - begun
    report.stories = [
        (each, retell(world, each.line, mutant)) for each in report.explored.violations
    ]
    return report


def _watched(name: str, steps: Iterable[tuple[Explored, int, int]]) -> Iterator[Explored]:
    """With a progress bar, or lines: of the first deviations, how many were gone into."""
    tell = of_pieces(announce)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[schedules]:,} schedules"),
        TimeElapsedColumn(),
    )
    with Progress(
        *columns, console=Console(stderr=True), disable=not on_terminal(), transient=True
    ) as progress:
        bar = progress.add_task(name, schedules=0)
        for explored, done, total in steps:
            progress.update(
                bar,
                description=f"{name}, {explored.deviations} deviations",
                completed=done,
                total=total,
                schedules=explored.tally.total,
            )
            if not on_terminal():
                tell(
                    f"{name}, {explored.deviations} deviations: {done} of {total} gone into, "
                    f"{explored.tally.total:,} schedules"
                )
            yield explored


def _worst(codes: list[ExitCode]) -> ExitCode:
    """A fault of ours counts more than a fault found, and that more than one not looked for."""
    order = (ExitCode.HARNESS, ExitCode.FAILED, ExitCode.INTERRUPTED, ExitCode.UNKNOWN)
    return next((code for code in order if code in codes), ExitCode.DONE)


# -- what people read ------------------------------------------------------------------------


def _tell(report: WorldReport, mutant: str) -> None:
    explored, tally = report.explored, report.explored.tally
    click.echo(f"{report.world.name}: {report.world.gist}")
    for depth in range(explored.deviations + 1):
        cut = f", {tally.cut[depth]:,} cut" if tally.cut[depth] else ""
        click.echo(f"  {depth} deviations: {tally.schedules[depth]:>9,} schedules{cut}")
    states = f"{explored.states:,} states, " if explored.states else ""
    click.echo(f"  {states}{report.seconds:.1f} s, {tally.total / report.seconds:.0f} schedules/s")
    for found, story in report.stories:
        click.echo(f"  {found.text}")
        for deviation in story.deviations:
            click.echo(f"      #{deviation}")
        click.echo(f"    replay: {_command(report.world.name, found.line, mutant)}")
    for endless in explored.endless[:1]:
        click.echo(f"  {len(explored.endless)} schedules do not end")
        click.echo(f"    replay: {_command(report.world.name, endless.line, mutant)}")
    for error in tally.errors[:1]:
        click.echo(
            f"the simulator failed in {_command(report.world.name, error.line, mutant)}\n"
            f"{error.text}",
            err=True,
        )
    if not explored.complete:
        click.echo(f"  not all with {explored.deviations} deviations were run")
    click.echo(f"  verdict: {report.verdict}")


def _command(world: str, line: str, mutant: str) -> str:
    words = ["xpmem-emu", "sim", "explore", world]
    return shlex.join([*words, *(["--mutant", mutant] if mutant else []), "--replay", line])


def _record(reports: list[WorldReport], mutant: str) -> dict[str, object]:
    return {"mutant": mutant, "worlds": [_row(report) for report in reports]}


def _row(report: WorldReport) -> dict[str, object]:
    explored, tally = report.explored, report.explored.tally
    depths = explored.deviations + 1
    return {
        "world": report.world.name,
        "gist": report.world.gist,
        "verdict": report.verdict,
        "deviations": explored.deviations,
        "complete": explored.complete,
        "schedules": tally.schedules[:depths],
        "cut": tally.cut[:depths],
        "states": explored.states,
        "seconds": round(report.seconds, 1),
        "violations": [
            {
                "invariant": found.invariant,
                "text": found.text,
                "replay": found.line,
                "deviations": story.deviations,
            }
            for found, story in report.stories
        ],
        "endless": [each.line for each in explored.endless],
        "errors": [each.text for each in tally.errors],
    }


# -- one schedule ----------------------------------------------------------------------------


def _replay(name: str, line: str, mutant: str, output: Format) -> ExitCode:
    if name == _ALL:
        raise click.UsageError("a line belongs to one world")
    try:
        story = retell(WORLDS[name], line, mutant)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if story.missed:
        points = ", ".join(map(str, story.missed))
        raise CommandFailed(
            f"the line does not fit {name}: no such choice at point {points}",
            f"xpmem-emu sim explore {name}",
            ExitCode.USAGE,
        )
    code = ExitCode.FAILED if story.violations else ExitCode.DONE
    if story.endless:
        code = ExitCode.UNKNOWN
    if not output.for_people:
        click.echo(
            show_record(
                "schedule",
                {
                    "world": name,
                    "replay": line,
                    "deviations": story.deviations,
                    "events": story.told,
                    "violations": story.violations,
                    "hash": story.digest,
                },
                output,
            )
        )
        return code
    for event in story.told:
        click.echo(event)
    for deviation in story.deviations:
        click.echo(f"deviation #{deviation}")
    for violation in story.violations:
        click.echo(violation)
    click.echo(f"hash {story.digest}")
    return code
