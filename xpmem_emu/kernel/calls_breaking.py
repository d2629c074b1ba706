"""Carrying out the calls that break a kernel: a line or two each, in the layer concerned."""

import errno
from typing import TYPE_CHECKING

from xpmem_emu.codec import Buffer
from xpmem_emu.errors import KernelBug, KernelError
from xpmem_emu.kernel.breaking import (
    STRAIN_END,
    CrashKernel,
    FailpointClear,
    FailpointResume,
    FailpointSet,
    ListFailpoints,
    Poison,
    Strain,
    Unpoison,
)

if TYPE_CHECKING:
    from xpmem_emu.kernel.calls import Call
    from xpmem_emu.kernel.dispatch import Handler, Returned
    from xpmem_emu.kernel.kernel import Kernel


class BreakingCalls:
    """Failpoints, poison, strain, panic."""

    def __init__(self, kernel: "Kernel") -> None:
        self._kernel = kernel
        self._failpoints = kernel.failpoints
        self._memory = kernel.memory

    def handlers(self) -> "dict[type[Call], Handler]":
        """What serves which call."""
        return {
            FailpointSet: self._set,
            FailpointClear: self._clear,
            FailpointResume: self._resume,
            ListFailpoints: self._list,
            Poison: self._poison,
            Unpoison: self._unpoison,
            Strain: self._strain,
            CrashKernel: self._panic,
        }

    async def _set(self, call: FailpointSet, task: None, bulk: Buffer) -> "Returned":
        self._failpoints.set(call.point, call.terms, call.seed)
        return None, b""

    async def _clear(self, call: FailpointClear, task: None, bulk: Buffer) -> "Returned":
        if call.point:
            self._failpoints.clear(call.point)
        else:
            self._failpoints.reset()
        return None, b""

    async def _resume(self, call: FailpointResume, task: None, bulk: Buffer) -> "Returned":
        return self._failpoints.resume(call.point), b""

    async def _list(self, call: ListFailpoints, task: None, bulk: Buffer) -> "Returned":
        return self._failpoints.rows(), b""

    async def _poison(self, call: Poison, task: None, bulk: Buffer) -> "Returned":
        self._require_partition(call.home)
        self._memory.poison(call.home, call.frame)
        return None, b""

    async def _unpoison(self, call: Unpoison, task: None, bulk: Buffer) -> "Returned":
        self._require_partition(call.home)
        self._memory.unpoison(call.home, call.frame)
        return None, b""

    def _require_partition(self, home: int) -> None:
        if home != self._kernel.partid and home not in self._kernel.xpc.partitions:
            raise KernelError(errno.EINVAL, f"this machine has no partition p{home}")

    async def _strain(self, call: Strain, task: None, bulk: Buffer) -> "Returned":
        if not 0 <= call.value < STRAIN_END:
            raise KernelError(errno.EINVAL, f"{call.value:#x} is beyond every bound")
        match call.bound:
            case "pin_limit":
                self._kernel.xpmem.exporter.pin_limit = call.value
            case "sequence":
                self._kernel.xpmem.exporter.count_from(call.value)
            case "number":
                self._kernel.xpc.number_from(call.value)
            case _:
                raise KernelError(
                    errno.EINVAL,
                    f"no bound is called {call.bound!r}",
                    "pin_limit, sequence or number",
                )
        return None, b""

    async def _panic(self, call: CrashKernel, task: None, bulk: Buffer) -> "Returned":
        raise KernelBug(call.reason)
