"""What a kernel does for a client besides its tasks' calls: tasks, files, the VM, looking.

Results that are rows or mappings come as the kernel gives them, as builtins.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import Generic, TypeVar

from xpmem_emu.client.operations import (
    OperationRequest,
    Steps,
    load_pieces,
    of_partition,
    operation,
    pieces,
)
from xpmem_emu.client.wire import Ask
from xpmem_emu.codec import Buffer, convert
from xpmem_emu.kernel import breaking, calls

_K = TypeVar("_K")


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

    look = of_partition(calls.Look)
    describe = of_partition(calls.Describe)
    pagetable = of_partition(calls.Pagetable)
    status = of_partition(calls.Status)
    audit = of_partition(calls.Audit)
    shutdown = of_partition(calls.Shutdown)

    # -- breaking it on purpose ------------------------------------------------------------

    failpoints = of_partition(breaking.ListFailpoints)
    failpoint_set = of_partition(breaking.FailpointSet)
    failpoint_clear = of_partition(breaking.FailpointClear)
    failpoint_resume = of_partition(breaking.FailpointResume)
    panic = of_partition(breaking.CrashKernel)
    raw_load = of_partition(breaking.RawLoad)

    # -- files and the VM ------------------------------------------------------------------

    creat = of_partition(calls.Creat)
    unlink = of_partition(calls.Unlink)
    truncate = of_partition(calls.Truncate)
    writeback = of_partition(calls.Writeback)
    reclaim = of_partition(calls.Reclaim)

    @operation
    def pwrite(self, file: str, data: Buffer, offset: int = 0) -> Steps[None]:
        """Write into a file, extending it."""
        view = memoryview(data).cast("B")
        # One after the other: a piece past the end extends the file, so order matters.
        for done, part in pieces(0, len(view)):
            yield [OperationRequest(calls.Pwrite(file, offset + done), view[done : done + part])]

    @operation
    def pread(self, file: str, size: int, offset: int = 0) -> Steps[bytes]:
        """Read from a file; short at its end."""
        return load_pieces(partial(calls.Pread, file), offset, size)

    # -- xpmem without a task --------------------------------------------------------------

    xpmem_version = of_partition(calls.XpmemVersion)
    xpmem_find = of_partition(calls.XpmemFind)
    xpmem_tunable = of_partition(calls.XpmemTunable)
