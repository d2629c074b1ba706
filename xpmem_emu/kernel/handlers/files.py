"""Calls about files and about physical memory."""

from xpmem_emu.codec import Buffer
from xpmem_emu.kernel.calls import Creat, Pread, Pwrite, Reclaim, Truncate, Unlink, Writeback
from xpmem_emu.kernel.dispatch import Handlers, Returned
from xpmem_emu.kernel.kernel import Kernel
from xpmem_emu.mm.reclaim import reclaim, reclaim_range


async def _creat(kernel: Kernel, call: Creat, task: None, bulk: Buffer) -> Returned:
    kernel.memory.files.create(call.file, call.size)
    return None, b""


async def _unlink(kernel: Kernel, call: Unlink, task: None, bulk: Buffer) -> Returned:
    await kernel.memory.files.unlink(call.file)
    return None, b""


async def _pread(kernel: Kernel, call: Pread, task: None, bulk: Buffer) -> Returned:
    return None, await kernel.memory.files.lookup(call.file).pread(call.offset, call.size)


async def _pwrite(kernel: Kernel, call: Pwrite, task: None, bulk: Buffer) -> Returned:
    await kernel.memory.files.lookup(call.file).pwrite(call.offset, bulk)
    return None, b""


async def _truncate(kernel: Kernel, call: Truncate, task: None, bulk: Buffer) -> Returned:
    await kernel.memory.files.lookup(call.file).truncate(call.size)
    return None, b""


async def _writeback(kernel: Kernel, call: Writeback, task: None, bulk: Buffer) -> Returned:
    return await kernel.memory.files.lookup(call.file).writeback(), b""


async def _reclaim(kernel: Kernel, call: Reclaim, task: None, bulk: Buffer) -> Returned:
    if not call.pid:
        return await reclaim(kernel.memory, call.pages), b""
    mm = kernel.tasks.find(call.pid).mm
    return await reclaim_range(mm, call.address, call.length, call.pages), b""


HANDLERS: Handlers = {
    Creat: _creat,
    Unlink: _unlink,
    Pread: _pread,
    Pwrite: _pwrite,
    Truncate: _truncate,
    Writeback: _writeback,
    Reclaim: _reclaim,
}
