"""get_user_pages for users outside this kernel: find the frames behind a window and pin them.

The exporter's half of an XPMEM fault (sources 1.10, 2.4). Pages are faulted in with write intent
where the area is writable: absent pages are allocated, swapped ones read, copy on write is
broken for the exporter. The touched page must work out; the rest of the window is fault-around,
and a hole or an unusable area there is skipped. A page of mspec is never brought in for others: its
task must have touched it (sources T6, 2.4).
"""

import errno
from dataclasses import dataclass

import numpy as np

from xpmem_emu.errors import KernelError, Signalled
from xpmem_emu.failpoints.points import GUP_PIN
from xpmem_emu.mm import pte
from xpmem_emu.mm.extents import Frames, Mask, Ptes, leading
from xpmem_emu.mm.fault import resolve
from xpmem_emu.mm.mm_types import AddressSpace, Vma
from xpmem_emu.mm.vma_flags import Prot, VmaFlags
from xpmem_emu.units import PAGE_SHIFT

TRIES_MAX = 16
"""How often a page may be taken away again before it is pinned."""


@dataclass(frozen=True, slots=True)
class PinnedRun:
    """Consecutive pages and the local frames behind them. Each frame was pinned once; give it
    back with `page_cache.unpin_pages`."""

    first_vpn: int
    frames: Frames
    uncached: bool
    writable: bool
    """Its owner may store there: copy on write is broken, and a page of a file is dirty."""

    def __contains__(self, vpn: int) -> bool:
        return 0 <= vpn - self.first_vpn < len(self.frames)


async def pin_pages(
    mm: AddressSpace, first_vpn: int, count: int, touched_vpn: int
) -> list[PinnedRun]:
    """Pin what can be pinned of `count` pages from `first_vpn` on, the touched page for certain;
    a `touched_vpn` of -1 means that no page is.

    Raises KernelError when the touched page cannot be pinned, the cause says why: ENOENT (hole;
    itself an attachment), EFAULT (no access, no accountable frames, beyond the end of the file),
    EIO (its frame is poisoned), ENOMEM, EAGAIN (taken away again and again).

        pin_pages                               mprotect, munmap, fork
        | mmap_lock for reading; pins
        | returns: the caller notes the pins    | waits for the mmap_lock
        | and sleeps                            | invalidate: finds them noted
    """
    if mm.context.failpoints.armed:
        await mm.context.failpoints.reach(GUP_PIN)
    async with mm.mmap_lock.read():
        for _ in range(TRIES_MAX):
            guard: list[PinnedRun] = []
            if touched_vpn >= 0:
                await _populate_touched(usable_area(mm, touched_vpn), touched_vpn)
                guard = _pin_present(mm, touched_vpn, 1)  # fault-around must not push it out
            try:
                for vma in _areas(mm, first_vpn, count):
                    await _populate_around(vma, first_vpn, count)
                runs = _pin_present(mm, first_vpn, count)
            finally:
                _unpin(mm, guard)
            if touched_vpn < 0 or any(touched_vpn in run for run in runs):
                return runs
            _unpin(mm, runs)
    raise KernelError(errno.EAGAIN, f"the page was taken away {TRIES_MAX} times")


async def bring_in(mm: AddressSpace, vpn: int) -> None:
    """Make one page present as `pin_pages` does, and good until the caller next awaits. Raises as
    that."""
    _unpin(mm, await pin_pages(mm, vpn, 1, vpn))


# -- which areas ------------------------------------------------------------------------------


def _areas(mm: AddressSpace, first: int, count: int) -> list[Vma]:
    areas = mm.vmas.intersecting(first << PAGE_SHIFT, (first + count) << PAGE_SHIFT)
    return [vma for vma in areas if _refusal(vma) is None]


def usable_area(mm: AddressSpace, vpn: int) -> Vma:
    """The area whose page `vpn` others may be given. Raises KernelError with the cause, ENOENT
    or EFAULT."""
    vma = mm.vmas.find(vpn << PAGE_SHIFT)
    if vma is None:
        raise KernelError(errno.ENOENT, f"nothing is mapped at {vpn << PAGE_SHIFT:#x}")
    refusal = _refusal(vma)
    if refusal is not None:
        raise refusal
    if vpn >= _usable_end(vma):
        assert vma.inode is not None
        raise KernelError(
            errno.EFAULT, f"{vpn << PAGE_SHIFT:#x} is beyond the end of {vma.inode.title}"
        )
    return vma


def _refusal(vma: Vma) -> KernelError | None:
    """Why pages of this area are never pinned."""
    if vma.ops is not None:
        return KernelError(errno.ENOENT, f"area {vma} is itself an attachment")
    if vma.flags & (VmaFlags.PFNMAP | VmaFlags.IO) and not vma.flags & VmaFlags.MSPEC:
        return KernelError(errno.EFAULT, f"area {vma} has no accountable frames")
    if vma.prot == Prot.NONE:
        return KernelError(errno.EFAULT, f"area {vma} forbids all access")
    return None


def _usable_end(vma: Vma) -> int:
    """The first page number at or after which the area has no pages."""
    end = vma.first + vma.pages
    return end if vma.inode is None else min(end, vma.first + vma.inode.pages - vma.pgoff)


# -- making pages present ---------------------------------------------------------------------


async def _populate_touched(vma: Vma, vpn: int) -> None:
    try:
        for _ in range(TRIES_MAX):
            ptes = vma.mm.page_table.read_range(vpn, 1)
            if _ready(vma, ptes)[0]:
                break
            if _is_hole(vma, ptes[0]):
                cause = f"the page of mspec at {vpn << PAGE_SHIFT:#x} is not there"
                raise KernelError(
                    errno.EFAULT, f"{cause}: the task that mapped it must touch it first"
                )
            await resolve(vma, vpn, 1, vma.writable)
    except Signalled as signal:
        number = errno.EIO if signal.info.forced else errno.EFAULT
        raise KernelError(number, signal.info.reason) from None


async def _populate_around(vma: Vma, first: int, count: int) -> None:
    """As much as is there for the asking: nobody waits for a page in transit, or tries again."""
    vpn, end = max(first, vma.first), min(first + count, _usable_end(vma))
    try:
        while vpn < end:
            ptes = vma.mm.page_table.read_range(vpn, end - vpn)
            idle = leading(~pte.has(ptes, pte.BUSY))
            ready = _ready(vma, ptes)
            done = leading(ready)
            if idle and not done and not _is_hole(vma, ptes[0]):
                await resolve(vma, vpn, leading(~ready[:idle]), vma.writable)
                done = leading(_ready(vma, vma.mm.page_table.read_range(vpn, end - vpn)))
            vpn += max(done, 1)
    except Signalled:
        pass
    except KernelError as error:
        if error.errno != errno.ENOMEM:
            raise


def _is_hole(vma: Vma, entry: int) -> bool:
    """Whether nobody but the task itself may fill the page."""
    return bool(vma.flags & VmaFlags.MSPEC) and not entry


def _ready(vma: Vma, ptes: Ptes) -> Mask:
    """Which entries can be pinned as they are."""
    need = np.uint64(pte.PRESENT | pte.WRITE if vma.writable else pte.PRESENT)
    ready: Mask = (ptes & need) == need
    return ready


# -- pinning ----------------------------------------------------------------------------------


def _pin_present(mm: AddressSpace, first: int, count: int) -> list[PinnedRun]:
    """Pin every page of the window that is fit now. Atomic: reclaim, which needs no mmap_lock,
    comes before, and the page is not fit, or after, and finds the pin."""
    found: list[PinnedRun] = []
    for vma in _areas(mm, first, count):
        start = max(first, vma.first)
        length = min(first + count, vma.first + vma.pages) - start
        ptes = mm.page_table.read_range(start, length)
        fit = _ready(vma, ptes)
        at = 0
        while at < length:
            taken = leading(fit[at:])
            if taken:
                frames = pte.frame_field(ptes[at : at + taken]) & pte.LOCAL_MASK
                mm.context.frames.pin(frames)
                uncached = bool(vma.flags & VmaFlags.UNCACHED)
                found.append(PinnedRun(start + at, frames, uncached, vma.writable))
            at += max(taken, 1)
    return found


def _unpin(mm: AddressSpace, runs: list[PinnedRun]) -> None:
    for run in runs:
        mm.context.frames.unpin(run.frames)
