"""Logs of partitions: of one, of some or of all, by time, for people or as they were written.

A partition logs one JSON object a line. What is no such line, a traceback say, belongs to the line
before it and has its time.
"""

import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

import click

from xpmem_emu.cli import completion, parameters
from xpmem_emu.cli.commands import Command
from xpmem_emu.cli.output import Format, cell, output_option, refuse_document
from xpmem_emu.cli.session import CommandSession, pass_session
from xpmem_emu.text import visible
from xpmem_emu.units import SECOND

_POLL_S = 0.2
_FRAME = ("partition", "pid", "event", "level", "timestamp")


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of a log. `when`: its own time, or that of the line before it."""

    partition: str
    when: str
    text: str

    def told(self) -> str:
        """The line for people: when, who, how bad, what."""
        facts = _facts(self.text)
        if not facts:
            return f"{'':12} {self.partition:<4} | {visible(self.text)}"
        told = " ".join(
            f"{key}={cell(key, each)}" for key, each in facts.items() if key not in _FRAME
        )
        clock = str(facts["timestamp"])[11:23]
        level = str(facts.get("level", "")).upper()
        return f"{clock} {self.partition:<4} {level:<7} {facts.get('event', '')} {told}".rstrip()


def _facts(text: str) -> dict[str, object]:
    """What a line says; empty when it is not one that a partition logged."""
    try:
        facts = json.loads(text)
    except ValueError:
        return {}
    return facts if isinstance(facts, dict) and "timestamp" in facts else {}


@dataclass
class _Log:
    """The log of one partition, read as it grows."""

    partition: str
    path: Path
    file: BinaryIO
    when: str = ""
    _partial: bytes = field(default=b"")

    def read(self) -> Iterator[Entry]:
        """The whole lines that were written since the last time."""
        *lines, self._partial = (self._partial + self.file.read()).split(b"\n")
        for line in lines:
            text = line.decode(errors="replace")
            self.when = str(_facts(text).get("timestamp", self.when))
            yield Entry(self.partition, self.when, text)

    @property
    def ended(self) -> bool:
        """Whether this is no longer the partition's log: `down` removed it."""
        try:
            return os.fstat(self.file.fileno()).st_ino != self.path.stat().st_ino
        except FileNotFoundError:
            return True


@click.command(cls=Command)
@click.argument(
    "where",
    type=parameters.parse_partitions,
    required=False,
    metavar="[P,...]",
    shell_complete=completion.several,
)
@click.option("-f", "--follow", is_flag=True, help="Go on as they grow.")
@click.option(
    "--tail", type=click.IntRange(0, 1_000_000), metavar="N", help="Only the last N lines of each."
)
@click.option(
    "--since",
    type=parameters.duration,
    metavar="TIME",
    help="Only what was logged so long ago or later, as in 5m.",
)
@output_option
@pass_session
def logs(
    session: CommandSession,
    where: tuple[str, ...] | None,
    follow: bool,
    tail: int | None,
    since: int | None,
    output: Format,
) -> None:
    """Print the logs of all partitions, or of some, by time; -o jsonl as they were written."""
    from xpmem_emu.backend import containers
    from xpmem_emu.cluster.locator import Home, home_of
    from xpmem_emu.cluster.state import read_state

    refuse_document(output, "a log")
    names = session.partitions(where or ())
    if home_of(session.cluster) is Home.CONTAINERS:
        options = ["--follow"] if follow else []
        options += [] if tail is None else ["--tail", str(tail)]
        options += [] if since is None else ["--since", f"{since // SECOND}s"]
        for name in names:
            containers.show_log(session.cluster, name, *options)
        return
    state = read_state(session.cluster)
    paths = {name: Path(state.partition(name).log) for name in names}
    _show(
        [_Log(name, path, path.open("rb")) for name, path in paths.items()],
        follow,
        tail,
        since,
        output,
    )


def _show(
    found: Sequence[_Log], follow: bool, tail: int | None, since: int | None, output: Format
) -> None:
    oldest = ""
    if since is not None:
        oldest = (datetime.now(UTC) - timedelta(microseconds=since // 1000)).isoformat()
    entries = [
        entry
        for log in found
        for entry in _last([each for each in log.read() if each.when >= oldest], tail)
    ]
    _print(sorted(entries, key=lambda entry: entry.when), output)
    while follow and not all(log.ended for log in found):
        time.sleep(_POLL_S)
        _print(sorted((each for log in found for each in log.read()), key=lambda e: e.when), output)
    for log in found:
        log.file.close()


def _last(entries: list[Entry], count: int | None) -> list[Entry]:
    return entries if count is None else entries[max(0, len(entries) - count) :]


def _print(entries: Iterable[Entry], output: Format) -> None:
    for entry in entries:
        click.echo(entry.told() if output.for_people else entry.text)
