"""Progress of work that comes in items, on a terminal and nowhere else."""

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

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

T = TypeVar("T")


class Speed(ProgressColumn):
    """Items per second, once there is something to tell."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        """See rich."""
        return Text("" if task.speed is None else f"{task.speed:.1f} {self._unit}/s")


def tracked(items: Iterable[T], total: int, unit: str) -> Iterator[T]:
    """The items, with a bar that counts them in `unit`."""
    console = Console(file=sys.stderr)
    columns = (TextColumn(unit), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
               Speed(unit))  # fmt: skip
    with Progress(*columns, console=console, disable=not console.is_terminal,
                  transient=True) as progress:  # fmt: skip
        yield from progress.track(items, total=total)
