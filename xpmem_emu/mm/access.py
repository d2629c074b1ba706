"""Loads and stores of a task: walk, fault where the walk fails, copy extents.

`reach` returns the bytes of the leading accessible pages as views of physical memory. They are
valid until the caller next awaits, because only other threads take pages away. A load or store
within one present page skips all of that.

Where an area has FarOps there is never a page to walk to: its part of the access is carried.

An access that cannot end is ended: after FAULTS_MAX fruitless faults at one address the task gets
SIGBUS, and a killed thread gets SIGKILL before each fault.
"""

import errno

import numpy as np

from xpmem_emu.errors import KernelError, Signal, SignalInfo, Signalled
from xpmem_emu.mm import pte
from xpmem_emu.mm.extents import Ptes, leading, runs
from xpmem_emu.mm.fault import fault_range
from xpmem_emu.mm.mm_types import AddressSpace, Vma
from xpmem_emu.mm.physical import MachineCheck
from xpmem_emu.mm.pte import FRAME_SHIFT, PRESENT, SPECIAL, WRITE
from xpmem_emu.mm.vma_ops import FarOps
from xpmem_emu.units import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE, TASK_SIZE

FRUITLESS_FAULTS_MAX = 64
_WINDOW = 1024
"""Most pages walked at once."""


async def load(mm: AddressSpace, address: int, size: int) -> bytes | bytearray:
    """`size` bytes at `address`. Raises Signalled."""
    offset = address & PAGE_MASK
    if offset + size <= PAGE_SIZE and not mm.context.physical.poisoned:
        entry = mm.page_table.walk(address >> PAGE_SHIFT)
        if entry & (PRESENT | SPECIAL) == PRESENT:
            page = mm.context.physical.view(entry >> FRAME_SHIFT, 1)
            return bytes(page[offset : offset + size])
    data = bytearray(size)
    done = 0
    while done < size:
        found = await _reach(mm, address + done, size - done, write=False)
        if isinstance(found, Vma):
            end = min(size, found.end - address)
            into = memoryview(data)[done:end]
            await _far(found).load(found, address + done, into)
            done = end
            continue
        if sum(map(len, found)) == size:
            return b"".join(found)  # copied once: what cannot change any more is sent as it is
        for view in found:
            data[done : done + len(view)] = view
            done += len(view)
    return data


async def store(mm: AddressSpace, address: int, data: bytes | bytearray | memoryview) -> None:
    """Write `data` at `address`. Raises Signalled; the bytes before the signal are written. Where
    the store is carried, bytes behind it may be written as well."""
    size = len(data)
    offset = address & PAGE_MASK
    if offset + size <= PAGE_SIZE and not mm.context.physical.poisoned:
        entry = mm.page_table.walk(address >> PAGE_SHIFT)
        if entry & (PRESENT | WRITE | SPECIAL) == PRESENT | WRITE:
            page = mm.context.physical.view(entry >> FRAME_SHIFT, 1)
            page[offset : offset + size] = data
            return
    rest = memoryview(data)
    while rest:
        at = address + size - len(rest)
        found = await _reach(mm, at, len(rest), write=True)
        if isinstance(found, Vma):
            part = rest[: found.end - at]
            await _far(found).store(found, at, part)
            rest = rest[len(part) :]
            continue
        for view in found:
            view[:] = rest[: len(view)]
            rest = rest[len(view) :]


async def walk_word(mm: AddressSpace, address: int, write: bool) -> memoryview:
    """The 8 bytes of an aligned word, for an atomic operation: use them before the next await.
    Raises Signalled, SIGBUS when unaligned."""
    if address % 8:
        raise Signalled(SignalInfo(Signal.SIGBUS, "word is not aligned", address))
    return (await reach(mm, address, 8, write))[0]


async def reach(mm: AddressSpace, address: int, size: int, write: bool) -> list[memoryview]:
    """Views of the bytes from `address` on, at least one byte and at most `size`. Valid until
    the caller next awaits. Raises Signalled, SIGBUS where no view can be had."""
    found = await _reach(mm, address, size, write)
    if isinstance(found, Vma):
        reason = "memory that is reached by message only has no address here"
        raise Signalled(SignalInfo(Signal.SIGBUS, reason, address))
    return found


async def _reach(mm: AddressSpace, address: int, size: int, write: bool) -> list[memoryview] | Vma:
    """As `reach`, but gives the area whose FarOps must carry the access."""
    if address >= TASK_SIZE:
        raise Signalled(SignalInfo(Signal.SIGSEGV, "beyond the end of user space", address))
    size = min(size, TASK_SIZE - address)  # what lies before the end is accessed, as everywhere
    need = np.uint64(PRESENT | WRITE if write else PRESENT)
    first = address >> PAGE_SHIFT
    count = min(((address + size - 1) >> PAGE_SHIFT) - first + 1, _WINDOW)
    for _ in range(FRUITLESS_FAULTS_MAX):
        ptes = mm.page_table.read_range(first, count)
        ready = (ptes & need) == need
        if ready[0]:
            return _views(mm, address, size, ptes[: leading(ready)])
        far = await _fault(mm, first, leading(~ready), write)
        if far is not None:
            return far
    raise Signalled(
        SignalInfo(Signal.SIGBUS, f"the page was taken away {FRUITLESS_FAULTS_MAX} times", address)
    )


def _views(mm: AddressSpace, address: int, size: int, ptes: Ptes) -> list[memoryview]:
    if pte.has(ptes, SPECIAL).any():
        # Exactly what is touched: the area behind the last byte may be dead, and is not asked.
        walked = ((address >> PAGE_SHIFT) + len(ptes)) << PAGE_SHIFT
        check_special(mm, address, min(address + size, walked))
    views: list[memoryview] = []
    skip = address & PAGE_MASK
    try:
        for gpfn, count in runs(pte.frame_field(ptes)):
            view = mm.context.physical.view(gpfn, count)[skip : skip + size]
            size -= len(view)
            skip = 0
            views.append(view)
    except MachineCheck as error:
        # Contained in user mode: the handler kills the process, whatever it would catch.
        info = SignalInfo(Signal.SIGBUS, error.cause, address, forced=True)
        raise Signalled(info) from None
    except KernelError as error:
        raise Signalled(SignalInfo(Signal.SIGBUS, error.cause, address)) from None
    return views


def _far(vma: Vma) -> FarOps:
    assert isinstance(vma.ops, FarOps)
    return vma.ops


def check_special(mm: AddressSpace, start: int, end: int) -> None:
    """May an access through the SPECIAL entries of [start, end) go on? Raises Signalled."""
    for vma in mm.vmas.intersecting(start, end):
        if vma.ops is not None:
            vma.ops.check(vma, max(start, vma.start))


async def _fault(mm: AddressSpace, first: int, count: int, write: bool) -> Vma | None:
    thread = mm.context.scheduler.current
    address = first << PAGE_SHIFT
    if thread is not None and thread.killed:
        raise Signalled(SignalInfo(Signal.SIGKILL, "killed during a memory access", address))
    try:
        return await fault_range(mm, first, count, write)
    except KernelError as error:
        if error.errno != errno.ENOMEM:
            raise
        raise Signalled(
            SignalInfo(Signal.SIGKILL, f"out of memory: {error.cause}", address)
        ) from None
