"""What a task does: Linux system calls, loads and stores, and libxpmem, under their own names.

Sizes, offsets and addresses are bytes. A refusal raises XpmemError with Linux's errno; an access
that gets a signal raises SigBus or SigSegv. A load or store above 1 MiB travels in pieces: it is
not atomic, and when a piece fails some of the pieces after it may have been carried out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import Concatenate, Generic, ParamSpec, TypeVar

from xpmem_emu.client.failures import XpmemError
from xpmem_emu.client.operations import Steps, ask, load_pieces, of_task, operation, store_pieces
from xpmem_emu.codec import Buffer
from xpmem_emu.errors import XPMEM_ERRNO_NOPROC
from xpmem_emu.kernel import calls, device_calls
from xpmem_emu.kernel.call import Returns

_P = ParamSpec("_P")
_T = TypeVar("_T")
_K = TypeVar("_K")


def _of_library(kind: Callable[Concatenate[int, _P], Returns[_T]]) -> operation[_P, _T]:
    """The method of a task that makes one call as libxpmem does."""

    @wraps(kind, assigned=("__doc__",), updated=())
    def build(task: TaskOperations[_K], /, *args: _P.args, **kwargs: _P.kwargs) -> Steps[_T]:
        return task.by_library(kind(task.pid, *args, **kwargs))

    return operation(build)


class TaskOperations(ABC, Generic[_K]):
    """Methods of a task; `K` is what stands for a task, this class's own subclass."""

    pid: int

    @abstractmethod
    def sibling(self, pid: int) -> _K:
        """Another task of the same partition."""

    # -- the task itself -------------------------------------------------------------------

    @operation
    def fork(self) -> Steps[_K]:
        """A child with a copy-on-write copy of the address space."""
        return self.sibling((yield from ask(calls.Fork(self.pid))))

    @operation
    def setuid(self, uid: int, gids: Sequence[int] = ()) -> Steps[None]:
        """Changes effective uid and groups."""
        return ask(calls.Setuid(self.pid, uid, list(gids)))

    execve = of_task(calls.Exec)
    exit = of_task(calls.Exit)
    kill = of_task(calls.Kill)

    # -- memory ----------------------------------------------------------------------------

    mmap = of_task(calls.Mmap)
    munmap = of_task(calls.Munmap)
    mprotect = of_task(calls.Mprotect)
    madvise = of_task(calls.Madvise)
    mremap = of_task(calls.Mremap)
    zap_page_range = of_task(calls.ZapPageRange)
    migrate = of_task(calls.Migrate)
    amo = of_task(calls.AtomicOp)

    @operation
    def load(self, address: int, size: int) -> Steps[bytes]:
        """Read memory as the task would."""
        return load_pieces(partial(calls.Load, self.pid), address, size)

    @operation
    def store(self, address: int, data: Buffer) -> Steps[None]:
        """Write memory as the task would."""
        return store_pieces(partial(calls.Store, self.pid), address, data)

    # -- secondary MMUs ----------------------------------------------------------------------

    gru_attach = of_task(device_calls.GruAttach)
    guest_attach = of_task(device_calls.GuestAttach)
    guest_slot = of_task(device_calls.GuestSlot)
    mirror_attach = of_task(device_calls.MirrorAttach)
    device_detach = of_task(device_calls.DeviceDetach)

    @operation
    def device_load(self, device: str, address: int, size: int) -> Steps[bytes]:
        """Read memory through a device, at an address of its own."""
        return load_pieces(partial(device_calls.DeviceLoad, self.pid, device), address, size)

    @operation
    def device_store(self, device: str, address: int, data: Buffer) -> Steps[None]:
        """Write memory through a device."""
        return store_pieces(partial(device_calls.DeviceStore, self.pid, device), address, data)

    bte_copy = of_task(device_calls.BteCopy)

    # -- libxpmem --------------------------------------------------------------------------

    xpmem_open = of_task(calls.XpmemOpen)
    """Every other xpmem call does it when need be."""
    xpmem_close = of_task(calls.XpmemClose)
    xpmem_remove = _of_library(calls.XpmemRemove)
    xpmem_get = _of_library(calls.XpmemGet)
    xpmem_release = _of_library(calls.XpmemRelease)
    xpmem_attach = _of_library(calls.XpmemAttach)
    xpmem_detach = _of_library(calls.XpmemDetach)
    xpmem_fork_begin = _of_library(calls.XpmemForkBegin)
    xpmem_fork_end = _of_library(calls.XpmemForkEnd)

    @operation
    def xpmem_make(
        self, vaddr: int, size: int, permit_value: int = 0o600, permit_type: int = 1, name: str = ""
    ) -> Steps[int]:
        """Offers a range of this address space to others. Result: segid."""
        return self.by_library(
            calls.XpmemMake(self.pid, vaddr, size, permit_type, permit_value, name)
        )

    @operation
    def xpmem_copy(
        self, source: tuple[int, int], target: tuple[int, int], size: int
    ) -> Steps[None]:
        """Block transfer of `size` bytes between two (apid, offset); contained, not atomic."""
        return self.by_library(calls.XpmemCopy(self.pid, *source, *target, size))

    def by_library(self, call: Returns[_T]) -> Steps[_T]:
        """As libxpmem does: a task without xpmem state opens the device, then tries once more."""
        try:
            return (yield from ask(call))
        except XpmemError as error:
            if error.errno != XPMEM_ERRNO_NOPROC:
                raise
        yield from ask(calls.XpmemOpen(self.pid))
        return (yield from ask(call))
