"""Memory of the cluster as the commands use it: finding what a handle names, copying bytes.

A copy goes in pieces, so that neither side holds more than one of them and progress can be told.
It is not atomic: a store by somebody else may fall between two pieces.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from xpmem_emu.cli.failure import CommandFailed
from xpmem_emu.cli.parameters import Handle

if TYPE_CHECKING:
    from xpmem_emu.live.client import Partition, Task

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


def locate(partition: "Partition", handle: Handle) -> Handle:
    """`handle` with its task known. Raises CommandFailed when not exactly one task fits."""
    if handle.pid:
        return handle
    owners = [row["pid"] for row in partition.look("attachments")
              if row["address"] == handle.address]  # fmt: skip
    if len(owners) != 1:
        found = f"{len(owners)} tasks have" if owners else "no task has"
        raise CommandFailed(
            f"{found} an attachment at {handle}",
            f"name the task, as in {handle.partition}:PID:{handle.address:#x} "
            "(xpmem-emu get attachments)",
        )
    return handle.of_task(int(owners[0]))


def extent(partition: "Partition", handle: Handle) -> int:
    """Bytes from the handle's place to the end of its attachment or segment. Raises
    CommandFailed when it lies in neither."""
    ranges = [(row["pid"], row["address"], row["size"]) for row in partition.look("attachments")]
    ranges += [(row["pid"], row["vaddr"], row["size"]) for row in partition.look("segments")]
    for pid, start, size in ranges:
        if pid == handle.pid and start <= handle.place < start + size:
            return int(start + size - handle.place)
    raise CommandFailed(
        f"{handle} is in no attachment or segment, so its size is not known", "--size"
    )
