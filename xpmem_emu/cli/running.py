"""`run`: a scenario file on the simulator, on processes or on containers, and its verdict.

Exit codes are those of verdicts: 0 valid, 1 invalid, 2 unknown, 3 when the ground itself failed.
The result goes to stdout, progress to stderr. What tells stories is imported when one is told: the
completion of their names does not wait for it.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from xpmem_emu.cli import completion, parameters
from xpmem_emu.cli.arguments import RUNS
from xpmem_emu.cli.commands import Command
from xpmem_emu.cli.failure import CommandFailed, ExitCode
from xpmem_emu.cli.interrupts import terminated_like_interrupted
from xpmem_emu.cli.output import Listing, list_options, show_record
from xpmem_emu.cli.session import CommandSession, pass_session
from xpmem_emu.errors import KernelError

if TYPE_CHECKING:
    from xpmem_emu.backend.interface import Backend
    from xpmem_emu.scenario.story import Story
    from xpmem_emu.scenario.verdict import Judgement, Ran

GROUNDS = ("sim", "live", "compose")


@click.command(cls=Command)
@click.argument("scenario", default="", shell_complete=completion.stories)
@click.option(
    "--on",
    "where",
    type=click.Choice(GROUNDS),
    default="sim",
    show_default=True,
    help="Virtual time in this process, processes of this host, or containers.",
)
@click.option(
    "--seed",
    type=parameters.parse_number,
    default="0",
    show_default=True,
    metavar="N",
    help="Of random faults; on sim, unless 0, also of the order of threads.",
)
@click.option("--list", "listed", is_flag=True, help="Say in a line what each shipped one shows.")
@RUNS
@list_options
@pass_session
def run(
    session: CommandSession,
    scenario: str,
    where: str,
    seed: int,
    listed: bool,
    runs: Path,
    output: Listing,
) -> ExitCode:
    """Run a scenario: a story with faults, and its verdict; the file is the same everywhere."""
    if listed:
        session.show("scenarios", _rows(), output)
        return ExitCode.DONE
    if not scenario:
        raise click.UsageError("which scenario? `xpmem-emu run --list` has them")
    from xpmem_emu.cli.verdicts import CODES, command_line, with_bundle
    from xpmem_emu.scenario.bundle import write_story_bundle

    story = _read(scenario)
    with terminated_like_interrupted():
        ran = _ran(session, story, where, seed)
    replay = command_line("run", scenario, "--on", where, "--seed", seed)
    with_bundle(
        lambda: write_story_bundle(story, ran, runs, replay),
        lambda folder: _tell(ran.judgement, folder, replay, output),
    )
    return CODES[ran.judgement.verdict]


def _tell(judgement: "Judgement", folder: Path | None, replay: str, output: Listing) -> None:
    """The findings and the verdict. `folder`: the bundle, None when it could not be written."""
    from xpmem_emu.judge.verdict import Verdict

    if not output.for_people:
        record = {
            "scenario": judgement.scenario,
            "ground": judgement.ground,
            "seed": judgement.seed,
            "verdict": judgement.verdict.value,
            "findings": judgement.findings,
            "steps": judgement.steps,
            "events": judgement.events,
            "took_ns": judgement.took_ns,
            "replay": replay,
            "bundle": str(folder) if folder else None,
        }
        click.echo(show_record("run", record, output.format))
        return
    for finding in judgement.findings:
        click.echo(finding)
    if judgement.verdict is not Verdict.VALID:
        click.echo(f"replay: {replay}")
    if folder is not None:
        click.echo(f"bundle: {folder}")
    click.echo(f"verdict: {judgement.verdict.value}")


def _read(scenario: str) -> "Story":
    from xpmem_emu.cli.verdicts import scenario_file
    from xpmem_emu.scenario.story import read_story

    try:
        return read_story(scenario_file(scenario))
    except KernelError as error:
        raise CommandFailed(error.cause, error.remedy, ExitCode.USAGE, error.errno) from error


def _ran(session: CommandSession, story: "Story", where: str, seed: int) -> "Ran":
    from xpmem_emu.scenario.verdict import run_story

    session.say(f"{story.name}: {story.title}")
    try:
        return run_story(story, _ground(where, story, seed), seed, session.say)
    except (KernelError, OSError) as error:
        # The story's own refusals are findings: what comes here is the ground's.
        why = str(getattr(error, "cause", "")) or str(error)
        remedy = str(getattr(error, "remedy", "")) or "xpmem-emu doctor"
        raise CommandFailed(why, remedy, ExitCode.HARNESS, error.errno or 0) from error


def _ground(where: str, story: "Story", seed: int) -> "Backend":
    # Imported when wanted: each drags its half of the emulator in.
    if where == "live":
        from xpmem_emu.backend.live_backend import LiveBackend

        return LiveBackend(story, seed)
    if where == "compose":
        from xpmem_emu.backend.compose_backend import ComposeBackend

        return ComposeBackend(story, seed)
    from xpmem_emu.backend.sim_backend import SimBackend

    return SimBackend(story, seed)


def _rows() -> list[dict[str, str]]:
    from xpmem_emu.scenario.story import shipped_stories

    return [
        {"name": story.name, "shows": story.shows, "title": story.title}
        for story in shipped_stories()
    ]
