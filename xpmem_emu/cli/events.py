"""The event stream of the cluster: all partitions merged, as they report or by time.

Every partition stamps its events with its own sequence and the clock of its host. Within one
partition the order is exact; across partitions it is close to what happened and proves nothing.
"""

import heapq
import itertools
import queue
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase

import click

from xpmem_emu.cli.arguments import ON_SEVERAL
from xpmem_emu.cli.commands import Command
from xpmem_emu.cli.output import (
    Format,
    OutputRow,
    cell,
    json_line,
    output_option,
    refuse_document,
    show_rows,
    whole,
)
from xpmem_emu.cli.session import CommandSession, pass_session
from xpmem_emu.text import visible

_PLACE = ("record", "time_ns", "partid", "thread", "event", "partition")
_SETTLE_S = 0.25
"""How much later than another partition's an event may arrive and still stand before it."""
_NOWHERE: dict[str, object] = {"time_ns": 0, "thread": ""}
"""For what the harness puts into a stream: it comes without place and time."""


def merged(session: CommandSession, where: Sequence[str]) -> Iterator[OutputRow]:
    """The events of these partitions, each with its `partition`, by time: one is held for as long
    as an earlier one of another partition may be on its way. Ends when every partition's stream
    ended; one that ends early is warned about."""
    arrivals: queue.SimpleQueue[OutputRow | str] = queue.SimpleQueue()
    for name in where:
        threading.Thread(
            target=_listen, args=(session, name, arrivals), daemon=True, name=f"events-{name}"
        ).start()
    waiting: list[tuple[int, int, float, OutputRow]] = []
    numbers, running = itertools.count(), len(where)
    while running or waiting:
        now_s = time.monotonic()
        while waiting and (not running or waiting[0][2] <= now_s):
            yield heapq.heappop(waiting)[3]
        try:
            patience_s = max(0.0, waiting[0][2] - now_s) if waiting else None
            arrival = arrivals.get(timeout=patience_s) if running else None
        except queue.Empty:
            continue
        if isinstance(arrival, str):
            running -= 1
            session.warn(arrival)
        elif arrival is not None:
            due_s = time.monotonic() + _SETTLE_S
            place = whole(arrival, "time_ns"), next(numbers)
            heapq.heappush(waiting, (*place, due_s, arrival))


def _listen(
    session: CommandSession, name: str, arrivals: "queue.SimpleQueue[OutputRow | str]"
) -> None:
    why = "it halted"
    try:
        with session.connect(name) as partition:
            for event in partition.events():
                arrivals.put({"partition": name} | _NOWHERE | event)
    except OSError as error:
        why = str(error)
    arrivals.put(f"{name} sends no more events: {why}")


def line(event: OutputRow) -> str:
    """One event for people: when, where, what."""
    time_s = whole(event, "time_ns") / 1e9
    fields = " ".join(f"{k}={cell(k, v)}" for k, v in event.items() if k not in _PLACE)
    place = f"{event['partition']!s:<4} {event['thread']!s:<16}"
    return visible(f"{time_s:14.6f} {place} {event['event']!s:<24} {fields}".rstrip())


def matching(events: Iterable[OutputRow], patterns: Sequence[str]) -> Iterator[OutputRow]:
    """The events whose name fits one of the patterns; all where there is none."""
    for event in events:
        if not patterns or any(fnmatchcase(str(event["event"]), each) for each in patterns):
            yield event


def recent(session: CommandSession, where: Sequence[str]) -> list[OutputRow]:
    """What the partitions remember of their streams, by time; the clock is that of the host."""
    found: list[OutputRow] = []
    for name, partition in session.survey(where):
        found += [{"partition": name} | event for event in partition.recent_events()]
    return sorted(found, key=lambda event: whole(event, "time_ns"))


@click.command(cls=Command)
@click.option("-f", "--follow", is_flag=True, help="What happens from now on, until Ctrl-C.")
@ON_SEVERAL
@click.option(
    "--match",
    "patterns",
    multiple=True,
    metavar="PATTERN",
    help="Only events of this name, as in 'xpmem:*'; may be repeated.",
)
@output_option
@pass_session
def events(
    session: CommandSession,
    follow: bool,
    where: tuple[str, ...] | None,
    patterns: tuple[str, ...],
    output: Format,
) -> None:
    """Show the event streams of the partitions as one: what they remember, or as it happens."""
    names = session.partitions(where or ())
    if follow:
        refuse_document(output, "a stream that is followed")
        for event in matching(merged(session, names), patterns):
            (shown,) = session.in_names([event], output)
            click.echo(json_line(shown) if output is Format.JSONL else line(shown))
        return
    found = session.in_names(matching(recent(session, names), patterns), output)
    if output.for_people:
        click.echo("\n".join(line(event) for event in found) or "no events", err=not found)
    else:
        click.echo(show_rows("events", found, output))
