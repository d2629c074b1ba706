"""A bar on the terminal for work that takes longer than a moment.

rich takes as long to import as many a command takes to do its work, so nobody waits for it before
there is a bar to be shown: the thread that shows it is the first to import it.
"""

import threading
from typing import TYPE_CHECKING

from xpmem_emu.cli.lines import SHOWN_AFTER_S, on_terminal

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Bar:
    """A bar that appears after a second, if at all: a context manager."""

    def __init__(self, label: str, total: int | None, *, sizes: bool, hidden: bool) -> None:
        """`sizes`: it counts bytes, else steps. `hidden`: it never appears, as where stderr is no
        terminal."""
        self._label, self._sizes = label, sizes
        self._done, self._total = 0, total
        self._lock = threading.Lock()
        self._shown: tuple[Progress, TaskID] | None = None
        never = hidden or not on_terminal()
        self._appear = None if never else threading.Timer(SHOWN_AFTER_S, self._show)

    def __enter__(self) -> "Bar":
        if self._appear is not None:
            self._appear.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._appear is not None:
            self._appear.cancel()
            self._appear.join()
        if self._shown is not None:
            self._shown[0].stop()

    def reach(self, done: int, total: int) -> None:
        """So much is done, of so much."""
        with self._lock:
            self._done, self._total = done, total
            if self._shown is not None:
                progress, task = self._shown
                progress.update(task, completed=done, total=total)

    def _show(self) -> None:
        progress = _progress(self._sizes)
        with self._lock:
            task = progress.add_task(self._label, total=self._total, completed=self._done)
            self._shown = progress, task
        progress.start()


def _progress(sizes: bool) -> "Progress":
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TransferSpeedColumn,
    )

    columns = (
        (DownloadColumn(binary_units=True), TransferSpeedColumn())
        if sizes
        else (MofNCompleteColumn(),)
    )
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        *columns,
        console=Console(stderr=True),
        transient=True,
    )
