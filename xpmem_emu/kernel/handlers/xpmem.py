"""The xpmem calls: one line each, the semantics are in xpmem/."""

from xpmem_emu.codec import Buffer
from xpmem_emu.kernel.calls import (
    XpmemAttach,
    XpmemClose,
    XpmemCopy,
    XpmemDetach,
    XpmemFind,
    XpmemForkBegin,
    XpmemForkEnd,
    XpmemGet,
    XpmemMake,
    XpmemOpen,
    XpmemRelease,
    XpmemRemove,
    XpmemTunable,
    XpmemVersion,
)
from xpmem_emu.kernel.kernel import Handlers, Kernel, Returned
from xpmem_emu.kernel.tasks import Task
from xpmem_emu.xpmem.module import XPMEM_VERSION


async def _version(kernel: Kernel, call: XpmemVersion, task: None, bulk: Buffer) -> Returned:
    return XPMEM_VERSION, b""


async def _open(kernel: Kernel, call: XpmemOpen, task: Task, bulk: Buffer) -> Returned:
    kernel.xpmem.device.open(task)
    return None, b""


async def _close(kernel: Kernel, call: XpmemClose, task: Task, bulk: Buffer) -> Returned:
    await kernel.xpmem.device.close(task)
    return None, b""


async def _make(kernel: Kernel, call: XpmemMake, task: Task, bulk: Buffer) -> Returned:
    segid = kernel.xpmem.making.make(
        task, call.vaddr, call.size, call.permit_type, call.permit_value, call.name
    )
    return segid, b""


async def _remove(kernel: Kernel, call: XpmemRemove, task: Task, bulk: Buffer) -> Returned:
    await kernel.xpmem.making.remove(task, call.segid)
    return None, b""


async def _get(kernel: Kernel, call: XpmemGet, task: Task, bulk: Buffer) -> Returned:
    apid = await kernel.xpmem.getting.get(
        task, call.segid, call.flags, call.permit_type, call.permit_value
    )
    return apid, b""


async def _release(kernel: Kernel, call: XpmemRelease, task: Task, bulk: Buffer) -> Returned:
    await kernel.xpmem.getting.release(task, call.apid)
    return None, b""


async def _attach(kernel: Kernel, call: XpmemAttach, task: Task, bulk: Buffer) -> Returned:
    address = await kernel.xpmem.getting.attach(task, call.apid, call.offset, call.size, call.vaddr)
    return address, b""


async def _detach(kernel: Kernel, call: XpmemDetach, task: Task, bulk: Buffer) -> Returned:
    await kernel.xpmem.getting.detach(task, call.vaddr)
    return None, b""


async def _copy(kernel: Kernel, call: XpmemCopy, task: Task, bulk: Buffer) -> Returned:
    source, target = (call.src_apid, call.src_offset), (call.dst_apid, call.dst_offset)
    await kernel.xpmem.transfers.copy(task, source, target, call.size)
    return None, b""


async def _fork_begin(kernel: Kernel, call: XpmemForkBegin, task: Task, bulk: Buffer) -> Returned:
    await kernel.xpmem.device.fork_begin(task)
    return None, b""


async def _fork_end(kernel: Kernel, call: XpmemForkEnd, task: Task, bulk: Buffer) -> Returned:
    kernel.xpmem.device.fork_end(task)
    return None, b""


async def _find(kernel: Kernel, call: XpmemFind, task: None, bulk: Buffer) -> Returned:
    return await kernel.xpmem.making.find(call.name), b""


async def _tunable(kernel: Kernel, call: XpmemTunable, task: None, bulk: Buffer) -> Returned:
    return kernel.xpmem.tune(call.name, call.value), b""


HANDLERS: Handlers = {
    XpmemVersion: _version,
    XpmemOpen: _open,
    XpmemClose: _close,
    XpmemMake: _make,
    XpmemRemove: _remove,
    XpmemGet: _get,
    XpmemRelease: _release,
    XpmemAttach: _attach,
    XpmemDetach: _detach,
    XpmemCopy: _copy,
    XpmemForkBegin: _fork_begin,
    XpmemForkEnd: _fork_end,
    XpmemFind: _find,
    XpmemTunable: _tunable,
}
