"""Areas of an address space: entered, cut, merged, removed, counted against the limit.

Atomic, with mmap_lock held for writing; the reverse map, which does not take it, sees each cut and
merge whole.
"""

import errno

from xpmem_emu.errors import KernelError
from xpmem_emu.failpoints.points import MMAP_RESERVE
from xpmem_emu.mm import rmap
from xpmem_emu.mm.entries import settle, zap
from xpmem_emu.mm.gather import Gather
from xpmem_emu.mm.mm_types import AddressSpace, Vma
from xpmem_emu.mm.truncate import destroy_if_unused
from xpmem_emu.units import PAGE_SHIFT


async def settle_areas(mm: AddressSpace, start: int, end: int) -> None:
    """Wait until no entry of [start, end) is in transit and no walk sleeps over areas of `mm`; what
    is then done in one step, nobody sees half."""
    await settle(mm, start, end)
    while await rmap.unwalked(mm):
        await settle(mm, start, end)


def insert_area(vma: Vma) -> None:
    """Enter a new area and merge it with its neighbours where they fit."""
    vma.mm.vmas.insert(vma)
    rmap.link_area(vma)
    merge_areas(vma.mm, vma.start, vma.end)


def cut_area(mm: AddressSpace, address: int) -> None:
    """Make `address` a border between areas."""
    vma = mm.vmas.find(address)
    if vma is None or vma.start == address:
        return
    tail = Vma(
        mm,
        address,
        vma.end,
        vma.prot,
        vma.flags,
        vma.index_of(address >> PAGE_SHIFT),
        vma.inode,
        vma.ops,
        vma.anon_vma,
    )
    vma.end = address
    mm.vmas.insert(tail)
    rmap.link_area(tail)
    if vma.ops is not None:
        vma.ops.split(vma, tail)


def merge_areas(mm: AddressSpace, start: int, end: int) -> None:
    """Merge the areas in and next to [start, end) where one continues the other."""
    left: Vma | None = None
    for vma in mm.vmas.intersecting(start - 1, end + 1):
        if left is None or not vma.continues(left):
            left = vma
            continue
        mm.vmas.remove(vma)
        left.end = vma.end
        if left.anon_vma is None and vma.anon_vma is not None:
            rmap.link_anon(left, vma.anon_vma)
        rmap.unlink_area(vma)


def remove_areas(mm: AddressSpace, gather: Gather, start: int, end: int) -> None:
    """Take [start, end) out of the list; its entries are cleared already."""
    cut_area(mm, start)
    cut_area(mm, end)
    for vma in mm.vmas.intersecting(start, end):
        mm.vmas.remove(vma)
        rmap.unlink_area(vma)
        if vma.inode is not None:
            destroy_if_unused(gather, vma.inode)


def unmap_range(mm: AddressSpace, gather: Gather, start: int, end: int, why: str) -> None:
    """Clear the entries of [start, end) and remove its areas. Nothing mapped is fine."""
    assert mm.mmap_lock.writer is mm.context.scheduler.current
    areas = mm.vmas.intersecting(start, end)
    if not areas:
        return
    # Entries before areas: the reverse map finds an entry by its area only.
    zap(mm, gather, max(start, areas[0].start), min(end, areas[-1].end), why)
    for vma in areas:
        if vma.ops is not None:
            vma.ops.unmapped(vma, max(start, vma.start), min(end, vma.end))
    remove_areas(mm, gather, start, end)


def reserve_areas(mm: AddressSpace, extra: int) -> None:
    """Raise ENOMEM when `extra` more areas might exceed the image's limit."""
    if extra and mm.context.failpoints.armed:
        mm.context.failpoints.check(MMAP_RESERVE)
    limit = mm.context.image.limits.vmas_per_task
    if len(mm.vmas) + extra > limit:
        raise KernelError(
            errno.ENOMEM,
            f"task {mm.pid} has {len(mm.vmas)} of {limit} areas",
            "unmap something, or raise limits.vmas_per_task of the image",
        )


def count_cuts(mm: AddressSpace, start: int, end: int) -> int:
    """How many areas making [start, end) stand alone would add."""
    return sum(
        (vma := mm.vmas.find(border)) is not None and vma.start < border for border in (start, end)
    )
