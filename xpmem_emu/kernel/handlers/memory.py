"""Calls about a task's own memory: the system calls and the accesses."""

import errno

from xpmem_emu.codec import Buffer
from xpmem_emu.errors import KernelError
from xpmem_emu.kernel.calls import (
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_MSPEC,
    MAP_PRIVATE,
    MAP_SHARED,
    MAP_UNCACHED,
    AtomicOp,
    Load,
    Madvise,
    Migrate,
    Mmap,
    Mprotect,
    Mremap,
    Munmap,
    Store,
    ZapPageRange,
)
from xpmem_emu.kernel.kernel import Handlers, Kernel, Returned
from xpmem_emu.kernel.tasks import Task
from xpmem_emu.mm.access import load, store
from xpmem_emu.mm.advise import madvise, zap_page_range
from xpmem_emu.mm.atomic import AmoOperation, atomic
from xpmem_emu.mm.mapping import MapRequest, mmap, munmap
from xpmem_emu.mm.migrate import migrate_range
from xpmem_emu.mm.protect import mprotect
from xpmem_emu.mm.remap import Remap, mremap
from xpmem_emu.mm.vma_flags import MSPEC_AREA, Prot, VmaFlags


async def _mmap(kernel: Kernel, call: Mmap, task: Task, bulk: Buffer) -> Returned:
    known = MAP_SHARED | MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS | MAP_UNCACHED | MAP_MSPEC
    sharing = call.flags & (MAP_SHARED | MAP_PRIVATE)
    if call.flags & ~known or sharing not in (MAP_SHARED, MAP_PRIVATE):
        raise KernelError(
            errno.EINVAL,
            f"mmap flags {call.flags:#x}",
            "give exactly one of MAP_SHARED and MAP_PRIVATE",
        )
    if bool(call.flags & MAP_ANONYMOUS) == bool(call.file):
        raise KernelError(errno.EINVAL, "either MAP_ANONYMOUS or a file, not both or neither")
    flags = VmaFlags.SHARED if sharing == MAP_SHARED else VmaFlags.NONE
    if call.flags & MAP_UNCACHED:
        flags |= VmaFlags.UNCACHED
    if call.flags & MAP_MSPEC:
        _require_mspec(call)
        flags |= MSPEC_AREA
    request = MapRequest(
        length=call.length,
        prot=_prot(call.prot),
        flags=flags,
        address=call.address,
        fixed=bool(call.flags & MAP_FIXED),
        inode=kernel.memory.files.lookup(call.file) if call.file else None,
        offset=call.offset,
    )
    return await mmap(task.mm, request), b""


def _require_mspec(call: Mmap) -> None:
    """What the driver gives. Raises KernelError EINVAL, EPERM."""
    remedy = "MAP_SHARED|MAP_ANONYMOUS|MAP_MSPEC with PROT_READ|PROT_WRITE and offset 0"
    if not call.flags & MAP_SHARED:
        cause = "a private mapping of mspec would be copied: a cached alias of its page"
        raise KernelError(errno.EINVAL, cause, remedy)
    if call.file or call.offset:
        raise KernelError(errno.EINVAL, "mspec gives pages of its own, not those of a file", remedy)
    if not call.prot & Prot.WRITE:
        raise KernelError(errno.EPERM, f"protection {call.prot:#x}: mspec is for stores", remedy)


async def _munmap(kernel: Kernel, call: Munmap, task: Task, bulk: Buffer) -> Returned:
    await munmap(task.mm, call.address, call.length)
    return None, b""


async def _mprotect(kernel: Kernel, call: Mprotect, task: Task, bulk: Buffer) -> Returned:
    await mprotect(task.mm, call.address, call.length, _prot(call.prot))
    return None, b""


async def _madvise(kernel: Kernel, call: Madvise, task: Task, bulk: Buffer) -> Returned:
    await madvise(task.mm, call.address, call.length, call.advice)
    return None, b""


async def _mremap(kernel: Kernel, call: Mremap, task: Task, bulk: Buffer) -> Returned:
    address = await mremap(
        task.mm, call.address, call.old_length, call.new_length, Remap(call.flags), call.new_address
    )
    return address, b""


async def _load(kernel: Kernel, call: Load, task: Task, bulk: Buffer) -> Returned:
    return None, await load(task.mm, call.address, call.size)


async def _store(kernel: Kernel, call: Store, task: Task, bulk: Buffer) -> Returned:
    await store(task.mm, call.address, bulk)
    return None, b""


async def _amo(kernel: Kernel, call: AtomicOp, task: Task, bulk: Buffer) -> Returned:
    try:
        operation = AmoOperation[call.operation.upper()]
    except KeyError:
        names = ", ".join(operation.name.lower() for operation in AmoOperation)
        raise KernelError(errno.EINVAL, f"no atomic operation {call.operation!r}", names) from None
    async with task.mm.mmap_lock.read():  # or the attachment may have no address yet
        attachment = kernel.xpmem.attachment_at(task.mm.vmas.find(call.address))
    if attachment is None:
        return await atomic(task.mm, call.address, operation, call.operand, call.compare), b""
    before = await kernel.xpmem.amo(attachment, call.address, operation, call.operand, call.compare)
    return before, b""


async def _zap(kernel: Kernel, call: ZapPageRange, task: Task, bulk: Buffer) -> Returned:
    await zap_page_range(task.mm, call.address, call.length)
    return None, b""


async def _migrate(kernel: Kernel, call: Migrate, task: Task, bulk: Buffer) -> Returned:
    return await migrate_range(task.mm, call.address, call.length), b""


def _prot(value: int) -> Prot:
    if value not in range(4):
        raise KernelError(errno.EINVAL, f"protection {value:#x}: PROT_READ (1), PROT_WRITE (2)")
    return Prot(value)


HANDLERS: Handlers = {
    Mmap: _mmap,
    Munmap: _munmap,
    Mprotect: _mprotect,
    Madvise: _madvise,
    Mremap: _mremap,
    Load: _load,
    Store: _store,
    AtomicOp: _amo,
    ZapPageRange: _zap,
    Migrate: _migrate,
}
