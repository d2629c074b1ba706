"""Memory of the cluster as the commands use it: whose it is, how far it goes, copying bytes.

A copy goes in pieces, so that neither side holds more than one of them and progress can be told.
It is not atomic: a store by somebody else may fall between two pieces.

Segments are whole pages, files are not. The task that `export` makes is called by the length of
what it exports, so that nobody gets the padding who asks for the file.
"""

import errno
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from xpmem_emu.cli.failure import CommandFailed
from xpmem_emu.cli.parameters import Handle, MemoryRef
from xpmem_emu.cli.session import CommandSession
from xpmem_emu.units import page_align_up

if TYPE_CHECKING:
    from xpmem_emu.client.blocking import Task

PIECE = 4 << 20
"""Bytes that travel in one call."""
_EXPORT = re.compile(r"export\.(\d{1,20})")
_AREA = re.compile(r"0x[0-9a-f]+-0x([0-9a-f]+)")


def upload(
    task: "Task", address: int, pieces: Iterable[bytes], advance: Callable[[int], None]
) -> int:
    """Stores `pieces` one after the other from `address` on. Result: bytes stored."""
    done = 0
    for piece in pieces:
        task.store(address + done, piece)
        done += len(piece)
        advance(len(piece))
    return done


def download(task: "Task", address: int, size: int) -> Iterator[bytes]:
    """Loads `size` bytes from `address` on, in pieces."""
    for start in range(address, address + size, PIECE):
        yield task.load(start, min(PIECE, address + size - start))


@contextmanager
def reached(session: CommandSession, memory: MemoryRef) -> Iterator[tuple["Task", int]]:
    """The task whose memory is meant, and the address. Raises CommandFailed for a segment that is
    not there."""
    if isinstance(memory, Handle):
        with session.task(memory.task) as task:
            yield task, memory.place
        return
    with session.owner(memory.segid) as task:
        for row in task.partition.look("segments"):
            if row["segid"] == memory.segid:
                yield task, int(row["vaddr"]) + memory.offset
                return
        raise CommandFailed(
            f"there is no segment {memory.segid:#x}", "xpmem-emu get segments", number=errno.ENOENT
        )


def export_name(length: int) -> str:
    """What the task is called that exports so many bytes."""
    return f"export.{length}"


def extent(session: CommandSession, task: "Task", place: int) -> int:
    """Bytes from a place to the end of what was exported there, or of the part of it that is
    attached. Raises CommandFailed when the place is in neither."""
    for kind, key in (("attachments", "address"), ("segments", "vaddr")):
        for row in task.partition.look(kind):
            into = place - int(row[key])
            if row["pid"] == task.pid and 0 <= into < row["size"]:
                start = int(row.get("offset", 0))
                end = min(start + int(row["size"]), _exported(session, int(row["segid"])))
                return max(0, end - start - into)
    raise CommandFailed(
        f"{place:#x} is in no attachment or segment, so its size is not known", "--size SIZE"
    )


def _exported(session: CommandSession, segid: int) -> int:
    """Bytes of a segment that mean something: all, unless `export` made it of fewer."""
    with session.owner(segid) as owner:
        look = owner.partition.look
        sizes = [int(row["size"]) for row in look("segments") if row["segid"] == segid]
        names = [str(row["name"]) for row in look("tasks") if row["pid"] == owner.pid]
    size = sizes[0] if sizes else 0
    for match in map(_EXPORT.fullmatch, names):
        if match and page_align_up(int(match[1])) == size:
            return int(match[1])
    return size


def room(task: "Task", place: int, wanted: int) -> int:
    """Bytes from a place to the first address that is not mapped; no more than `wanted` are looked
    for."""
    end = place
    while end < place + wanted:
        area = _AREA.match(str(task.partition.pagetable(task.pid, end)["area"]))
        if area is None:
            break
        end = int(area[1], 16)
    return min(end - place, wanted)
