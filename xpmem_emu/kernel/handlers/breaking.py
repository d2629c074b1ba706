"""Carrying out the calls that break a kernel: a line or two each, in the layer concerned."""

import errno

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
    RawLoad,
    Strain,
    Unpoison,
)
from xpmem_emu.kernel.kernel import Handlers, Kernel, Returned
from xpmem_emu.mm.memory_failure import poison_frame, unpoison_frame
from xpmem_emu.mm.pte import PARTID_SHIFT


async def _set(kernel: Kernel, call: FailpointSet, task: None, bulk: Buffer) -> Returned:
    kernel.failpoints.set(call.point, call.terms, call.seed)
    return None, b""


async def _clear(kernel: Kernel, call: FailpointClear, task: None, bulk: Buffer) -> Returned:
    if call.point:
        kernel.failpoints.clear(call.point)
    else:
        kernel.failpoints.reset()
    return None, b""


async def _resume(kernel: Kernel, call: FailpointResume, task: None, bulk: Buffer) -> Returned:
    return kernel.failpoints.resume(call.point), b""


async def _list(kernel: Kernel, call: ListFailpoints, task: None, bulk: Buffer) -> Returned:
    return kernel.failpoints.rows(), b""


async def _poison(kernel: Kernel, call: Poison, task: None, bulk: Buffer) -> Returned:
    _require_partition(kernel, call.home)
    poison_frame(kernel.memory, call.home, call.frame)
    return None, b""


async def _unpoison(kernel: Kernel, call: Unpoison, task: None, bulk: Buffer) -> Returned:
    _require_partition(kernel, call.home)
    unpoison_frame(kernel.memory, call.home, call.frame)
    return None, b""


async def _raw_load(kernel: Kernel, call: RawLoad, task: None, bulk: Buffer) -> Returned:
    _require_partition(kernel, call.home)
    physical = kernel.memory.physical
    physical.require_frame(call.home, call.frame)
    if not physical.has_window(call.home) and kernel.xpc.incarnation(call.home) is not None:
        raise KernelError(
            errno.EXDEV,
            f"p{call.home} is of another coherence domain",
            "a block transfer of a task reaches it",
        )
    try:
        page = physical.view(call.home << PARTID_SHIFT | call.frame, 1)
    except KernelError as error:  # no task to kill, and no engine to report it
        raise KernelBug(f"machine check in kernel mode: {error.cause}") from None
    return int.from_bytes(page[:8], "little"), b""


def _require_partition(kernel: Kernel, home: int) -> None:
    if home != kernel.partid and not kernel.xpc.is_peer(home):
        raise KernelError(errno.EINVAL, f"this machine has no partition p{home}")


async def _strain(kernel: Kernel, call: Strain, task: None, bulk: Buffer) -> Returned:
    if not 0 <= call.value < STRAIN_END:
        raise KernelError(errno.EINVAL, f"{call.value:#x} is beyond every bound")
    match call.bound:
        case "pin_limit":
            kernel.xpmem.exporter.pin_limit = call.value
        case "sequence":
            kernel.xpmem.exporter.count_from(call.value)
        case "number":
            kernel.xpc.number_from(call.value)
        case _:
            raise KernelError(
                errno.EINVAL, f"no bound is called {call.bound!r}", "pin_limit, sequence or number"
            )
    return None, b""


async def _panic(kernel: Kernel, call: CrashKernel, task: None, bulk: Buffer) -> Returned:
    raise KernelBug(call.reason)


HANDLERS: Handlers = {
    FailpointSet: _set,
    FailpointClear: _clear,
    FailpointResume: _resume,
    ListFailpoints: _list,
    Poison: _poison,
    Unpoison: _unpoison,
    RawLoad: _raw_load,
    Strain: _strain,
    CrashKernel: _panic,
}
