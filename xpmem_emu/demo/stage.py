"""What the story stands on: a cluster of its own, its event streams, and claims that are checked.

A claim is a sentence and a comparison that was really made; the verdict is valid when every one
of them held. The cluster is ended whatever happens, and that too is a claim.
"""

import errno
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from rich.console import Console
from rich.markup import escape

from xpmem_emu.cluster.paths import arena_folder, arena_note, arena_room, run_folder
from xpmem_emu.demo.diagram import EventRow
from xpmem_emu.errors import KernelError
from xpmem_emu.units import SECOND, format_size

if TYPE_CHECKING:
    from xpmem_emu.client.blocking import Partition


@dataclass(frozen=True, slots=True)
class Claim:
    """Something the demo says, and whether it was so."""

    text: str
    holds: bool
    found: str


class StreamRecorder:
    """The event streams of some partitions, complete from their boot on: read from the files that
    the partitions write them to."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.events: list[EventRow] = []
        self._files = {name: (folder / f"{name}.events.jsonl").open("rb") for name in names}
        self._partial = dict.fromkeys(names, b"")

    def catch_up(self) -> None:
        """Read what was written since the last time."""
        for name, file in self._files.items():
            *lines, self._partial[name] = (self._partial[name] + file.read()).split(b"\n")
            self.events += [{"partition": name} | msgspec.json.decode(line) for line in lines]

    def named(self, name: str, partition: str = "", after_ns: int = 0) -> list[EventRow]:
        """The events of one name, of one partition or of all, since a time."""
        self.catch_up()
        return [
            event
            for event in self.events
            if event["event"] == name
            and partition in ("", event["partition"])
            and event["time_ns"] >= after_ns
        ]

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()


class Screen(Console):
    """A console that says so when nobody reads it any more, as every other write does."""

    def on_broken_pipe(self) -> None:
        """Raises BrokenPipeError; rich would end the process here."""
        raise BrokenPipeError


class DemoScript:
    """What is told and claimed, printed as it happens."""

    def __init__(self, *, aside: bool = False) -> None:
        """`aside`: on stderr, because stdout is for the result."""
        self.claims: list[Claim] = []
        self.console = Screen(highlight=False, stderr=aside)
        self._begun = time.monotonic()

    @property
    def took_ns(self) -> int:
        """How long it is told already."""
        return round((time.monotonic() - self._begun) * SECOND)

    def tell(self, text: str) -> None:
        """Says what happens, with the time since the beginning."""
        self.console.print(
            f"[dim]{self.took_ns / SECOND:6.2f} s[/dim]  {escape(text)}", soft_wrap=True
        )

    def claim(self, text: str, holds: bool, found: str) -> None:
        """Says what was found, and keeps it for the verdict."""
        mark = "[green]ok[/green]   " if holds else "[bold red]WRONG[/bold red]"
        self.console.print(f"          {mark} {escape(text)}: {escape(found)}", soft_wrap=True)
        self.claims.append(Claim(text, holds, found))

    def show(self, text: str) -> None:
        """Prints something with lines of its own."""
        self.console.print(f"\n{text}\n", markup=False, soft_wrap=True)


@dataclass(frozen=True, slots=True)
class DemoStage:
    """A running cluster for the story."""

    script: DemoScript
    cluster: str
    partitions: dict[str, "Partition"]
    recorder: StreamRecorder

    def tell(self, text: str) -> None:
        self.script.tell(text)

    def claim(self, text: str, holds: bool, found: str) -> None:
        self.script.claim(text, holds, found)

    def __getitem__(self, name: str) -> "Partition":
        return self.partitions[name]

    def last_words(self) -> str:
        """The ends of the logs of the partitions that died."""
        from xpmem_emu.backend.partition_process import log_tail
        from xpmem_emu.cluster.state import process_of, read_state

        return "\n".join(
            f"{one.name} died:\n{log_tail(one)}"
            for one in read_state(self.cluster).partitions
            if process_of(one.pid, one.started) is None
        )


@contextmanager
def staged(script: DemoScript, count: int, memory: int) -> Iterator[DemoStage]:
    """`count` partitions with `memory` bytes each, recorded from their boot on; ended whatever
    happens. Raises KernelError ENOSPC when there is no room for them."""
    from xpmem_emu.backend import processes
    from xpmem_emu.client.blocking import connect
    from xpmem_emu.cluster.topology import ClusterSpec, numbered_partitions

    name = f"demo-{os.getpid()}"
    if note := arena_note():
        script.tell(note)
    _require_room(name, count * memory)
    # Nothing here is about being quick to give somebody up, and the machine may be busy.
    spec = ClusterSpec(name, numbered_partitions(count), "patient", memory, event_log=True)
    names = [one.name for one in spec.partitions]
    try:
        processes.up(spec, lambda _done, _all, what: script.tell(what))
        with ExitStack() as stack:
            partitions = {each: stack.enter_context(connect(each, cluster=name)) for each in names}
            recorder = StreamRecorder(run_folder(name), names)
            stack.callback(recorder.close)
            yield DemoStage(script, name, partitions, recorder)
    finally:
        if run_folder(name).is_dir():
            processes.down(name)
    script.tell("the cluster is taken down")
    left = [str(path) for path in (run_folder(name), arena_folder(name)) if path.exists()]
    script.claim("nothing is left behind", not left, ", ".join(left) or "no folder, no process")


def _require_room(cluster: str, needed: int) -> None:
    folder, free = arena_room(cluster)
    if needed > free:
        raise KernelError(
            errno.ENOSPC,
            f"the partitions need {format_size(needed)} in {folder}, {free >> 20}M are free",
            "a smaller FILE, a larger tmpfs, or XPMEM_EMU_ARENAS",
        )
