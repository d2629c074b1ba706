"""Secondary MMUs on a bench: each kind on the memory of one task, and what must always hold."""

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from tests.mm.rig import Rig
from xpmem_emu.image import MmuSection, Nanoseconds
from xpmem_emu.mm import AddressSpace
from xpmem_emu.mmu.gru import Gru, GruContext
from xpmem_emu.mmu.guest import Guest
from xpmem_emu.mmu.mirror import Mirror
from xpmem_emu.mmu.secondary import SecondaryMmu
from xpmem_emu.units import PAGE_SHIFT, PAGE_SIZE

T = TypeVar("T")
WALK_NS = 1000
MMU = MmuSection(8, 3, 4, guest_slots=32, shadow_entries=16, walk=Nanoseconds(WALK_NS))
GUEST_BASE = 1 << 30
"""Where the guest has the task's page 0x10000000."""
BASE = 0x1000_0000
PAGES = 32

KINDS: dict[str, Callable[[Rig, AddressSpace], SecondaryMmu]] = {
    "gru": lambda rig, mm: GruContext(mm, Gru(MMU, rig.tracer)),
    "guest": lambda rig, mm: guest(mm),
    "guest with references": lambda rig, mm: guest(mm, references=True),
    "mirror": lambda rig, mm: Mirror(mm, BASE, PAGES * PAGE_SIZE),
}


def guest(mm: AddressSpace, *, references: bool = False) -> Guest:
    """A guest with one slot."""
    made = Guest(mm, references=references)
    made.set_slot(GUEST_BASE, PAGES * PAGE_SIZE, BASE)
    return made


def at(device: SecondaryMmu, page: int) -> int:
    """The device's address of a page of the mapping."""
    return (GUEST_BASE if isinstance(device, Guest) else BASE) + page * PAGE_SIZE


def finish(rig: Rig, work: Coroutine[Any, Any, T]) -> T:
    """Run work that takes time on the device but waits for nobody."""
    outcome = rig.start(work)
    for _ in range(100):
        if outcome.done:
            break
        rig.pass_time(WALK_NS)
    return outcome.value


def backed(device: SecondaryMmu) -> bool:
    """Whether every translation says no more than the page-table entry behind it."""
    for page, word in device.held().items():
        entry = device.mm.page_table.walk(device.user(page << PAGE_SHIFT) >> PAGE_SHIFT)
        if not entry & 1 or entry >> 12 != word >> 12 or word & 2 > entry & 2:
            return False
    return True
