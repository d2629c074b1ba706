"""Raw memory: page-table words and frame counts, read past every method that interprets them."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from xpmem_emu.kernel.kernel import Kernel

_Vector = npt.NDArray[np.int64]
PRESENT, WRITE, UNCACHED, SPECIAL, SWAP, RESIDENT = 0x1, 0x2, 0x10, 0x20, 0x40, 0x1 | 0x80 | 0x100
FRAME_SHIFT, PARTID_SHIFT = 12, 38
_PAGES = 1 << 36
_NOTHING = np.zeros(0, dtype=np.int64)


class Foreign(NamedTuple):
    """Entries of one kernel that map frames it does not own, or imported from itself."""

    homes: _Vector
    frames: _Vector
    vpns: _Vector

    def of(self, home: int) -> "Foreign":
        """Those of one home partition."""
        mine = self.homes == home
        return Foreign(self.homes[mine], self.frames[mine], self.vpns[mine])


def foreign(kernel: Kernel) -> Foreign:
    """All SPECIAL entries of all address spaces."""
    pages, words = [_NOTHING], [_NOTHING]
    for mm in kernel.memory.address_spaces.values():
        vpns, ptes = mm.page_table.entries(0, _PAGES)
        special = (ptes & np.uint64(SPECIAL)) != 0
        if special.any():
            pages.append(vpns[special])
            words.append((ptes[special] >> np.uint64(FRAME_SHIFT)).astype(np.int64))
    gpfns = np.concatenate(words)
    local = np.int64((1 << PARTID_SHIFT) - 1)
    return Foreign(gpfns >> PARTID_SHIFT, gpfns & local, np.concatenate(pages))


def entry(kernel: Kernel, pid: int, vpn: int) -> int | None:
    """The page-table word of a task's page; None when there is no such address space."""
    found = None
    for mm in kernel.memory.address_spaces.values():
        if mm.pid == pid:
            found = mm.page_table.walk(vpn)
    return found


def page_bytes(kernel: Kernel, pid: int, vpn: int) -> bytes | None:
    """What is on a task's page, in memory or on swap; None when nothing is there yet."""
    word = entry(kernel, pid, vpn)
    if not word or word & SPECIAL:
        return None
    if word & RESIDENT:
        frame = word >> FRAME_SHIFT & (1 << PARTID_SHIFT) - 1
        return bytes(kernel.memory.frames.pages[frame])
    return bytes(kernel.memory.swap._pages[word >> FRAME_SHIFT]) if word & SWAP else None


def stored_into(kernel: Kernel, home: int) -> _Vector:
    """The frames of another kernel that some entry of this one lets a task store into."""
    found = [_NOTHING]
    for mm in kernel.memory.address_spaces.values():
        words = mm.page_table.entries(0, _PAGES)[1]
        foreign_writable = np.uint64(SPECIAL | WRITE)
        gpfns = words[(words & foreign_writable) == foreign_writable] >> np.uint64(FRAME_SHIFT)
        numbers = gpfns.astype(np.int64)
        found.append(numbers[numbers >> PARTID_SHIFT == home] & ((1 << PARTID_SHIFT) - 1))
    return np.unique(np.concatenate(found))


def task_frames(kernel: Kernel, pid: int, first: int, count: int) -> set[int]:
    """The frames of this kernel that a task has on `count` pages from page `first` on."""
    found: set[int] = set()
    for mm in kernel.memory.address_spaces.values():
        if mm.pid == pid:
            words = mm.page_table.entries(first, count)[1]
            own = (words & np.uint64(RESIDENT) != 0) & (words & np.uint64(SPECIAL) == 0)
            gpfns = (words[own] >> np.uint64(FRAME_SHIFT)).astype(np.int64)
            found |= set((gpfns & ((1 << PARTID_SHIFT) - 1)).tolist())
    return found


def cached_foreign(kernel: Kernel) -> set[int]:
    """Global numbers of frames to which some SPECIAL entry leads that lets them be cached."""
    return _leading(kernel, SPECIAL | UNCACHED, SPECIAL)


def uncached_frames(kernel: Kernel) -> set[int]:
    """The frames of this kernel that some entry of its own has uncached."""
    local = (1 << PARTID_SHIFT) - 1
    found = _leading(kernel, PRESENT | SPECIAL | UNCACHED, PRESENT | UNCACHED)
    return {gpfn & local for gpfn in found}


def _leading(kernel: Kernel, mask: int, bits: int) -> set[int]:
    """The frames behind the words that have exactly `bits` of `mask`."""
    found: set[int] = set()
    for mm in kernel.memory.address_spaces.values():
        words = mm.page_table.entries(0, _PAGES)[1]
        fit = words[(words & np.uint64(mask)) == np.uint64(bits)]
        found |= set((fit >> np.uint64(FRAME_SHIFT)).tolist())
    return found
