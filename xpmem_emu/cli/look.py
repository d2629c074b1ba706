"""Looking: get, describe, pagetable. Reads only, over all partitions of the cluster at once.

What the rows are is in `survey`; here is how they are shown.
"""

from collections.abc import Sequence
from contextlib import suppress

import click

from xpmem_emu.cli import completion, parameters
from xpmem_emu.cli.arguments import HANDLE, ON_SEVERAL
from xpmem_emu.cli.commands import Command
from xpmem_emu.cli.failure import CommandFailed
from xpmem_emu.cli.output import (
    Format,
    Listing,
    OutputRow,
    list_options,
    output_option,
    show_record,
    show_rows,
)
from xpmem_emu.cli.parameters import Handle
from xpmem_emu.cli.session import CommandSession, pass_session
from xpmem_emu.cli.survey import PLACES, rows_of
from xpmem_emu.cli.watching import INTERVAL, watch

TABLES: dict[str, tuple[str, ...]] = {
    "segments": (
        "partition",
        "segid",
        "pid",
        "size",
        "mode",
        "name",
        "state",
        "pinned_pages",
        "holders",
    ),
    "attachments": (
        "partition",
        "handle",
        "segid",
        "offset",
        "size",
        "home",
        "access",
        "held_pages",
        "state",
    ),
    "permits": ("partition", "apid", "pid", "segid", "home", "size", "state", "attachments"),
    "pagefaults": ("partition", "fault", "segid", "home", "page", "count", "state"),
    "faults": ("name", "on", "fault", "hits", "held", "left_ns"),
    "partitions": ("partition", "peer", "state", "reason", "domain", "direct_memory"),
    "channels": ("partition", "peer", "channel", "state", "slots_used", "waiting"),
    "pins": ("partition", "pid", "pinned_pages", "quarantined_frames", "importer"),
    "tasks": (
        "partition",
        "task",
        "parent",
        "name",
        "uid",
        "state",
        "resident_pages",
        "last_signal",
    ),
    "files": ("partition", "name", "size", "cached_pages", "dirty_pages", "mappings"),
    "devices": (
        "partition",
        "pid",
        "device",
        "about",
        "translations",
        "misses",
        "waits",
        "retries",
    ),
}
"""What can be listed, and the columns of its table; wide and the documents have all fields."""

_SCHEMAS = {"faults": "faults-in-force"}


def show_kind(
    session: CommandSession, kind: str, where: Sequence[str] | None, output: Listing
) -> None:
    """Prints the rows of `kind` once."""
    rows = session.in_names(rows_of(session, kind, where), output)
    session.show(_SCHEMAS.get(kind, kind), rows, output, TABLES[kind], f"no {kind}")


@parameters.parameter
def _kind(text: str) -> str:
    """A kind, in the plural or the singular."""
    for kind in (text, f"{text}s"):
        if kind in TABLES:
            return kind
    raise ValueError(f"{text!r} is not one of {', '.join(TABLES)}")


@click.command(cls=Command)
@click.argument("kind", type=_kind, metavar="KIND", shell_complete=completion.words(TABLES))
@ON_SEVERAL
@click.option("-w", "--watch", "again", is_flag=True, help="Show it again and again.")
@INTERVAL
@list_options
@pass_session
def get(
    session: CommandSession,
    kind: str,
    where: tuple[str, ...] | None,
    again: bool,
    interval: int,
    output: Listing,
) -> None:
    """List objects of all partitions.

    KIND is one of segments, attachments, permits, pagefaults (under way), faults (that were put
    up, as `fault ls` lists them), partitions, channels, pins, tasks, files, devices.
    """
    if again:
        watch(
            lambda: show_rows(
                kind, session.in_names(rows_of(session, kind, where), output), output, TABLES[kind]
            ),
            interval,
            output,
        )
    else:
        show_kind(session, kind, where, output)


@click.command(cls=Command)
@click.argument("what", metavar="SEGID|APID|TASK|HANDLE|P", shell_complete=completion.anything)
@output_option
@pass_session
def describe(session: CommandSession, what: str, output: Format) -> None:
    """Tell all that is known of one object, its last failure included."""
    if parameters.looks_like_handle(what):
        found = _describe_memory(session, parameters.handle(what))
    elif ":" in what:
        ref = parameters.parse_task(what)
        with session.task(ref) as task:
            name = session.names.named(ref.partition)
            found = {"partition": name} | task.partition.describe(str(ref.pid))
    elif what[:1].isalpha():
        found = _describe_partition(session, parameters.parse_partition(what))
    else:
        found = _describe_ident(session, parameters.ident(what))
    (shown,) = session.in_names([found], output)
    click.echo(show_record("description", shown, output))


def _describe_ident(session: CommandSession, ident: int) -> OutputRow:
    """A segment is known at home and a permit at its holder's; both are asked for alike."""
    for name, partition in session.survey():
        with suppress(FileNotFoundError):
            return {"partition": name} | partition.describe(f"{ident:#x}")
    raise CommandFailed(
        f"no partition knows {ident:#x}", "xpmem-emu get segments, or xpmem-emu get permits"
    )


def _describe_memory(session: CommandSession, handle: Handle) -> OutputRow:
    """The attachment or segment that the handle points into."""
    with session.task(handle.task) as task:
        for kind, start in PLACES.items():
            for row in task.partition.look(kind):
                inside = row[start] <= handle.place < row[start] + row["size"]
                if inside and row["pid"] == task.pid:
                    where = session.names.named(handle.task.partition)
                    return {"partition": where, "kind": kind.removesuffix("s")} | row
    raise CommandFailed(f"{handle} is in no attachment or segment", "xpmem-emu get attachments")


def _describe_partition(session: CommandSession, name: str) -> OutputRow:
    """What it says of itself, if it answers, and how the others see it."""
    name = session.names.named(name)
    partid = session.names.partids[name]
    seen = [row for row in rows_of(session, "partitions", ()) if row["peer"] == partid]
    try:
        with session.connect(name) as partition:
            own = partition.status()
    except ConnectionError as error:
        own = {"error": str(error)}
    return {"partition": name} | own | {"seen_by": seen}


@click.command(cls=Command)
@HANDLE
@output_option
@pass_session
def pagetable(session: CommandSession, handle: Handle, output: Format) -> None:
    """Walk a task's page table for one address, level by level."""
    with session.task(handle.task) as task:
        walk = task.partition.pagetable(task.pid, handle.place)
    click.echo(show_record("pagetable", walk, output))
