"""Calls about files and about physical memory."""

from typing import TYPE_CHECKING

from xpmem_emu.codec import Buffer
from xpmem_emu.kernel.calls import Creat, Pread, Pwrite, Reclaim, Truncate, Unlink, Writeback
from xpmem_emu.mm.reclaim import reclaim, reclaim_range

if TYPE_CHECKING:
    from xpmem_emu.kernel.calls import Call
    from xpmem_emu.kernel.dispatch import Handler, Returned
    from xpmem_emu.kernel.kernel import Kernel


class FileCalls:
    """creat, unlink, pread, pwrite, truncate, writeback, reclaim."""

    def __init__(self, kernel: "Kernel") -> None:
        self._kernel = kernel
        self._memory = kernel.memory

    def handlers(self) -> "dict[type[Call], Handler]":
        """What serves which call."""
        return {
            Creat: self._creat,
            Unlink: self._unlink,
            Pread: self._pread,
            Pwrite: self._pwrite,
            Truncate: self._truncate,
            Writeback: self._writeback,
            Reclaim: self._reclaim,
        }

    async def _creat(self, call: Creat, task: None, bulk: Buffer) -> "Returned":
        self._memory.files.create(call.file, call.size)
        return None, b""

    async def _unlink(self, call: Unlink, task: None, bulk: Buffer) -> "Returned":
        await self._memory.files.unlink(call.file)
        return None, b""

    async def _pread(self, call: Pread, task: None, bulk: Buffer) -> "Returned":
        return None, await self._memory.files.lookup(call.file).pread(call.offset, call.size)

    async def _pwrite(self, call: Pwrite, task: None, bulk: Buffer) -> "Returned":
        await self._memory.files.lookup(call.file).pwrite(call.offset, bulk)
        return None, b""

    async def _truncate(self, call: Truncate, task: None, bulk: Buffer) -> "Returned":
        await self._memory.files.lookup(call.file).truncate(call.size)
        return None, b""

    async def _writeback(self, call: Writeback, task: None, bulk: Buffer) -> "Returned":
        return await self._memory.files.lookup(call.file).writeback(), b""

    async def _reclaim(self, call: Reclaim, task: None, bulk: Buffer) -> "Returned":
        if not call.pid:
            return await reclaim(self._memory, call.pages), b""
        mm = self._kernel.tasks.find(call.pid).mm
        return await reclaim_range(mm, call.address, call.length, call.pages), b""
