"""S1, for secondary MMUs: what a device has is what the page table says.

At the end of every step, for every device of the kernel that ran: each of its translations leads to
the frame that the task's page-table entry leads to, and lets nobody store whom that does not. So
when an importer has acknowledged a recall, no device of its tasks reaches the page: their entries
are gone, and with them what was learned from them. Of a GRU those translations count whose number
a context has now.

And by the stream: nothing is installed for a page while the device knows that it is being
invalidated.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator

from xpmem_emu.judge.checkers.base import Checker
from xpmem_emu.judge.checkers.raw import FRAME_SHIFT, PRESENT, WRITE
from xpmem_emu.judge.invariants import Invariant
from xpmem_emu.judge.scene import EventHandlers, Scene
from xpmem_emu.kernel.events import KernelBoot
from xpmem_emu.kernel.kernel import Kernel
from xpmem_emu.mm.mm_types import AddressSpace
from xpmem_emu.mmu import events
from xpmem_emu.mmu.gru import GruContext
from xpmem_emu.mmu.guest import Guest
from xpmem_emu.mmu.shadow import ShadowMmu
from xpmem_emu.units import PAGE_SHIFT, PAGE_SIZE

_Device = tuple[int, int, str]
"""(partition, task, kind)."""


class Translations(Checker):
    """Compares the tables of devices with page tables."""

    judges = (Invariant.S1,)
    looks_at = (
        "translations of GRU, guests and mirrors against page-table words, after each step; "
        "installs against ranges that are being invalidated"
    )

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self._attached: Counter[int] = Counter()
        """By partition."""
        self._active: dict[_Device, list[tuple[int, int]]] = defaultdict(list)

    def handlers(self) -> EventHandlers:
        """What devices say of themselves."""
        return {
            KernelBoot: self._booted,
            events.MmuAttach: self._attach,
            events.MmuDetach: self._detach,
            events.MmuInvalidate: self._invalidated,
            events.MmuSettle: self._settled,
            events.MmuInstall: self._installed,
        }

    def _booted(self, partid: int, event: KernelBoot) -> None:
        self._attached[partid] = 0
        for device in [device for device in self._active if device[0] == partid]:
            del self._active[device]

    def _attach(self, partid: int, event: events.MmuAttach) -> None:
        self._attached[partid] += 1

    def _detach(self, partid: int, event: events.MmuDetach) -> None:
        self._attached[partid] -= 1
        self._active.pop((partid, event.pid, event.device), None)

    def _invalidated(self, partid: int, event: events.MmuInvalidate) -> None:
        if event.settles:
            self._active[partid, event.pid, event.device].append((event.start, event.end))

    def _settled(self, partid: int, event: events.MmuSettle) -> None:
        device = partid, event.pid, event.device
        left = []
        for start, end in self._active[device]:
            left += [(start, min(end, event.start)), (max(start, event.end), end)]
        self._active[device] = [(start, end) for start, end in left if start < end]

    def _installed(self, partid: int, event: events.MmuInstall) -> None:
        end = event.address + event.pages * PAGE_SIZE
        if any(
            start < end and event.address < stop
            for start, stop in self._active[partid, event.pid, event.device]
        ):
            self.report(
                Invariant.S1,
                partid,
                f"the {event.device} of task {event.pid} installs {event.address:#x} while it is"
                " being invalidated",
            )

    def stepped(self, partid: int) -> None:
        """Look at every translation."""
        kernel = self.scene.kernels.get(partid)
        if not self._attached[partid] or kernel is None or kernel.stopped is not None:
            return
        for kind, mm, vpn, word in translations_of(kernel):
            entry = mm.page_table.walk(vpn)
            if not entry & PRESENT or entry >> FRAME_SHIFT != word >> FRAME_SHIFT:
                found = f"frame {word >> FRAME_SHIFT:#x}, the page table has entry {entry:#x}"
            elif word & WRITE and not entry & WRITE:
                found = "the right to store, the page table has not"
            else:
                continue
            text = f"the {kind} of task {mm.pid} has for {vpn << PAGE_SHIFT:#x} {found}"
            self.report(Invariant.S1, partid, text)


def translations_of(kernel: Kernel) -> Iterator[tuple[str, AddressSpace, int, int]]:
    """(device, whose memory, page of it, page-table word), read past every method of a device."""
    for mm in kernel.memory.address_spaces.values():
        for device in mm.notifiers.registered:
            if isinstance(device, GruContext):
                for (asid, vpn), word in kernel.gru._entries.items():
                    if asid == device.asid:
                        yield device.kind, mm, vpn, word
            elif isinstance(device, ShadowMmu):
                for page, word in device._entries.items():
                    yield device.kind, mm, _user_page(device, page), word


def _user_page(device: ShadowMmu, page: int) -> int:
    """The task's page for one of the device."""
    if isinstance(device, Guest):
        for slot in device.slots:
            if slot.start <= page << PAGE_SHIFT < slot.end:
                return (slot.address - slot.start >> PAGE_SHIFT) + page
        return -1
    return page
