"""Reading and writing memory of the cluster: cat, cp, load, store, amo.

Every access is made as the handle's task would make it: it faults, and it can end in a signal.
"""

import sys
from pathlib import Path

import click

from xpmem_emu.cli import parameters
from xpmem_emu.cli.arguments import HANDLE, SIZE
from xpmem_emu.cli.commands import Command
from xpmem_emu.cli.memory import PIECE, download, extent, upload
from xpmem_emu.cli.output import Format, output_option, show_record
from xpmem_emu.cli.parameters import Handle
from xpmem_emu.cli.session import Session, pass_session

_OPERATIONS = ("fetch", "add", "swap", "compare_swap", "store")


@click.command(cls=Command)
@HANDLE
@click.option("--offset", type=parameters.size, default="0", metavar="SIZE", help="Begin here.")
@click.option("--size", type=parameters.size, metavar="SIZE",
              help="How many bytes.  [default: to the end of the attachment]")
@pass_session
def cat(session: Session, handle: Handle, offset: int, size: int | None) -> None:
    """Write the bytes of an attachment to stdout."""
    stdout = sys.stdout.buffer
    place = handle.further(offset).place
    with session.task(handle.task) as task:
        length = extent(task, place) if size is None else size
        for piece in download(task, place, length):
            stdout.write(piece)


@click.command(cls=Command)
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@click.option("--size", type=parameters.size, metavar="SIZE",
              help="How many bytes to read from a handle.  [default: to its end]")
@pass_session
def cp(session: Session, source: str, target: str, size: int | None) -> None:
    """Copy between a handle and a file here, either way."""
    reading = parameters.looks_like_handle(source)
    if reading == parameters.looks_like_handle(target):
        raise click.UsageError("One of FROM and TO is a handle, the other a file.")
    if reading:
        count = _save(session, parameters.handle(source), Path(target), size)
    else:
        count = _restore(session, Path(source), parameters.handle(target))
    session.say(f"copied {count} bytes from {source} to {target}")


def _save(session: Session, handle: Handle, path: Path, size: int | None) -> int:
    with session.task(handle.task) as task:
        length = extent(task, handle.place) if size is None else size
        with path.open("wb") as file, session.transfer(f"{handle} to {path}", length) as advance:
            for piece in download(task, handle.place, length):
                advance(file.write(piece))
    return length


def _restore(session: Session, path: Path, handle: Handle) -> int:
    with path.open("rb") as file, session.task(handle.task) as task:
        pieces = iter(lambda: file.read(PIECE), b"")
        total = path.stat().st_size
        with session.transfer(f"{path} to {handle}", total) as advance:
            return upload(task, handle.place, pieces, advance)


@click.command(cls=Command)
@HANDLE
@SIZE
@click.option("--hex", "style", flag_value="hex", default="hex", help="As hex digits (default).")
@click.option("--text", "style", flag_value="text", help="As UTF-8 text.")
@click.option("--int", "style", flag_value="int", help="As one little-endian number.")
@output_option
@pass_session
def load(session: Session, handle: Handle, size: int, style: str, output: Format) -> None:
    """Read SIZE bytes and print them."""
    with session.task(handle.task) as task:
        data = b"".join(download(task, handle.place, size))
    value = _shown(data, style)
    result = {"handle": str(handle), "size": size, style: value}
    click.echo(value if output.for_people else show_record("load", result, output))


def _shown(data: bytes, style: str) -> object:
    if style == "text":
        return data.decode("utf-8", errors="backslashreplace")
    return int.from_bytes(data, "little") if style == "int" else data.hex()


@click.command(cls=Command)
@HANDLE
@click.argument("text", required=False, metavar="[DATA]")
@click.option("--hex", "digits", metavar="HEX", help="The bytes as hex digits rather than text.")
@pass_session
def store(session: Session, handle: Handle, text: str | None, digits: str | None) -> None:
    """Write bytes: DATA as UTF-8 text, or --hex."""
    if (text is None) == (digits is None):
        raise click.UsageError("Give the bytes once: as DATA, or as --hex HEX.")
    data = _unhex(digits) if digits is not None else (text or "").encode()
    with session.task(handle.task) as task:
        task.store(handle.place, data)
    session.say(f"stored {len(data)} bytes at {handle}")


def _unhex(digits: str) -> bytes:
    try:
        return bytes.fromhex(digits)
    except ValueError:
        raise click.BadParameter(f"{digits!r} is not pairs of hex digits") from None


@click.command(cls=Command)
@HANDLE
@click.argument("operation", type=click.Choice(_OPERATIONS))
@click.argument("operand", type=parameters.number, default="0")
@click.option("--compare", type=parameters.number, default="0", metavar="WORD",
              help="What compare_swap expects to find.")
@output_option
@pass_session
def amo(session: Session, handle: Handle, operation: str, operand: int, compare: int,
        output: Format) -> None:  # fmt: skip
    """Atomic operation on an uncached 64-bit word; prints the word before it."""
    with session.task(handle.task) as task:
        before = task.amo(handle.place, operation, operand, compare)
    result = {"handle": str(handle), "operation": operation, "before": before}
    click.echo(before if output.for_people else show_record("amo", result, output))
