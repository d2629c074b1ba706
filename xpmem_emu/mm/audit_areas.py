"""The audit of address spaces: areas, entries and the reverse map against each other.

What must hold of every entry, whenever all threads sleep:

| an entry that | lies in an area that |
|---|---|
| is not 0 | exists |
| is SPECIAL | somebody else provides (ops) |
| holds a frame or a swap slot | nobody else provides |
| is PRESENT | allows access; for stores if WRITE is set, too |
| holds a frame | its owner lists, at the frame's index |
| may be stored to and shows a page of a file | has that page dirty |
| may be stored to and shows any other page | maps it alone: it was copied on write |
| is BUSY | somebody moves pages in: a page that nobody moves is waited for for ever |
"""

import numpy as np

from xpmem_emu.errors import KernelBug
from xpmem_emu.mm import pte
from xpmem_emu.mm.extents import Frames, Mask, Ptes
from xpmem_emu.mm.mm_types import AddressSpace, MemoryContext, Vma
from xpmem_emu.mm.vma_flags import Prot
from xpmem_emu.sched import SpinLock
from xpmem_emu.units import PAGE_MASK, PAGE_SHIFT, TASK_SIZE


def check_areas(context: MemoryContext) -> None:
    """Raises KernelBug with the first difference."""
    listed: dict[Vma, None] = {}
    for number, mm in context.address_spaces.items():
        _require(number == mm.number, f"address space {mm.number} is listed as {number}")
        for lock in (mm.page_table_lock, mm.special_lock):
            _require(not lock.locked, f"{mm.pid}'s {lock.name} is held asleep")
        _check_list(mm)
        listed |= dict.fromkeys(mm.vmas)
        inside = 0
        for vma in mm.vmas:
            vpns, ptes = mm.page_table.entries(vma.first, vma.pages)
            inside += len(vpns)
            _check_entries(vma, vpns, ptes)
        entries = len(mm.page_table.entries(0, TASK_SIZE >> PAGE_SHIFT)[0])
        _require(entries == inside, f"{entries} entries of {mm.pid}, {inside} of them in areas")
    _check_owners(context, listed)


def _check_list(mm: AddressSpace) -> None:
    """Sorted, disjoint, in whole pages, found by address."""
    end = 0
    starts = [vma.start for vma in mm.vmas]
    _require(starts == mm.vmas._starts, f"areas of {mm.pid} start at {starts[:4]}..., not indexed")
    for vma in mm.vmas:
        _require(vma.mm is mm and vma.linked, f"area {vma} is in a list that it is not of")
        _require(end <= vma.start < vma.end <= TASK_SIZE, f"area {vma} begins before {end:#x}")
        _require(not (vma.start | vma.end) & PAGE_MASK, f"area {vma} is not of whole pages")
        end = vma.end


def _check_entries(vma: Vma, vpns: Frames, ptes: Ptes) -> None:
    special, counted = pte.has(ptes, pte.SPECIAL), pte.counted(ptes)
    foreign = special if vma.ops is None else counted | pte.has(ptes, pte.SWAP)
    _none(vma, vpns, foreign, "is of the wrong kind: SPECIAL is for areas with ops, and only there")
    if not vma.writable:
        _none(vma, vpns, pte.has(ptes, pte.WRITE), "may be stored to, its area may not")
    if not vma.mm.context.operations:
        _none(vma, vpns, pte.has(ptes, pte.BUSY), "is in transit, and nobody moves anything")
    if vma.prot == Prot.NONE:
        _none(vma, vpns, pte.has(ptes, pte.PRESENT), "is present where no access is allowed")
    frames = vma.mm.context.frames
    held = pte.frame_field(ptes[counted]) & pte.LOCAL_MASK
    _none(
        vma,
        vpns[counted],
        ~np.isin(frames.owner[held], _owners_of(vma)),
        "is not found by its frame",
    )
    wanted = vpns[counted] - vma.first + vma.pgoff
    _none(vma, vpns[counted], frames.index[held] != wanted, "is found elsewhere by its frame")
    stored = pte.has(ptes[counted], pte.WRITE)
    if vma.inode is not None:
        cached = stored & (frames.owner[held] == vma.inode.id)
        clean = cached & ~vma.inode.dirty[np.where(cached, wanted, 0)] if cached.any() else cached
        _none(vma, vpns[counted], clean, f"may be stored to: {vma.inode.title} is clean there")
        stored &= ~cached
    shared = stored & (frames.mapcount[held] != 1)
    _none(vma, vpns[counted], shared, "may be stored to, and others map its frame")


def _check_owners(context: MemoryContext, listed: dict[Vma, None]) -> None:
    """Owners list exactly the areas that name them."""
    owners, inodes = context.owners, context.files.inodes
    for number, owner in owners.items():
        _require(number == owner.id, f"owner {owner.id} is listed as {number}")
        held = isinstance(owner.lock, SpinLock) and owner.lock.locked
        _require(not held, f"the lock of owner {number} is held asleep")
        for vma in owner.vmas:
            _require(vma in listed, f"owner {number} lists area {vma}, which is in no list")
            _require(number in _owners_of(vma), f"owner {number} lists {vma} of another")
        alive = bool(owner.vmas) or (number in inodes and inodes[number].linked)
        _require(alive, f"owner {number} is kept by nothing")
    for number, inode in inodes.items():
        _require(number == inode.id, f"inode {inode.id} is listed as {number}")
        _require(number in owners, f"inode {number} owns no frames")
    for vma in listed:
        named = vma.anon_vma is None or owners.get(vma.anon_vma.id) is vma.anon_vma
        named &= vma.inode is None or inodes.get(vma.inode.id) is vma.inode
        for number in _owners_of(vma):
            known = named and vma in owners[number].vmas
            _require(known, f"area {vma} is not in the list of its owner {number}")


def _owners_of(vma: Vma) -> list[int]:
    """The numbers of those whose frames an area may show."""
    anon = [] if vma.anon_vma is None else [vma.anon_vma.id]
    return anon if vma.inode is None else [*anon, vma.inode.id]


def _none(vma: Vma, vpns: Frames, wrong: Mask, what: str) -> None:
    if wrong.any():
        raise KernelBug(
            f"audit: {int(wrong.sum())} entries of {vma}, the first at "
            f"{int(vpns[np.argmax(wrong)]) << PAGE_SHIFT:#x}: it {what}"
        )


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise KernelBug(f"audit: {what}")
