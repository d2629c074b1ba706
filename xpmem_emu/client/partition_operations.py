"""What a kernel does for a client besides its tasks' calls: tasks, files, the VM, looking.

Results that are rows or mappings come as the kernel gives them, as builtins.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from xpmem_emu.client.operations import (
    OperationRequest,
    Steps,
    ask_for,
    chunks,
    do,
    in_turn,
    operation,
)
from xpmem_emu.client.wire import Ask
from xpmem_emu.codec import Buffer, convert
from xpmem_emu.kernel import breaking, calls

_K = TypeVar("_K")
TableRow = dict[str, Any]


class PartitionOperations(ABC, Generic[_K]):
    """Methods of a connected partition; `K` is what stands for a task."""

    @abstractmethod
    def task(self, pid: int) -> _K:
        """The task `pid`, which exists already."""

    @operation
    def spawn(
        self,
        name: str = "",
        uid: int = 0,
        gids: Sequence[int] = (),
        *,
        detached: bool = False,
        handled: Sequence[int] = (7, 11),
        cap_ipc_owner: bool | None = None,
    ) -> Steps[_K]:
        """A new task with an empty address space. It is killed when this client goes away,
        unless `detached`. `handled`: signals that it survives. `cap_ipc_owner`: None means that
        uid 0 has it."""
        call = calls.Spawn(
            name=name, uid=uid, gids=list(gids), handled=list(handled), cap_ipc_owner=cap_ipc_owner
        )
        kind = Ask.CALL_DETACHED if detached else Ask.CALL
        (answer,) = yield [OperationRequest(call, kind=kind)]
        return self.task(convert(answer.value, int))

    # -- looking ---------------------------------------------------------------------------

    @operation
    def look(self, kind: str) -> Steps[list[TableRow]]:
        """A table of objects: segments, attachments, permits, faults, partitions, channels,
        pins, tasks, files."""
        return (yield from ask_for(list[TableRow], calls.Look(kind=kind)))

    @operation
    def describe(self, what: str) -> Steps[TableRow]:
        """One object - segid, apid, pid or partition - with its last failure."""
        return (yield from ask_for(TableRow, calls.Describe(what=what)))

    @operation
    def pagetable(self, pid: int, address: int) -> Steps[TableRow]:
        """The page-table walk of a task for an address."""
        return (yield from ask_for(TableRow, calls.Pagetable(pid=pid, address=address)))

    @operation
    def status(self) -> Steps[TableRow]:
        """State of the partition, its peers and its counters."""
        return (yield from ask_for(TableRow, calls.Status()))

    @operation
    def audit(self) -> Steps[TableRow]:
        """What is in use, and whether the counts agree."""
        return (yield from ask_for(TableRow, calls.Audit()))

    @operation
    def shutdown(self, reason: str = "shutdown") -> Steps[None]:
        """End the partition in order."""
        yield from do(calls.Shutdown(reason=reason))

    # -- breaking it on purpose ------------------------------------------------------------

    @operation
    def failpoints(self) -> Steps[list[TableRow]]:
        """Every failpoint of the kernel, with what it is set to."""
        return (yield from ask_for(list[TableRow], breaking.ListFailpoints()))

    @operation
    def failpoint_set(self, point: str, terms: str, seed: int = 0) -> Steps[None]:
        """Let a failpoint do something, in the grammar of fail(9)."""
        yield from do(breaking.FailpointSet(point=point, terms=terms, seed=seed))

    @operation
    def failpoint_clear(self, point: str = "") -> Steps[None]:
        """Let a failpoint, or every one, do nothing."""
        yield from do(breaking.FailpointClear(point=point))

    @operation
    def failpoint_resume(self, point: str) -> Steps[int]:
        """Let go the threads paused at a failpoint. Result: how many."""
        return (yield from ask_for(int, breaking.FailpointResume(point=point)))

    @operation
    def panic(self, reason: str) -> Steps[None]:
        """Let the kernel panic. Raises XpmemError, because it panicked."""
        yield from do(breaking.CrashKernel(reason=reason))

    # -- files and the VM ------------------------------------------------------------------

    @operation
    def creat(self, file: str, size: int = 0) -> Steps[None]:
        """A new file of zero bytes."""
        yield from do(calls.Creat(file=file, size=size))

    @operation
    def unlink(self, file: str) -> Steps[None]:
        """Remove a file's name."""
        yield from do(calls.Unlink(file=file))

    @operation
    def pwrite(self, file: str, data: Buffer, offset: int = 0) -> Steps[None]:
        """Write into a file, extending it."""
        view = memoryview(data).cast("B")
        # One after the other: a piece past the end extends the file, so order matters.
        for done, part in chunks(0, len(view)):
            yield [
                OperationRequest(
                    calls.Pwrite(file=file, offset=offset + done), view[done : done + part]
                )
            ]

    @operation
    def pread(self, file: str, size: int, offset: int = 0) -> Steps[bytes]:
        """Read from a file; short at its end."""
        answers = yield from in_turn(
            OperationRequest(calls.Pread(file=file, offset=start, size=part))
            for start, part in chunks(offset, size)
        )
        return b"".join(answer.bulk for answer in answers)

    @operation
    def truncate(self, file: str, size: int) -> Steps[None]:
        """Cut or extend a file."""
        yield from do(calls.Truncate(file=file, size=size))

    @operation
    def writeback(self, file: str) -> Steps[int]:
        """Write a file's dirty pages back. Result: pages written."""
        return (yield from ask_for(int, calls.Writeback(file=file)))

    @operation
    def reclaim(self, pages: int, pid: int = 0, address: int = 0, length: int = 0) -> Steps[int]:
        """Free up to `pages` frames, of one task's range when given. Result: frames freed."""
        call = calls.Reclaim(pages=pages, pid=pid, address=address, length=length)
        return (yield from ask_for(int, call))

    # -- xpmem without a task --------------------------------------------------------------

    @operation
    def xpmem_version(self) -> Steps[int]:
        """The driver's version number."""
        return (yield from ask_for(int, calls.XpmemVersion()))

    @operation
    def xpmem_find(self, name: str) -> Steps[int]:
        """The segment of that name on any partition (extension). Result: segid."""
        return (yield from ask_for(int, calls.XpmemFind(name=name)))

    @operation
    def xpmem_tunable(self, name: str, value: int) -> Steps[int]:
        """Set faults_after or faults_before. Result: the old value."""
        return (yield from ask_for(int, calls.XpmemTunable(name=name, value=value)))
