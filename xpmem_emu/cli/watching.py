"""Showing something again and again until interrupted: in place on a terminal, else one after
the other."""

import time
from collections.abc import Callable

import click

from xpmem_emu.cli import parameters
from xpmem_emu.cli.output import Listing, refuse_document
from xpmem_emu.units import SECOND

INTERVAL = click.option(
    "--interval", type=parameters.duration, default="1s", metavar="TIME", help="How often."
)


def watch(draw: Callable[[], str], interval_ns: int, output: Listing) -> None:
    """Shows `draw()` every `interval_ns` for ever. A document format is a usage error."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    refuse_document(output, "a watch")
    console = Console()
    if not (console.is_terminal and output.for_people):
        while True:
            click.echo(draw())
            time.sleep(interval_ns / SECOND)
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.update(Text(draw(), no_wrap=True), refresh=True)
            time.sleep(interval_ns / SECOND)
