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
| is BUSY | somebody moves pages in: a page that nobody moves is waited for for ever |
"""

from typing import TYPE_CHECKING

import numpy as np

from xpmem_emu.errors import KernelBug
from xpmem_emu.mm import pte
from xpmem_emu.mm.extents import Frames, Ptes
from xpmem_emu.mm.inode import Inode
from xpmem_emu.mm.vma import Prot, Vma
from xpmem_emu.units import PAGE_MASK, PAGE_SHIFT, TASK_SIZE

if TYPE_CHECKING:
    from xpmem_emu.mm.address_space import AddressSpace
    from xpmem_emu.mm.manager import MemoryManager


def check_areas(manager: "MemoryManager") -> None:
    """Raises KernelBug with the first difference."""
    listed: dict[Vma, None] = {}
    for number, mm in manager.address_spaces.items():
        _require(number == mm.number, f"address space {mm.number} is listed as {number}")
        _require(not mm.page_table_lock.locked, f"{mm.pid}'s page_table_lock is held asleep")
        _check_list(mm)
        listed |= dict.fromkeys(mm.vmas)
        inside = 0
        for vma in mm.vmas:
            vpns, ptes = mm.page_table.entries(vma.first, vma.pages)
            inside += len(vpns)
            _check_entries(vma, vpns, ptes)
        entries = len(mm.page_table.entries(0, TASK_SIZE >> PAGE_SHIFT)[0])
        _require(entries == inside, f"{entries} entries of {mm.pid}, {inside} of them in areas")
    _check_owners(manager, listed)


def _check_list(mm: "AddressSpace") -> None:
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
    if not vma.mm.manager.operations:
        _none(vma, vpns, pte.has(ptes, pte.BUSY), "is in transit, and nobody moves anything")
    if vma.prot == Prot.NONE:
        _none(vma, vpns, pte.has(ptes, pte.PRESENT), "is present where no access is allowed")
    frames = vma.mm.manager.frames
    held = pte.frame_field(ptes[counted]) & pte.LOCAL_MASK
    owners = [owner.id for owner in (vma.anon_vma, vma.inode) if owner is not None]
    _none(vma, vpns[counted], ~np.isin(frames.owner[held], owners), "is not found by its frame")
    wanted = vpns[counted] - vma.first + vma.pgoff
    _none(vma, vpns[counted], frames.index[held] != wanted, "is found elsewhere by its frame")
    if vma.inode is not None:
        stored = pte.has(ptes[counted], pte.WRITE) & (frames.owner[held] == vma.inode.id)
        clean = stored & ~vma.inode.dirty[np.where(stored, wanted, 0)] if stored.any() else stored
        _none(vma, vpns[counted], clean, f"may be stored to: {vma.inode.title} is clean there")


def _check_owners(manager: "MemoryManager", listed: dict[Vma, None]) -> None:
    """Owners list exactly the areas that name them."""
    for number, owner in manager.rmap.owners.items():
        _require(number == owner.id, f"owner {owner.id} is listed as {number}")
        _require(not owner.lock.locked, f"the lock of owner {number} is held asleep")
        for vma in owner.vmas:
            _require(vma in listed, f"owner {number} lists area {vma}, which is in no list")
            _require(owner in (vma.anon_vma, vma.inode), f"owner {number} lists {vma} of another")
        alive = bool(owner.vmas) or (isinstance(owner, Inode) and owner.linked)
        _require(alive or _held(manager), f"owner {number} is kept by nothing")
    for vma in listed:
        for named in (vma.anon_vma, vma.inode):
            if named is not None:
                known = manager.rmap.owners.get(named.id) is named and vma in named.vmas
                _require(known, f"area {vma} is not in the list of its owner {named.id}")


def _held(manager: "MemoryManager") -> bool:
    """Whether a call may be between making an owner and giving it an area."""
    return manager.operations > 0


def _none(vma: Vma, vpns: Frames, wrong: "np.typing.NDArray[np.bool_]", what: str) -> None:
    if wrong.any():
        raise KernelBug(
            f"audit: {int(wrong.sum())} entries of {vma}, the first at "
            f"{int(vpns[np.argmax(wrong)]) << PAGE_SHIFT:#x}: it {what}"
        )


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise KernelBug(f"audit: {what}")
