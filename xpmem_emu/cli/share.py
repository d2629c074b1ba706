"""Sharing memory: export, attach, detach, release, remove.

Each export and each attach gets a task of its own that outlives the command, unless an existing
task is named; what a failed command had begun is undone. `export` prints the segid and `attach`
prints the handle of the attachment, alone on stdout, so that a shell variable can hold them.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from xpmem_emu import XPMEM_RDONLY, XPMEM_RDWR
from xpmem_emu.cli import completion, parameters
from xpmem_emu.cli.arguments import HANDLE, SEGID, on
from xpmem_emu.cli.commands import Command
from xpmem_emu.cli.failure import CommandFailed
from xpmem_emu.cli.memory import PIECE, export_name, upload
from xpmem_emu.cli.output import Format, OutputRow, output_option, show_record
from xpmem_emu.cli.parameters import Handle, TaskRef
from xpmem_emu.cli.session import CommandSession, pass_session
from xpmem_emu.units import PAGE_SIZE, format_size, page_align_up

if TYPE_CHECKING:
    from xpmem_emu.client.blocking import Partition, Task


@contextmanager
def fresh_task(partition: "Partition", name: str) -> Iterator["Task"]:
    """A detached task for what the body sets up; ended again if the body fails."""
    task = partition.spawn(name=name, detached=True)
    try:
        yield task
    except BaseException:
        with suppress(OSError):  # out of memory has killed it already, or its partition is gone
            task.kill()
        raise


# -- export -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ShareTerms:
    """On what terms memory is shared: permission bits, and a name or none."""

    mode: int
    name: str

    def make(self, task: "Task", memory: Handle, size: int) -> dict[str, object]:
        """Makes the segment; the row that `export` prints."""
        segid = task.xpmem_make(memory.place, size, self.mode, name=self.name)
        return {"segid": segid, "handle": str(memory), "size": size}


@click.command(cls=Command)
@click.argument(
    "source", required=False, metavar="[FILE|HANDLE]", shell_complete=completion.handles_or_files
)
@on("The exporting partition (for FILE and fresh memory).")
@click.option(
    "--size",
    type=parameters.size,
    metavar="SIZE",
    help="Export so much fresh memory, or of the memory at HANDLE.",
)
@click.option("--random", is_flag=True, help="Fill fresh memory with random bytes, not zeros.")
@click.option(
    "--mode",
    type=parameters.mode,
    default="0600",
    show_default=True,
    metavar="MODE",
    help="Who may get it: permission bits, in octal.",
)
@click.option(
    "--name",
    default="",
    metavar="NAME",
    help="A name to attach by (image extension segment_names).",
)
@output_option
@pass_session
def export(
    session: CommandSession,
    source: str | None,
    where: str | None,
    size: int | None,
    random: bool,
    mode: int,
    name: str,
    output: Format,
) -> None:
    """Share a file's bytes, fresh memory, or memory that a task has; prints the segid.

    \b
    xpmem-emu export big.bin --on p0
    xpmem-emu export --size 8M --on p0
    xpmem-emu export "$handle" --size 1M
    """
    terms = ShareTerms(mode, name)
    if source and parameters.looks_like_handle(source):
        result = _export_memory(session, parameters.handle(source), size, terms)
    elif where is None:
        raise click.UsageError("Missing option '--on'. Which partition is to export?")
    elif source and size is None:
        result = _export_file(session, where, Path(source), terms)
    elif size and not source:
        pieces = _random(size) if random else None
        result = _export_fresh(session, where, size, pieces, terms)
    else:
        raise click.UsageError("Give either a FILE, or a --size of fresh memory above 0.")
    segid = f"{result['segid']:#x}"
    click.echo(segid if output.for_people else show_record("export", result, output))
    session.say(f"exported {result['handle']}; next: xpmem-emu attach {segid} --on P")


def _export_memory(
    session: CommandSession, memory: Handle, size: int | None, terms: ShareTerms
) -> OutputRow:
    if not size:
        raise click.UsageError("To export memory of a task, give its handle and --size.")
    with session.task(memory.task) as task:
        return terms.make(task, memory, size)


def _export_file(session: CommandSession, where: str, path: Path, terms: ShareTerms) -> OutputRow:
    if path.exists() and not path.is_file() and not path.is_dir():
        raise CommandFailed(f"{path} is not a regular file", "copy it to one first")
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        if status.st_size == 0:
            raise CommandFailed(
                f"{path} is empty and a segment is not", "xpmem-emu export --size 4K"
            )
        pieces = iter(lambda: file.read(PIECE), b"")
        row = _export_fresh(session, where, status.st_size, pieces, terms)
    return row | {"file": str(path), "file_bytes": status.st_size}


def _export_fresh(
    session: CommandSession,
    where: str,
    size: int,
    pieces: Iterator[bytes] | None,
    terms: ShareTerms,
) -> dict[str, object]:
    where, name = session.names.named(where), export_name(size)
    with session.connect(where) as partition, fresh_task(partition, name) as task:
        memory = Handle(_ref(where, task), task.mmap(page_align_up(size)))
        if pieces is not None:
            _require_room(partition, where, size)
            with session.transfer(f"copying to {where}", size) as advance:
                upload(task, memory.address, pieces, advance)
        return terms.make(task, memory, page_align_up(size))


def _require_room(partition: "Partition", where: str, size: int) -> None:
    """Contents beyond the partition's memory could not all be shared at once."""
    memory = int(partition.status()["frames_total"]) * PAGE_SIZE
    if size > memory:
        raise CommandFailed(
            f"{size} bytes do not fit into the memory of {where}, {format_size(memory)}",
            "xpmem-emu up --memory SIZE, or a smaller file",
            number=errno.ENOMEM,
        )


def _random(size: int) -> Iterator[bytes]:
    for start in range(0, size, PIECE):
        yield os.urandom(min(PIECE, size - start))


# -- attach -----------------------------------------------------------------------------------


@click.command(cls=Command)
@click.argument(
    "segment",
    type=parameters.segment,
    metavar="SEGID|NAME",
    shell_complete=completion.complete_segments,
)
@on("The importing partition; a new task is made there.")
@click.option(
    "--task",
    "owner",
    type=parameters.parse_task,
    metavar="P:BOOT:PID",
    shell_complete=completion.objects("tasks"),
    help="Attach in this task rather than in a new one.",
)
@click.option(
    "--offset",
    type=parameters.size,
    default="0",
    metavar="SIZE",
    help="Where in the segment to begin.",
)
@click.option(
    "--size",
    type=parameters.size,
    metavar="SIZE",
    help="How much to attach.  [default: to the end]",
)
@click.option(
    "--at",
    type=parameters.parse_number,
    default="0",
    metavar="ADDR",
    help="The address to attach at.  [default: the kernel chooses]",
)
@click.option(
    "--read-only",
    is_flag=True,
    help="Ask for a read-only permit (image extension readonly_attach).",
)
@output_option
@pass_session
def attach(
    session: CommandSession,
    segment: int | str,
    where: str | None,
    owner: TaskRef | None,
    offset: int,
    size: int | None,
    at: int,
    read_only: bool,
    output: Format,
) -> None:
    """Map a segment into a task of another partition; prints the handle of the attachment."""
    if (where is None) == (owner is None):
        raise click.UsageError("Say where: either --on P for a new task, or --task P:BOOT:PID.")
    wanted, boot = (owner.partition, owner.boot) if owner else (where or "", 0)
    name = session.names.named(wanted)
    flags = XPMEM_RDONLY if read_only else XPMEM_RDWR
    with session.connect(name, boot) as partition, _importer(partition, owner) as task:
        segid = _find(partition, segment)
        apid = task.xpmem_get(segid, flags)
        length = size if size is not None else _rest(partition, apid, offset)
        handle = Handle(_ref(name, task), task.xpmem_attach(apid, offset, length, vaddr=at))
    result = {"handle": str(handle), "segid": segid, "apid": apid, "size": length}
    click.echo(handle if output.for_people else show_record("attach", result, output))
    session.say(f"attached {format_size(length)} of {segid:#x}; next: xpmem-emu cat {handle}")


def _ref(where: str, task: "Task") -> TaskRef:
    return TaskRef(where, task.partition.facts.boot, task.pid)


@contextmanager
def _importer(partition: "Partition", owner: TaskRef | None) -> Iterator["Task"]:
    if owner:
        yield partition.task(owner.pid)
    else:
        with fresh_task(partition, "attach") as task:
            yield task


def _find(partition: "Partition", segment: int | str) -> int:
    """The segid, asked for by name where a name is given (an extension)."""
    if isinstance(segment, int):
        return segment
    return partition.xpmem_find(segment)


def _rest(partition: "Partition", apid: int, offset: int) -> int:
    size = next(int(row["size"]) for row in partition.look("permits") if row["apid"] == apid)
    if offset >= size:
        raise CommandFailed(
            f"offset {offset:#x} is not inside the segment of {size:#x} bytes", "a smaller --offset"
        )
    return size - offset


# -- the ways back ----------------------------------------------------------------------------


@click.command(cls=Command)
@HANDLE
@pass_session
def detach(session: CommandSession, handle: Handle) -> None:
    """Unmap an attachment; its permit and its task stay."""
    with session.task(handle.task) as task:
        task.xpmem_detach(handle.address)
    session.say(f"detached {handle}")


@click.command(cls=Command)
@click.argument(
    "apid", type=parameters.ident, metavar="APID", shell_complete=completion.objects("apids")
)
@pass_session
def release(session: CommandSession, apid: int) -> None:
    """Give up a permit, and with it all its attachments."""
    with session.owner(apid) as task:
        task.xpmem_release(apid)
    session.say(f"released {apid:#x}")


@click.command(cls=Command)
@SEGID
@pass_session
def remove(session: CommandSession, segid: int) -> None:
    """Take a segment back: importers are recalled and get SIGBUS from now on."""
    with session.owner(segid) as task:
        task.xpmem_remove(segid)
    session.say(f"removed {segid:#x}")
