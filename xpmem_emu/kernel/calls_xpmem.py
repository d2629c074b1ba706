"""The xpmem calls: one line each, the semantics are in xpmem/."""

from typing import TYPE_CHECKING

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
from xpmem_emu.kernel.tasks import Task
from xpmem_emu.xpmem.module import XPMEM_VERSION

if TYPE_CHECKING:
    from xpmem_emu.kernel.calls import Call
    from xpmem_emu.kernel.dispatch import Handler, Returned
    from xpmem_emu.kernel.kernel import Kernel


class XpmemCalls:
    """What libxpmem asks of the device."""

    def __init__(self, kernel: "Kernel") -> None:
        self._xpmem = kernel.xpmem

    def handlers(self) -> "dict[type[Call], Handler]":
        """What serves which call."""
        return {
            XpmemVersion: self._version,
            XpmemOpen: self._open,
            XpmemClose: self._close,
            XpmemMake: self._make,
            XpmemRemove: self._remove,
            XpmemGet: self._get,
            XpmemRelease: self._release,
            XpmemAttach: self._attach,
            XpmemDetach: self._detach,
            XpmemCopy: self._copy,
            XpmemForkBegin: self._fork_begin,
            XpmemForkEnd: self._fork_end,
            XpmemFind: self._find,
            XpmemTunable: self._tunable,
        }

    async def _version(self, call: XpmemVersion, task: None, bulk: Buffer) -> "Returned":
        return XPMEM_VERSION, b""

    async def _open(self, call: XpmemOpen, task: Task, bulk: Buffer) -> "Returned":
        self._xpmem.device.open(task)
        return None, b""

    async def _close(self, call: XpmemClose, task: Task, bulk: Buffer) -> "Returned":
        await self._xpmem.device.close(task)
        return None, b""

    async def _make(self, call: XpmemMake, task: Task, bulk: Buffer) -> "Returned":
        segid = self._xpmem.making.make(
            task, call.vaddr, call.size, call.permit_type, call.permit_value, call.name
        )
        return segid, b""

    async def _remove(self, call: XpmemRemove, task: Task, bulk: Buffer) -> "Returned":
        await self._xpmem.making.remove(task, call.segid)
        return None, b""

    async def _get(self, call: XpmemGet, task: Task, bulk: Buffer) -> "Returned":
        apid = await self._xpmem.getting.get(
            task, call.segid, call.flags, call.permit_type, call.permit_value
        )
        return apid, b""

    async def _release(self, call: XpmemRelease, task: Task, bulk: Buffer) -> "Returned":
        await self._xpmem.getting.release(task, call.apid)
        return None, b""

    async def _attach(self, call: XpmemAttach, task: Task, bulk: Buffer) -> "Returned":
        address = await self._xpmem.getting.attach(
            task, call.apid, call.offset, call.size, call.vaddr
        )
        return address, b""

    async def _detach(self, call: XpmemDetach, task: Task, bulk: Buffer) -> "Returned":
        await self._xpmem.getting.detach(task, call.vaddr)
        return None, b""

    async def _copy(self, call: XpmemCopy, task: Task, bulk: Buffer) -> "Returned":
        source, target = (call.src_apid, call.src_offset), (call.dst_apid, call.dst_offset)
        await self._xpmem.transfers.copy(task, source, target, call.size)
        return None, b""

    async def _fork_begin(self, call: XpmemForkBegin, task: Task, bulk: Buffer) -> "Returned":
        await self._xpmem.device.fork_begin(task)
        return None, b""

    async def _fork_end(self, call: XpmemForkEnd, task: Task, bulk: Buffer) -> "Returned":
        self._xpmem.device.fork_end(task)
        return None, b""

    async def _find(self, call: XpmemFind, task: None, bulk: Buffer) -> "Returned":
        return await self._xpmem.making.find(call.name), b""

    async def _tunable(self, call: XpmemTunable, task: None, bulk: Buffer) -> "Returned":
        return self._xpmem.tune(call.name, call.value), b""
