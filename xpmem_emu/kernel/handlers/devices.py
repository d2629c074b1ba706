"""Calls about the secondary MMUs of a task: what each is, is in mmu/."""

import errno

from xpmem_emu.codec import Buffer
from xpmem_emu.errors import KernelError
from xpmem_emu.kernel.device_calls import (
    DEVICES,
    BteCopy,
    DeviceDetach,
    DeviceLoad,
    DeviceStore,
    GruAttach,
    GuestAttach,
    GuestSlot,
    MirrorAttach,
)
from xpmem_emu.kernel.kernel import Handlers, Kernel, Returned
from xpmem_emu.kernel.tasks import Task
from xpmem_emu.mmu.gru import GruContext
from xpmem_emu.mmu.guest import Guest
from xpmem_emu.mmu.mirror import Mirror
from xpmem_emu.mmu.secondary import SecondaryMmu, devices_of


async def _gru(kernel: Kernel, call: GruAttach, task: Task, bulk: Buffer) -> Returned:
    GruContext(task.mm, kernel.gru)
    return None, b""


async def _guest(kernel: Kernel, call: GuestAttach, task: Task, bulk: Buffer) -> Returned:
    Guest(task.mm, references=call.references)
    return None, b""


async def _slot(kernel: Kernel, call: GuestSlot, task: Task, bulk: Buffer) -> Returned:
    guest = _device(task, Guest.kind)
    assert isinstance(guest, Guest)
    guest.set_slot(call.start, call.length, call.address)
    return None, b""


async def _mirror(kernel: Kernel, call: MirrorAttach, task: Task, bulk: Buffer) -> Returned:
    Mirror(task.mm, call.address, call.length)
    return None, b""


async def _detach(kernel: Kernel, call: DeviceDetach, task: Task, bulk: Buffer) -> Returned:
    _device(task, call.device).close()
    return None, b""


async def _load(kernel: Kernel, call: DeviceLoad, task: Task, bulk: Buffer) -> Returned:
    return None, await _device(task, call.device).load(call.address, call.size)


async def _store(kernel: Kernel, call: DeviceStore, task: Task, bulk: Buffer) -> Returned:
    await _device(task, call.device).store(call.address, bulk)
    return None, b""


async def _bte_copy(kernel: Kernel, call: BteCopy, task: Task, bulk: Buffer) -> Returned:
    await kernel.xpmem.bte.copy(task, call.source, call.target, call.size)
    return None, b""


def _device(task: Task, kind: str) -> SecondaryMmu:
    if kind not in DEVICES:
        raise KernelError(errno.EINVAL, f"no device {kind!r}", ", ".join(DEVICES))
    for device in devices_of(task.mm):
        if device.kind == kind:
            return device
    raise KernelError(
        errno.ENODEV, f"task {task.pid} has no {kind}", f"`device {kind}` gives it one"
    )


HANDLERS: Handlers = {
    GruAttach: _gru,
    GuestAttach: _guest,
    GuestSlot: _slot,
    MirrorAttach: _mirror,
    DeviceDetach: _detach,
    DeviceLoad: _load,
    DeviceStore: _store,
    BteCopy: _bte_copy,
}
