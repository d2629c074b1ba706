"""`judge`: event streams in files, judged by the checkers that need no kernel.

The files are what partitions of a cluster with an event log leave, or one for each partition of a
simulated run. A stream that is damaged is refused, half a line at the end of a boot aside.
"""

from pathlib import Path

import click

from xpmem_emu.cli.arguments import shipped_option
from xpmem_emu.cli.commands import Command
from xpmem_emu.cli.failure import ExitCode, exit_code
from xpmem_emu.cli.output import Format, output_option, show_record
from xpmem_emu.cluster.topology import load_image
from xpmem_emu.judge.streams import StreamsEnd, judge_stream_files


@click.command("judge", cls=Command)
@click.argument(
    "files",
    nargs=-1,
    required=True,
    metavar="FILE...",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@shipped_option(
    "image", "What the partitions were booted with: its deadlines are the bounds.", default="laptop"
)
@click.option(
    "--at-rest", is_flag=True, help="The streams end healed and idle: then that is judged too."
)
@output_option
def judge_streams(files: tuple[Path, ...], image: str, at_rest: bool, output: Format) -> ExitCode:
    """Judge the event streams that partitions wrote to files."""
    verdict = judge_stream_files(
        files, load_image(image), StreamsEnd.AT_REST if at_rest else StreamsEnd.CUT
    )
    valid = not verdict.violations
    word = "valid" if valid else "invalid"
    if not output.for_people:
        click.echo(
            show_record(
                "judgement",
                {
                    "verdict": word,
                    "violations": [str(each) for each in verdict.violations],
                    "events": verdict.events,
                    "boots": verdict.boots,
                    "judged": verdict.judged,
                    "not_judged": verdict.unjudged,
                },
                output,
            )
        )
        return exit_code(valid)
    for violation in verdict.violations:
        click.echo(str(violation))
    for name, meaning in verdict.judged.items():
        click.echo(f"judged      {name:<4} {meaning}")
    for name, why in verdict.unjudged.items():
        click.echo(f"not judged  {name:<4} {why}")
    click.echo(f"{verdict.events} events of {verdict.boots} boots")
    click.echo(f"verdict: {word}")
    return exit_code(valid)
