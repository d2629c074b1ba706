"""Calls about files and about physical memory."""

from xpmem_emu.codec import Buffer
from xpmem_emu.kernel.calls import Creat, Pread, Pwrite, Reclaim, Truncate, Unlink, Writeback
from xpmem_emu.kernel.kernel import Handlers, Kernel, Returned
from xpmem_emu.mm.files import create_file, pread, pwrite, unlink_file, writeback
from xpmem_emu.mm.reclaim import reclaim, reclaim_range
from xpmem_emu.mm.truncate import truncate


async def _creat(kernel: Kernel, call: Creat, task: None, bulk: Buffer) -> Returned:
    create_file(kernel.memory, call.file, call.size)
    return None, b""


async def _unlink(kernel: Kernel, call: Unlink, task: None, bulk: Buffer) -> Returned:
    await unlink_file(kernel.memory, call.file)
    return None, b""


async def _pread(kernel: Kernel, call: Pread, task: None, bulk: Buffer) -> Returned:
    return None, await pread(kernel.memory.files.lookup(call.file), call.offset, call.size)


async def _pwrite(kernel: Kernel, call: Pwrite, task: None, bulk: Buffer) -> Returned:
    inode = kernel.memory.files.lookup(call.file)
    await pwrite(kernel.memory, inode, call.offset, bulk)
    return None, b""


async def _truncate(kernel: Kernel, call: Truncate, task: None, bulk: Buffer) -> Returned:
    await truncate(kernel.memory, kernel.memory.files.lookup(call.file), call.size)
    return None, b""


async def _writeback(kernel: Kernel, call: Writeback, task: None, bulk: Buffer) -> Returned:
    return await writeback(kernel.memory, kernel.memory.files.lookup(call.file)), b""


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
