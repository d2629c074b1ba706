"""KVM: the shadow page tables of a virtual machine (sources T14, 4.2).

The guest has physical addresses of its own; slots say which of the task's addresses they are. It
subscribes once, when the machine starts. A miss walks first and looks then: when some page of a
slot was invalidated since, or the page itself still is, what was found is thrown away and the guest
touches the page again.

It may hold a reference to each page that it shadows, as KVM did before there were notifiers. They
go with the translation, so nobody has to wait for them (sources T12).
"""

import errno
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from xpmem_emu.errors import KernelError
from xpmem_emu.mm.extents import Frames
from xpmem_emu.mm.mm_types import AddressSpace
from xpmem_emu.mm.pte import LOCAL_MASK, SPECIAL, frame_field
from xpmem_emu.mm.ranges import aligned_range
from xpmem_emu.mmu.shadow import ShadowMmu
from xpmem_emu.units import PAGE_SIZE

GUEST_END = 1 << 52
"""Guest-physical addresses are below."""


@dataclass(frozen=True, slots=True)
class Slot:
    """Guest-physical bytes [start, end) are the task's from `address` on."""

    start: int
    end: int
    address: int


class Guest(ShadowMmu):
    """The virtual machine of a task."""

    kind: ClassVar[str] = "guest"

    def __init__(self, mm: AddressSpace, *, references: bool) -> None:
        """Raises KernelError ESRCH, EEXIST."""
        super().__init__(mm)
        self.references = references
        self.slots: list[Slot] = []
        self.subscribe()

    def set_slot(self, start: int, length: int, address: int) -> None:
        """Give the guest memory at a guest-physical address; whole pages. With length 0 the slot
        that begins there goes. Raises KernelError EINVAL, EEXIST, ENOENT, ENOSPC."""
        old = next((slot for slot in self.slots if slot.start == start), None)
        if length == 0:
            if old is None:
                raise KernelError(errno.ENOENT, f"no slot begins at guest address {start:#x}")
            self.drop(old.address, old.address + old.end - old.start)  # as long as it says where
            self.slots.remove(old)
            return
        low, high = aligned_range(address, length, errno.EINVAL)
        end = start + high - low
        if start % PAGE_SIZE or end > GUEST_END:
            raise KernelError(
                errno.EINVAL, f"guest addresses {start:#x} to {end:#x}", "whole pages below 2^52"
            )
        if any(slot.start < end and start < slot.end for slot in self.slots):
            raise KernelError(errno.EEXIST, f"a slot overlaps guest address {start:#x}")
        limit = self.mm.context.image.mmu.guest_slots
        if len(self.slots) >= limit:
            raise KernelError(
                errno.ENOSPC, f"{limit} slots", "remove one, or raise mmu.guest_slots of the image"
            )
        self.slots.append(Slot(start, end, low))
        for span in self.mm.notifiers.active:  # it watched none of that when that began
            self.invalidate_range(*span)

    def user(self, address: int) -> int:
        """Through the slot. EFAULT where there is none: a real guest would have a device there."""
        for slot in self.slots:
            if slot.start <= address < slot.end:
                return slot.address + address - slot.start
        raise KernelError(
            errno.EFAULT,
            f"guest address {address:#x} is in no slot",
            "xpmem-emu device slot HANDLE SIZE GUEST_ADDRESS",
        )

    def about(self) -> str:
        """How much memory it has."""
        size = sum(slot.end - slot.start for slot in self.slots)
        return f"{size:#x} bytes in {len(self.slots)} slots" + ", references" * self.references

    def watches(self, start: int, end: int) -> bool:
        """What is in no slot is not the guest's."""
        return any(
            start < slot.address + slot.end - slot.start and slot.address < end
            for slot in self.slots
        )

    async def read_begin(self, address: int) -> int:
        """At once, whatever is being invalidated."""
        return self.sequence

    def read_retry(self, address: int, sequence: int) -> bool:
        """By the sequence, or by what began before the walk and is not over."""
        return self.sequence != sequence or self.active(address, address + 1)

    def _install(self, page: int, word: int) -> None:
        super()._install(page, word)
        if self._refers(word):
            self.mm.context.frames.shadow(_frames(word))

    def _forget(self, page: int) -> None:
        word = self._entries[page]
        super()._forget(page)
        if self._refers(word):
            self.mm.context.frames.unshadow(_frames(word))

    def referred(self) -> Frames:
        """The frames that it holds references to, each as often as it does."""
        return _frames(*filter(self._refers, self._entries.values()))

    def _refers(self, word: int) -> bool:
        """No reference can be had to a page of another kernel."""
        return self.references and not word & SPECIAL


def _frames(*words: int) -> Frames:
    return frame_field(np.array(words, dtype=np.uint64)) & LOCAL_MASK
