"""When the clients of an address space are told that pages of it go: designs of 2008 and after.

A `Gather` has one of these and does not know which. It calls `start` before the page-table lock is
taken, `invalidate` under it, before entries change; `flush` and `sync` once every spinlock is
dropped; frames are freed after that. What a client is told, and in which of them, is the design:

    design      under the lock                     after it
    page        invalidate_pages, page by page
    pages       invalidate_pages, by page table
    deferred    invalidate_range, once a range     invalidate_range_sync
    gather                                         invalidate_range, once for all;
                                                   invalidate_range_sync
    range       before it: invalidate_range_start  invalidate_range_sync
    interval    as range, to those who watch it    the same

They were argued for as page (sources T7, T8), pages (sources T13), deferred (sources T12), gather
(sources T11, T15), range (sources T7, 2.6); interval came later (sources 4.3).

`start` may sleep, but a walk of the reverse map calls it with the lock of an owner of frames held:
whether that is a spinlock decides whether XPMEM can work with the last two (sources T10).

A design that some client cannot work with is still one: what comes of it is seen, not refused. The
one state here is what a gather still owes.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType

from xpmem_emu.errors import KernelBug
from xpmem_emu.image import NotifierDesign
from xpmem_emu.mm.mm_types import AddressSpace
from xpmem_emu.mm.notifier import Notifier
from xpmem_emu.units import PAGE_SHIFT

PAGE_TABLE_PAGES = 512
"""Entries of one page table of x86-64, for which the lock is taken once."""
_Spans = dict[AddressSpace, tuple[int, int]]


class Design(ABC):
    """What one gather does with its clients. `invalidate` is not called when there are none."""

    async def start(self, mm: AddressSpace, start: int, end: int) -> Sequence[Notifier]:
        """[start, end) will change. Whoever was told of it. May sleep."""
        return ()

    @abstractmethod
    def invalidate(self, mm: AddressSpace, start: int, end: int) -> None:
        """[start, end) is about to change. Under mm.page_table_lock; atomic."""

    def flush(self) -> None:  # noqa: B027 - not all have something to do
        """The locks are dropped, and nothing slept since the entries changed. Atomic."""

    async def sync(self) -> None:  # noqa: B027
        """Nobody reaches what was invalidated when this returns. May sleep."""


class Deferred(Design):
    """Begin under the lock, wait after it: the conclusion of 2008, and what is done by default."""

    def __init__(self) -> None:
        self._told: _Spans = {}
        """What a sync is owed for; one that covers all of an address space's ranges is enough."""

    def invalidate(self, mm: AddressSpace, start: int, end: int) -> None:
        """Everybody begins."""
        self._note(mm, start, end)
        mm.notifiers.invalidate_range(start, end)

    async def sync(self) -> None:
        """Wait for everybody."""
        told, self._told = self._told, {}
        for mm, (start, end) in told.items():
            await mm.notifiers.invalidate_range_sync(start, end)

    def _note(self, mm: AddressSpace, start: int, end: int) -> None:
        low, high = self._told.get(mm, (start, end))
        self._told[mm] = min(low, start), max(high, end)


class Gathered(Deferred):
    """As mmu_gather flushes a TLB: entries first, then one call for all of them, then the frames.

    Between the two a client has what no entry says. That is safe as long as nothing sleeps there
    and no frame is freed before the flush.
    """

    def __init__(self) -> None:
        super().__init__()
        self._flushed: list[tuple[AddressSpace, int, int]] = []
        """Who was told, and is to be waited for."""

    def invalidate(self, mm: AddressSpace, start: int, end: int) -> None:
        """Nobody hears of it yet."""
        self._note(mm, start, end)

    def flush(self) -> None:
        """Everybody begins, before anybody sleeps."""
        told, self._told = self._told, {}
        for mm, (start, end) in told.items():
            mm.notifiers.invalidate_range(start, end)
            self._flushed.append((mm, start, end))

    async def sync(self) -> None:
        """Wait for everybody."""
        flushed, self._flushed = self._flushed, []
        for mm, start, end in flushed:
            await mm.notifiers.invalidate_range_sync(start, end)


class PerPage(Design):
    """One call for each page that has an entry, over when it returns: what KVM began with."""

    def invalidate(self, mm: AddressSpace, start: int, end: int) -> None:
        """Nothing is left for later, so no client may have to wait for anything."""
        for low, high in self._pieces(mm, start, end):
            mm.notifiers.invalidate_pages(low, high)

    def _pieces(self, mm: AddressSpace, start: int, end: int) -> Iterator[tuple[int, int]]:
        for vpn in _mapped(mm, start, end):
            yield vpn << PAGE_SHIFT, (vpn + 1) << PAGE_SHIFT


class PerTable(PerPage):
    """One call each time the lock is taken, that is for each page table with an entry in it."""

    def _pieces(self, mm: AddressSpace, start: int, end: int) -> Iterator[tuple[int, int]]:
        size = PAGE_TABLE_PAGES << PAGE_SHIFT
        for table in dict.fromkeys(vpn // PAGE_TABLE_PAGES for vpn in _mapped(mm, start, end)):
            yield max(start, table * size), min(end, (table + 1) * size)


class RangeStartEnd(Design):
    """A pair of calls around the change, as in the patches of 2008 and ever since. From the first
    to the second a client neither has nor learns anything of the range; who subscribes in between
    is told then (`NotifierChain.active`): nobody has to lock the address space for that (sources
    T8)."""

    def __init__(self) -> None:
        self._open: list[tuple[AddressSpace, int, int, list[Notifier]]] = []

    async def start(self, mm: AddressSpace, start: int, end: int) -> Sequence[Notifier]:
        """Wait for each client in turn."""
        told: list[Notifier] = []
        mm.notifiers.active.append((start, end))
        self._open.append((mm, start, end, told))
        for client in self._clients(mm, start, end, told):
            if client in mm.notifiers.registered:
                mm.notifiers.calls += 1
                told.append(client)
                await client.invalidate_range_start(start, end)
        return told

    def invalidate(self, mm: AddressSpace, start: int, end: int) -> None:
        """They know already. KernelBug when they do not."""
        if not any(
            mm is each and low <= start and end <= high for each, low, high, _ in self._open
        ):
            raise KernelBug(f"[{start:#x}, {end:#x}) of task {mm.pid} changes without a start")

    async def sync(self) -> None:
        """The second call of each pair."""
        done, self._open = self._open, []
        for mm, start, end, told in done:
            mm.notifiers.active.remove((start, end))
            for client in self._clients(mm, start, end, told):
                if client in mm.notifiers.registered:
                    mm.notifiers.calls += 1
                    await client.invalidate_range_sync(start, end)

    def _clients(
        self, mm: AddressSpace, start: int, end: int, told: list[Notifier]
    ) -> Sequence[Notifier]:
        return tuple(mm.notifiers.registered)


class Interval(RangeStartEnd):
    """Only clients that watch some of the range hear of it. What they do against a walk that it
    crossed is theirs: each has a sequence and tries again (sources 4.3)."""

    def _clients(
        self, mm: AddressSpace, start: int, end: int, told: list[Notifier]
    ) -> Sequence[Notifier]:
        return [
            each for each in mm.notifiers.registered if each in told or each.watches(start, end)
        ]


def _mapped(mm: AddressSpace, start: int, end: int) -> list[int]:
    """The pages of [start, end) that have an entry."""
    first = start >> PAGE_SHIFT
    vpns: list[int] = mm.page_table.entries(first, (end >> PAGE_SHIFT) - first)[0].tolist()
    return vpns


DESIGNS: Mapping[NotifierDesign, Callable[[], Design]] = MappingProxyType(
    {
        NotifierDesign.PAGE: PerPage,
        NotifierDesign.PAGES: PerTable,
        NotifierDesign.DEFERRED: Deferred,
        NotifierDesign.GATHER: Gathered,
        NotifierDesign.RANGE: RangeStartEnd,
        NotifierDesign.INTERVAL: Interval,
    }
)
