"""Reading and writing memory of the cluster: cat, cp, load, store, amo, bte.

Every access is made as the task would make it whose memory it is: it faults, and it can end in a
signal. A copy is compared with the room there is before its first byte, and says how far it came
when it does not come to its end.
"""

import codecs
import errno
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import IO

import click

from xpmem_emu.cli import completion, parameters
from xpmem_emu.cli.arguments import MEMORY, SIZE
from xpmem_emu.cli.commands import Command
from xpmem_emu.cli.failure import CommandFailed
from xpmem_emu.cli.memory import PIECE, download, extent, reached, room, upload
from xpmem_emu.cli.output import Format, output_option, show_record
from xpmem_emu.cli.parameters import Handle, MemoryRef
from xpmem_emu.cli.session import CommandSession, pass_session
from xpmem_emu.units import SIZE_LIMIT

_OPERATIONS = ("fetch", "add", "swap", "compare_swap", "store")
_HANDLES = completion.objects("handles")
_FROM, _TO = (
    click.argument(name, type=parameters.handle, metavar=metavar, shell_complete=_HANDLES)
    for name, metavar in (("source", "FROM"), ("target", "TO"))
)
_STREAM = "-"
_NUMBER_MAX = 1024
"""Bytes; Python writes numbers of a few thousand digits and no longer ones."""
_DOCUMENT_MAX = 16 << 20
"""Bytes; a document is made in memory before it is written."""


@click.command(cls=Command)
@MEMORY
@click.option("--offset", type=parameters.size, default="0", metavar="SIZE", help="Begin here.")
@click.option(
    "--size",
    type=parameters.size,
    metavar="SIZE",
    help="How many bytes.  [default: to the end of what was exported]",
)
@pass_session
def cat(session: CommandSession, memory: MemoryRef, offset: int, size: int | None) -> None:
    """Write the bytes of an attachment or a segment to stdout."""
    _save(session, memory.further(offset), _STREAM, size)


@click.command(cls=Command)
@click.argument("source", metavar="FROM", shell_complete=completion.memory_or_files)
@click.argument("target", metavar="TO", shell_complete=completion.memory_or_files)
@click.option(
    "--size",
    type=parameters.size,
    metavar="SIZE",
    help="At most so many bytes.  [default: all of FROM]",
)
@pass_session
def cp(session: CommandSession, source: str, target: str, size: int | None) -> None:
    """Copy between memory and a file here, either way; - is stdin or stdout."""
    reading = parameters.looks_like_memory(source)
    if reading == parameters.looks_like_memory(target):
        raise click.UsageError("One of FROM and TO is a handle or segid, the other a file.")
    if reading:
        count = _save(session, parameters.memory(source), target, size)
    else:
        count = _restore(session, source, parameters.memory(target), size)
    session.say(f"copied {count} bytes from {source} to {target}")


def _save(session: CommandSession, memory: MemoryRef, target: str, size: int | None) -> int:
    with reached(session, memory) as (task, place):
        length = extent(session, task, place) if size is None else size
        pieces = download(task, place, length)
        # Before the file is opened, which empties it: a first byte that cannot be read costs none.
        first = next(pieces, b"")
        # Not over the bytes on the same terminal.
        hidden = target == _STREAM and sys.stdout.isatty()
        with _written(target) as file, _counted(session, f"{memory}", length, hidden) as advance:
            while first:
                advance(file.write(first))
                first = next(pieces, b"")
            file.flush()
    return length


@contextmanager
def _written(target: str) -> Iterator[IO[bytes]]:
    if target == _STREAM:
        yield sys.stdout.buffer
    else:
        with open(target, "wb") as file:
            yield file


def _restore(session: CommandSession, source: str, memory: MemoryRef, size: int | None) -> int:
    wanted = SIZE_LIMIT if size is None else size
    with (
        _opened(source) as given,
        reached(session, memory) as (task, place),
        _measured(given, wanted, room(task, place, wanted)) as (file, total),
    ):
        free = room(task, place, total)
        if free < total:
            raise CommandFailed(
                f"{source} has more bytes than the {free} from here on: nothing was written",
                f"--size {free}, or more memory",
                number=errno.ENOSPC,
            )
        with _counted(session, source, total) as advance:
            return upload(task, place, _limited(file, total), advance)


@contextmanager
def _opened(source: str) -> Iterator[IO[bytes]]:
    if source == _STREAM:
        yield sys.stdin.buffer
    else:
        with open(source, "rb") as file:
            yield file


@contextmanager
def _measured(given: IO[bytes], wanted: int, free: int) -> Iterator[tuple[IO[bytes], int]]:
    """A file, and how many of its bytes are wanted. What comes out of a pipe or a device has no
    size before its end: it becomes a file here, up to one byte more than fits."""
    status = os.fstat(given.fileno())
    if stat.S_ISREG(status.st_mode):
        yield given, min(wanted, status.st_size - given.tell())
        return
    with tempfile.TemporaryFile() as file:
        total = sum(map(file.write, _limited(given, min(wanted, free + 1))))
        file.seek(0)
        yield file, total


def _limited(file: IO[bytes], size: int) -> Iterator[bytes]:
    while size and (piece := file.read(min(PIECE, size))):
        size -= len(piece)
        yield piece


@contextmanager
def _counted(
    session: CommandSession, label: str, total: int, hidden: bool = False
) -> Iterator[Callable[[int], None]]:
    """Progress of a copy; what breaks it off is told with how far it came."""
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        show(count)

    with session.transfer(label, total, hidden) as show:
        try:
            yield advance
        except BaseException as error:
            if not isinstance(error, BrokenPipeError) or hasattr(error, "cause"):
                session.warn(f"{done} of {total} bytes were copied")
            raise


@click.command(cls=Command)
@MEMORY
@SIZE
@click.option("--hex", "style", flag_value="hex", default="hex", help="As hex digits (default).")
@click.option("--text", "style", flag_value="text", help="As UTF-8 text.")
@click.option("--int", "style", flag_value="int", help="As one little-endian number.")
@output_option
@pass_session
def load(session: CommandSession, memory: MemoryRef, size: int, style: str, output: Format) -> None:
    """Read SIZE bytes and print them."""
    whole = style == "int" or not output.for_people
    most = _NUMBER_MAX if style == "int" else _DOCUMENT_MAX
    if whole and size > most:
        raise CommandFailed(
            f"{size} bytes are too many for one {'number' if style == 'int' else 'document'}: "
            f"at most {most}",
            f"xpmem-emu cp {memory} FILE --size {size}",
            number=errno.E2BIG,
        )
    with reached(session, memory) as (task, place):
        pieces = download(task, place, size)
        if not whole:
            _print(session, memory, size, _texts(pieces, style))
            return
        data = b"".join(pieces)
    value = int.from_bytes(data, "little") if style == "int" else "".join(_texts([data], style))
    result = {"handle": str(memory), "size": size, style: value}
    click.echo(value if output.for_people else show_record("load", result, output))


def _texts(pieces: Iterable[bytes], style: str) -> Iterator[str]:
    if style == "hex":
        yield from (piece.hex() for piece in pieces)
        return
    # A character may begin in one piece and end in the next.
    decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
    yield from map(decoder.decode, pieces)
    yield decoder.decode(b"", final=True)


def _print(session: CommandSession, memory: MemoryRef, size: int, texts: Iterator[str]) -> None:
    """Piece by piece, so that a large region takes no memory here."""
    first = next(texts, "")
    with _counted(session, f"{memory}", size, sys.stdout.isatty()) as advance:
        for done, text in enumerate(chain([first], texts)):
            click.echo(text, nl=False)
            advance(max(0, min(PIECE, size - done * PIECE)))
        click.echo()


@click.command(cls=Command)
@MEMORY
@click.argument("text", required=False, metavar="[DATA]")
@click.option("--hex", "digits", metavar="HEX", help="The bytes as hex digits rather than text.")
@pass_session
def store(session: CommandSession, memory: MemoryRef, text: str | None, digits: str | None) -> None:
    """Write bytes: DATA as UTF-8 text, or --hex."""
    if (text is None) == (digits is None):
        raise click.UsageError("Give the bytes once: as DATA, or as --hex HEX.")
    data = _unhex(digits) if digits is not None else (text or "").encode(errors="surrogateescape")
    with reached(session, memory) as (task, place):
        task.store(place, data)
    session.say(f"stored {len(data)} bytes at {memory}")


def _unhex(digits: str) -> bytes:
    try:
        return bytes.fromhex(digits)
    except ValueError:
        raise click.BadParameter(f"{digits!r} is not pairs of hex digits") from None


@click.command(cls=Command)
@MEMORY
@click.argument("operation", type=click.Choice(_OPERATIONS))
@click.argument("operand", type=parameters.parse_number, required=False)
@click.option(
    "--compare",
    type=parameters.parse_number,
    metavar="WORD",
    help="What compare_swap expects to find.",
)
@output_option
@pass_session
def amo(
    session: CommandSession,
    memory: MemoryRef,
    operation: str,
    operand: int | None,
    compare: int | None,
    output: Format,
) -> None:
    """Atomic operation on an uncached 64-bit word; prints the word before it."""
    if (operand is None) != (operation == "fetch"):
        raise click.UsageError("fetch takes no OPERAND, every other operation takes one.")
    if (compare is None) != (operation != "compare_swap"):
        raise click.UsageError("--compare WORD and compare_swap need each other.")
    with reached(session, memory) as (task, place):
        before = task.amo(place, operation, operand or 0, compare or 0)
    result = {"handle": str(memory), "operation": operation, "before": before}
    click.echo(before if output.for_people else show_record("amo", result, output))


@click.command(cls=Command)
@_FROM
@_TO
@SIZE
@pass_session
def bte(session: CommandSession, source: Handle, target: Handle, size: int) -> None:
    """Have the block transfer engine copy SIZE bytes, as a task that has both may."""
    if source.task != target.task:
        raise CommandFailed(
            f"{source} and {target} are of two tasks: an engine copies for one",
            f"xpmem-emu attach SEGID --task {target.task}",
            number=errno.EINVAL,
        )
    with session.task(source.task) as task:
        task.bte_copy(source.place, target.place, size)
    session.say(f"copied {size} bytes from {source} to {target}")
