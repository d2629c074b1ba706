"""Devices with a table of their own, filled by a walk that takes time: what KVM and HMM share.

    a miss                                     who takes the page away
    the sequence is 7
    walk: frame 100
                                               invalidate_range: sequence 8; nothing to drop yet
                                               frame 100 is freed
    the sequence is not 7: walk again

A walk takes `mmu.walk` of the image: on a real machine other processors run meanwhile, here it is
other threads. How a miss begins and what makes it begin again is each device's own.
"""

from abc import abstractmethod

from xpmem_emu.mm.extents import Ptes
from xpmem_emu.mm.mm_types import AddressSpace
from xpmem_emu.mm.pte import UNCACHED
from xpmem_emu.mmu import events
from xpmem_emu.mmu.secondary import SecondaryMmu
from xpmem_emu.units import PAGE_SHIFT, TASK_SIZE


class ShadowMmu(SecondaryMmu):
    """Translations by page of the device's own addresses, and how often some were invalidated."""

    def __init__(self, mm: AddressSpace) -> None:
        super().__init__(mm)
        self.sequence = 0
        self._entries: dict[int, int] = {}
        """Page -> page-table word; the oldest first."""

    def translation(self, page: int) -> int:
        """As the table has it."""
        return self._entries.get(page, 0)

    def held(self) -> dict[int, int]:
        """The table."""
        return dict(self._entries)

    def drop(self, start: int, end: int) -> int:
        """Also makes every walk that is under way begin again."""
        self.sequence += 1
        hit = [page for page in self._entries if start <= self.user(page << PAGE_SHIFT) < end]
        for page in hit:
            self._forget(page)
        return len(hit)

    def close(self) -> None:
        """The table goes, and with it what it held."""
        self.drop(0, TASK_SIZE)
        super().close()

    async def fault(self, page: int, write: bool) -> None:
        """Walk, and install what is found if nothing happened meanwhile."""
        address = self.user(page << PAGE_SHIFT)
        sequence = await self.read_begin(address)
        await self.walk(address, write)
        words = self.window(address)
        clock = self.mm.context.scheduler
        await clock.sleep_until(clock.now_ns + self.mm.context.image.mmu.walk)
        if not self.open:
            return
        if self.read_retry(address, sequence):
            self.retries += 1
            self.mm.context.tracer.emit(
                events.MmuRetry(device=self.kind, pid=self.mm.pid, address=address)
            )
            return
        for place, word in enumerate(words.tolist(), page):
            if not word & UNCACHED:
                self._install(place, word)
        self.installed(address, len(words))

    @abstractmethod
    async def read_begin(self, address: int) -> int:
        """The sequence before a walk for `address`."""

    @abstractmethod
    def read_retry(self, address: int, sequence: int) -> bool:
        """Whether something that the walk may have seen changed since."""

    def window(self, address: int) -> Ptes:
        """The words that one walk brings, from `address` on; the first is there."""
        return self.mm.page_table.read_range(address >> PAGE_SHIFT, 1)

    def _install(self, page: int, word: int) -> None:
        if page in self._entries:  # without the right to store, or of another miss
            self._forget(page)
        if len(self._entries) == self.mm.context.image.mmu.shadow_entries:
            self._forget(next(iter(self._entries)))
        self._entries[page] = word

    def _forget(self, page: int) -> None:
        del self._entries[page]
