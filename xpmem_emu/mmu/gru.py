"""GRU: a TLB outside the processor, one for a whole partition (sources T13, 4.1).

A task that uses it has a context, which names its translations by an ASID. The TLB has few entries;
the oldest goes for a new one. A miss waits while any range of the task's memory is being
invalidated, walks the page table, and drops in what it finds in the same step. It holds no page and
its flush never sleeps. A context that ends leaves its translations behind: nobody has their ASID,
and before one comes again everything is flushed.
"""

import errno
from typing import ClassVar

from xpmem_emu.errors import KernelError
from xpmem_emu.image import MmuSection
from xpmem_emu.mm.mm_types import AddressSpace
from xpmem_emu.mmu import events
from xpmem_emu.mmu.secondary import SecondaryMmu
from xpmem_emu.trace import Tracer
from xpmem_emu.units import PAGE_SHIFT, TASK_SIZE

ASID_FIRST, ASID_STEP = 8, 8
"""Eight regions of an address space have consecutive numbers; here the first stands for all."""


class Gru:
    """The TLB and the ASIDs of one partition."""

    def __init__(self, limits: MmuSection, tracer: Tracer) -> None:
        self._limits = limits
        self._tracer = tracer
        self._entries: dict[tuple[int, int], int] = {}
        """(ASID, page) -> page-table word; the oldest first."""
        self._given = 0
        """ASIDs of this generation that were given out, or passed over."""
        self._kept: set[int] = set()
        """ASIDs that were loaded when this generation began. None is given out in it: its context
        goes on using it, and may end, and leave translations of this generation behind."""
        self.contexts: dict[int, GruContext] = {}
        """By ASID."""
        self.generation = 0

    def load(self, context: "GruContext") -> int:
        """An ASID for a new context. Raises KernelError EBUSY."""
        if len(self.contexts) >= self._limits.gru_contexts:
            raise KernelError(
                errno.EBUSY,
                f"{len(self.contexts)} contexts are loaded, all that the GRU has",
                "detach one, or raise mmu.gru_contexts of the image",
            )
        while (asid := self._next()) in self._kept:
            pass
        self.contexts[asid] = context
        return asid

    def _next(self) -> int:
        if self._given == self._limits.gru_asids:
            self._given = 0
            self.generation += 1
            self._entries.clear()  # of contexts that ended too: their numbers come again
            self._kept = set(self.contexts)
            self._tracer.emit(events.AsidsExhausted(generation=self.generation))
        self._given += 1
        return ASID_FIRST + ASID_STEP * (self._given - 1)

    def unload(self, asid: int) -> None:
        """The context ends."""
        del self.contexts[asid]

    def find(self, asid: int, page: int) -> int:
        """The word of a page, 0 when it is not there."""
        return self._entries.get((asid, page), 0)

    def drop_in(self, asid: int, page: int, word: int) -> None:
        """Install a translation, in place of the oldest when there is no room."""
        self._entries.pop((asid, page), None)
        if len(self._entries) == self._limits.gru_entries:
            del self._entries[next(iter(self._entries))]
        self._entries[asid, page] = word

    def flush(self, asid: int, first: int, end: int) -> int:
        """Drop the translations of pages [first, end); how many there were."""
        hit = [key for key in self._entries if key[0] == asid and first <= key[1] < end]
        for key in hit:
            del self._entries[key]
        return len(hit)

    def held(self, asid: int) -> dict[int, int]:
        """The translations of an ASID: page -> word."""
        return {page: word for (owner, page), word in self._entries.items() if owner == asid}


class GruContext(SecondaryMmu):
    """What one task has of it."""

    kind: ClassVar[str] = "gru"

    def __init__(self, mm: AddressSpace, gru: Gru) -> None:
        """Raises KernelError ESRCH, EEXIST, EBUSY."""
        super().__init__(mm)
        self._gru = gru
        self.asid = gru.load(self)
        self.subscribe()

    def translation(self, page: int) -> int:
        """As the TLB has it."""
        return self._gru.find(self.asid, page)

    async def fault(self, page: int, write: bool) -> None:
        """The driver's part of a miss."""
        await self.settled(0, TASK_SIZE)
        word = await self.walk(page << PAGE_SHIFT, write)
        if self.open and not self.active(0, TASK_SIZE):  # both may have changed in the walk
            self._gru.drop_in(self.asid, page, word)
            self.installed(page << PAGE_SHIFT, 1)

    def drop(self, start: int, end: int) -> int:
        """One flush, however large the range."""
        return self._gru.flush(self.asid, start >> PAGE_SHIFT, end >> PAGE_SHIFT)

    def held(self) -> dict[int, int]:
        """What the TLB has of it."""
        return self._gru.held(self.asid) if self.open else {}

    def about(self) -> str:
        """The number that its translations bear."""
        return f"asid {self.asid:#x} of generation {self._gru.generation}"

    def close(self) -> None:
        """Its translations stay behind, as numbers that nobody has."""
        self._gru.unload(self.asid)
        super().close()
