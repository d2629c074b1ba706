"""Progress of work that comes in items: a bar on a terminal, and else a line now and then."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from xpmem_emu.cli.lines import of_pieces, on_terminal
from xpmem_emu.cli.session import CommandSession

_T = TypeVar("_T")


class Speed(ProgressColumn):
    """Items per second, once there is something to tell."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.1f} {self._unit}/s")


def tracked(items: Iterable[_T], total: int, unit: str) -> Iterator[_T]:
    """The items, with a bar that counts them in `unit`."""
    if not on_terminal():
        yield from _told(items, total, unit)
        return
    columns = (
        TextColumn(unit),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        Speed(unit),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield from progress.track(items, total=total)


def _told(items: Iterable[_T], total: int, unit: str) -> Iterator[_T]:
    tell = of_pieces(announce)
    for done, item in enumerate(items, start=1):
        tell(f"{done} of {total} {unit}")
        yield item


def announce(text: str) -> None:
    """Tells people on stderr, unless they asked for quiet."""
    context = click.get_current_context(silent=True)
    session = context and context.find_object(CommandSession)
    if session:
        session.say(text)
