"""Page-table entries: one 64-bit word, flags in bits 0 to 11, a frame number in bits 12 to 57.

The frame number is global: `partid << 38 | local frame`. Where an image gives partids more than 8
bits they come from the free ones above, up to bit 61. This package treats the high bits as opaque.
An entry is in one of these states, and in no other:

* 0: absent, nothing was ever there or it was given up;
* PRESENT: the processor may use it, for stores when WRITE is set too;
* PROT_NONE: the frame is kept, no access is allowed (mprotect);
* BUSY: the frame is kept while somebody moves its contents; a fault waits (`transit`);
* SWAP: no frame, bits 12 and up name a swap slot.

SPECIAL marks a present entry whose frame this kernel does not account for: a foreign one.
Entries are plain integers and uint64 vectors, because walks are the hot path of everything.
"""

import numpy as np

from xpmem_emu.mm.extents import Frames, Mask, Ptes

PRESENT = 1 << 0
WRITE = 1 << 1
ACCESSED = 1 << 2
DIRTY = 1 << 3
UNCACHED = 1 << 4
SPECIAL = 1 << 5
SWAP = 1 << 6
PROT_NONE = 1 << 7
BUSY = 1 << 8

RESIDENT = PRESENT | PROT_NONE | BUSY
"""Any of these: the entry holds a frame."""

FRAME_SHIFT = 12
FLAGS = (1 << FRAME_SHIFT) - 1
PARTID_SHIFT = 38
LOCAL_MASK = (1 << PARTID_SHIFT) - 1
"""The local part of a global frame number."""

_SHIFT = np.uint64(FRAME_SHIFT)
_NAMES = {
    PRESENT: "present",
    WRITE: "write",
    ACCESSED: "accessed",
    DIRTY: "dirty",
    UNCACHED: "uncached",
    SPECIAL: "special",
    SWAP: "swap",
    PROT_NONE: "prot_none",
    BUSY: "busy",
}


def without(*flags: int) -> int:
    """The 64-bit mask that clears `flags`."""
    mask = (1 << 64) - 1
    for flag in flags:
        mask &= ~flag
    return mask


def make(frames: Frames, flags: int) -> Ptes:
    """Entries for `frames` (global frame numbers or swap slots), all with the same flags."""
    return (frames.astype(np.uint64) << _SHIFT) | np.uint64(flags)


def frame_field(ptes: Ptes) -> Frames:
    """The frame numbers (or swap slots) of entries."""
    return (ptes >> _SHIFT).astype(np.int64)


def has(ptes: Ptes, flags: int) -> Mask:
    """Which entries have any of `flags`."""
    found: Mask = (ptes & np.uint64(flags)) != 0
    return found


def counted(ptes: Ptes) -> Mask:
    """Which entries hold a reference to a frame of this kernel."""
    return has(ptes, RESIDENT) & ~has(ptes, SPECIAL)


def busy(ptes: Ptes) -> Ptes:
    """Resident entries as they look while their frames are in transit."""
    return (ptes & np.uint64(without(PRESENT))) | np.uint64(BUSY)


def settled(ptes: Ptes) -> Ptes:
    """The opposite of `busy`."""
    plain = ptes & np.uint64(without(BUSY))
    return np.where(has(plain, PROT_NONE), plain, plain | np.uint64(PRESENT))


def pte_text(pte: int) -> str:
    """One line for people: `frame 0x12 present write`, `slot 3 swap`, `absent`."""
    if pte == 0:
        return "absent"
    flags = " ".join(name for bit, name in _NAMES.items() if pte & bit)
    number = pte >> FRAME_SHIFT
    return f"slot {number} {flags}" if pte & SWAP else f"frame {number:#x} {flags}"
