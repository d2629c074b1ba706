"""Memory of the cluster as the commands use it: how far it goes, copying bytes.

A copy goes in pieces, so that neither side holds more than one of them and progress can be told.
It is not atomic: a store by somebody else may fall between two pieces.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from xpmem_emu.cli.failure import CommandFailed

if TYPE_CHECKING:
    from xpmem_emu.live.client import Task

PIECE = 4 << 20
"""Bytes that travel in one call."""


def upload(task: "Task", address: int, pieces: Iterable[bytes],
           advance: Callable[[int], None]) -> int:  # fmt: skip
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


def extent(task: "Task", place: int) -> int:
    """Bytes from a place to the end of its attachment or segment. Raises CommandFailed when it
    lies in neither."""
    look = task.partition.look
    ranges = [(row["pid"], row["address"], row["size"]) for row in look("attachments")]
    ranges += [(row["pid"], row["vaddr"], row["size"]) for row in look("segments")]
    for pid, start, size in ranges:
        if pid == task.pid and start <= place < start + size:
            return int(start + size - place)
    raise CommandFailed(
        f"{place:#x} is in no attachment or segment, so its size is not known", "--size"
    )
