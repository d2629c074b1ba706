"""The demo as a command: what is shared, what is told, and the verdict.

It needs no cluster and leaves nothing behind; the exit code is the verdict. The story is
`demo/story.py`.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import click

from xpmem_emu.cli import completion
from xpmem_emu.cli.commands import Command
from xpmem_emu.cli.failure import CommandFailed, ExitCode, exit_code
from xpmem_emu.cli.interrupts import terminated_like_interrupted
from xpmem_emu.cli.output import Format, output_option, show_record
from xpmem_emu.demo.stage import DemoScript
from xpmem_emu.demo.story import tell_story

_OWN_FILE_BYTES = 32 << 20


@click.command(cls=Command)
@click.argument("file", required=False, metavar="[FILE]", shell_complete=completion.complete_files)
@output_option
def demo(file: str | None, output: Format) -> ExitCode:
    """Watch memory being shared, recalled and survived; ends with a verdict.

    FILE is what is shared; without it, 32 MiB of random bytes.
    """
    script = DemoScript(aside=not output.for_people)
    with terminated_like_interrupted(), _file(file) as path:
        tell_story(script, path)
    return _verdict(script, output)


def _verdict(script: DemoScript, output: Format) -> ExitCode:
    wrong = [claim for claim in script.claims if not claim.holds]
    verdict = "invalid" if wrong else "valid"
    if not output.for_people:
        record = {
            "verdict": verdict,
            "claims": [asdict(claim) for claim in script.claims],
            "failed": len(wrong),
            "took_ns": script.took_ns,
        }
        click.echo(show_record("demo", record, output))
        return exit_code(not wrong)
    for claim in wrong:
        script.console.print(f"failed: {claim.text}: {claim.found}", markup=False, soft_wrap=True)
    script.console.print(f"{len(script.claims)} claims checked, {len(wrong)} failed")
    script.console.print(f"verdict: {verdict}")
    return exit_code(not wrong)


@contextmanager
def _file(given: str | None) -> Iterator[Path]:
    """The file to share: the one given, or one made for the occasion."""
    if given is not None:
        path = Path(given)
        if path.exists() and not (path.is_file() and path.stat().st_size):
            raise CommandFailed(f"{path} is no file with something in it", "another FILE, or none")
        with path.open("rb"):
            pass
        yield path
        return
    with tempfile.NamedTemporaryFile(prefix="xpmem-emu-demo-") as made:
        made.write(os.urandom(_OWN_FILE_BYTES))
        made.flush()
        yield Path(made.name)
