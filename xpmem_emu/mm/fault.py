"""The page fault: make the pages from an address on accessible, a run of like pages at a time.

Every handler runs under the mmap_lock held for reading, so the area is stable; entries are not,
because reclaim, truncation and other faults need no mmap_lock. A handler therefore reads the
entries, sleeps if it must (memory, disk, notifiers), and installs only where the entry is still
the one it read. It may do less than asked or nothing: the caller walks again.

Areas with ops are not handled here: the lock is dropped and `ops.fault` is called, which may
sleep on another partition. With the lock held, a writer would wait for as long as a dead home is
waited for; and where a task has attached its own memory, the home pins under the same lock, behind
that writer, for ever. An area with FarOps is handed back: it never has an entry.
"""

import numpy as np

from xpmem_emu.errors import KernelBug, Signal, SignalInfo, Signalled
from xpmem_emu.failpoints.points import FAULT_BEGIN
from xpmem_emu.mm import pte, rmap
from xpmem_emu.mm.allocate import allocate_up_to
from xpmem_emu.mm.entries import exchange
from xpmem_emu.mm.events import Cow, PageFault
from xpmem_emu.mm.extents import Frames, Mask, Ptes, leading, numbers
from xpmem_emu.mm.files import cached_frames
from xpmem_emu.mm.gather import Gather
from xpmem_emu.mm.mm_types import AddressSpace, Vma
from xpmem_emu.mm.physical import MachineCheck
from xpmem_emu.mm.transit import Transit
from xpmem_emu.mm.vma_flags import Prot, VmaFlags
from xpmem_emu.mm.vma_ops import FarOps
from xpmem_emu.units import PAGE_SHIFT

FAULT_BATCH = 1024
"""Most pages that one fault makes accessible: four times what a request of a client moves."""


async def fault_range(mm: AddressSpace, first_vpn: int, count: int, write: bool) -> Vma | None:
    """Work towards `count` accessible pages from `first_vpn` on, at least towards the first.
    Returns the area when its FarOps must carry the access instead, else None.

    Raises Signalled: SIGSEGV (no area, no permission), SIGBUS (beyond the end of a file, or what
    the area's ops say), SIGKILL (exiting); KernelError ENOMEM.
    """
    address = first_vpn << PAGE_SHIFT
    if mm.context.failpoints.armed:
        await mm.context.failpoints.reach(FAULT_BEGIN)
    async with mm.mmap_lock.read():
        vma = _permitted(mm, address, write)
        if vma.ops is None:
            await resolve(vma, first_vpn, count, write)
            return None
    # No sleep since the area was found. Whatever it is after this one, the caller walks again.
    if isinstance(vma.ops, FarOps):
        return vma
    thread = mm.context.scheduler.current
    assert thread is not None
    assert not thread.held
    await vma.ops.fault(vma, address, write)
    return None


async def resolve(vma: Vma, first: int, count: int, write: bool) -> None:
    """One pass over the leading run of like pages. With vma.mm.mmap_lock held for reading; the
    area allows the access. Raises Signalled SIGBUS, KernelError ENOMEM."""
    assert vma.linked  # until the mmap_lock is dropped
    count = min(count, FAULT_BATCH, vma.first + vma.pages - first)
    ptes = vma.mm.page_table.read_range(first, count)
    head = int(ptes[0])
    if head & pte.BUSY:  # who moves the page needs neither our mmap_lock nor us
        await vma.mm.context.changed.wait()
    elif head == 0 and vma.inode is None:
        await _anonymous(vma, first, leading(ptes == 0))
    elif head == 0:
        await _file(vma, first, leading(ptes == 0), write)
    elif head & pte.SWAP:
        await _swap_in(vma, first, ptes[: leading(pte.has(ptes, pte.SWAP))])
    elif head & pte.PRESENT and write and not head & pte.WRITE:
        rights = ptes & np.uint64(pte.PRESENT | pte.WRITE)
        await _write_protected(vma, first, ptes[: leading(rights == pte.PRESENT)])
    elif not head & pte.PRESENT:
        raise KernelBug(f"entry {pte.pte_text(head)} in area {vma}")


def _permitted(mm: AddressSpace, address: int, write: bool) -> Vma:
    if mm.dead:
        raise Signalled(SignalInfo(Signal.SIGKILL, "the task is exiting", address))
    vma = mm.vmas.find(address)
    if vma is None:
        raise Signalled(SignalInfo(Signal.SIGSEGV, "nothing is mapped there", address))
    if not vma.prot & (Prot.WRITE if write else Prot.READ | Prot.WRITE):
        what = "store to" if write else "load from"
        raise Signalled(SignalInfo(Signal.SIGSEGV, f"{what} area {vma}, which forbids it", address))
    return vma


# -- handlers ---------------------------------------------------------------------------------


async def _anonymous(vma: Vma, first: int, count: int) -> None:
    """Demand zero. Loads allocate too: there is no shared zero page to recall later."""
    context = vma.mm.context
    frames = await allocate_up_to(context, count)
    context.frames.fill(frames, 0)
    absent = np.zeros(len(frames), dtype=np.uint64)
    _install(vma, first, absent, _adopt(vma, first, frames), "anonymous")
    context.frames.put(frames)


async def _swap_in(vma: Vma, first: int, swapped: Ptes) -> None:
    context = vma.mm.context
    frames = await allocate_up_to(context, len(swapped))
    # Read after the sleep: an entry that is as it was may name a slot that was freed in between,
    # and used again for a newer content of the same page.
    swapped = swapped[: len(frames)]
    context.swap.read(pte.frame_field(swapped), context.frames, frames)
    _install(vma, first, swapped, _adopt(vma, first, frames), "swap_in")
    context.frames.put(frames)


async def _file(vma: Vma, first: int, count: int, write: bool) -> None:
    context, inode = vma.mm.context, vma.inode
    assert inode is not None
    index = vma.index_of(first)
    private = write and not vma.shared
    copies = numbers(0, 0)
    if private:
        # Half of what is free at most: what is to be copied may have to be read in first, and
        # frames that are on loan nobody can reclaim.
        copies = await allocate_up_to(context, min(count, max(context.frames.free // 2, 1)))
    context.loans += 1
    try:
        cached = await cached_frames(context, inode, index, len(copies) if private else count)
        # Nothing sleeps from here until the entries hold references: what is in the cache stays.
        if len(cached) == 0:
            raise Signalled(
                SignalInfo(Signal.SIGBUS, f"beyond the end of {inode.title}", first << PAGE_SHIFT)
            )
        absent = np.zeros(len(cached), dtype=np.uint64)
        if private:
            cached = _readable(vma, first, cached)
            chosen = copies[: len(cached)]
            context.frames.copy(cached, chosen)
            _install(vma, first, absent[: len(chosen)], _adopt(vma, first, chosen), "private")
            return
        flags = _flags(vma)
        if write:
            flags |= pte.WRITE | pte.DIRTY
            inode.dirty[index : index + len(cached)] = True
        entries = pte.make(cached + context.frames.base, flags)
        _install(vma, first, absent, entries, "file")
    finally:
        context.loans -= 1
        context.frames.put(copies)


async def _write_protected(vma: Vma, first: int, ptes: Ptes) -> None:
    """Present, but not for stores: shared pages become dirty, private ones are reused when
    nobody else maps or pins them, else copied.

        exporter that may only read             its forked child
        | munmap: entry cleared, mapcount 1
        | sync: an importer reads the frame     | store: pinned, so not reused but copied
        | acknowledged, unpinned
    """
    allocator = vma.mm.context.frames
    if vma.shared:
        assert vma.inode is not None
        index = vma.index_of(first)
        vma.inode.dirty[index : index + len(ptes)] = True
        _make_writable(vma, first, ptes)
        return
    frames = pte.frame_field(ptes) & pte.LOCAL_MASK
    own = (allocator.mapcount[frames] == 1) & (allocator.pins[frames] == 0)
    if vma.inode is not None:
        own &= allocator.owner[frames] != vma.inode.id
    if own[0]:
        _make_writable(vma, first, ptes[: leading(own)])
    else:
        await _copy_on_write(vma, first, ptes[: leading(~own)])


async def _copy_on_write(vma: Vma, first: int, ptes: Ptes) -> None:
    mm, context = vma.mm, vma.mm.context
    # Memory first: nobody waits for it in a transit. The pages may have gone for it, or changed by
    # another fault or a truncation; what is as it was is held before anything sleeps again.
    copies = await allocate_up_to(context, len(ptes))
    ptes = ptes[: len(copies)]
    new = _adopt(vma, first, copies)
    try:
        async with Transit(context) as transit:
            await transit.start(mm, first << PAGE_SHIFT, (first + len(ptes)) << PAGE_SHIFT)
            same = leading(mm.page_table.read_range(first, len(ptes)) == ptes)
            with mm.page_table_lock:
                transit.hold(mm, numbers(first, same), ptes[:same])
            await transit.sync()
            # A frame that went bad while we slept stays with who has it: its entry is restored.
            source = _readable(vma, first, pte.frame_field(ptes[:same]) & pte.LOCAL_MASK)
            context.frames.copy(source, copies[: len(source)])
            broken = transit.settle(
                lambda vpns, old: np.where(vpns - first < len(source), new[vpns - first], old)
            )
    finally:
        context.frames.put(copies)
    context.tracer.emit(Cow(pid=mm.pid, address=first << PAGE_SHIFT, pages=broken))


def _readable(vma: Vma, first: int, frames: Frames) -> Frames:
    """The leading frames behind the pages from `first` on that can be copied. Raises Signalled, the
    machine check of whoever wants the copy, when the first one is poisoned (sources T17)."""
    good = leading(~vma.mm.context.frames.spoilt(frames))
    if good == 0 and len(frames):
        check = MachineCheck(vma.mm.context.frames.base + int(frames[0]))
        info = SignalInfo(Signal.SIGBUS, check.cause, first << PAGE_SHIFT, forced=True)
        raise Signalled(info)
    return frames[:good]


# -- installing -------------------------------------------------------------------------------


def _flags(vma: Vma) -> int:
    uncached = pte.UNCACHED if vma.flags & VmaFlags.UNCACHED else 0
    return pte.PRESENT | pte.ACCESSED | uncached


def _adopt(vma: Vma, first: int, frames: Frames) -> Ptes:
    """Make new frames the anonymous pages of `vma` from `first` on; returns their entries."""
    context = vma.mm.context
    owner = rmap.prepare_anon(vma)
    context.frames.set_owner(frames, owner.id, numbers(vma.index_of(first), len(frames)))
    flags = _flags(vma) | pte.DIRTY | (pte.WRITE if vma.writable else 0)
    return pte.make(frames + context.frames.base, flags)


def _install(vma: Vma, first: int, expected: Ptes, entries: Ptes, kind: str) -> None:
    """Write entries where the old ones are still as expected. Nothing is cleared, so nobody has
    to be told and nothing has to be freed."""
    mm = vma.mm
    with mm.page_table_lock:
        vpns, same = _unchanged(mm, first, expected)
        exchange(mm, Gather(mm.context), vpns, expected[same], entries[same])
    _trace(mm, first, len(vpns), kind)


def _make_writable(vma: Vma, first: int, ptes: Ptes) -> None:
    """Rights grow: entries change, counts do not."""
    mm = vma.mm
    with mm.page_table_lock:
        vpns, same = _unchanged(mm, first, ptes)
        mm.page_table.write(vpns, ptes[same] | np.uint64(pte.WRITE | pte.DIRTY | pte.ACCESSED))
    _trace(mm, first, len(vpns), "reuse")


def _unchanged(mm: AddressSpace, first: int, expected: Ptes) -> tuple[Frames, Mask]:
    vpns = numbers(first, len(expected))
    same = mm.page_table.read_range(first, len(expected)) == expected
    return vpns[same], same


def _trace(mm: AddressSpace, first: int, pages: int, kind: str) -> None:
    mm.context.tracer.emit(
        PageFault(pid=mm.pid, address=first << PAGE_SHIFT, pages=pages, kind=kind)
    )
