"""MMU notifiers: who else must know before a page of this address space goes away (sources T7,
T12).

The deferred form of the source thread; how others call is in `designs`. `invalidate_range` is
called under the page-table lock, in the critical section that clears or weakens the entries and
before it does; it may only start the work. `invalidate_range_sync` is called with no spinlock
held (the mmap_lock may be), may sleep, and is complete when it returns: from then on nobody
reaches the old frames, and the references that the client held on them are gone. Only clients that
hold references need it.
`invalidate_range_end` is called last, when the operation holds no reference and owes nothing any
more: a client may wait there for what needs the frames idle. A killed thread does not wait.

A client sees at least one sync that covers a range after every invalidate of that range; one
sync may cover several invalidates. It must tolerate a sync of a range it was never told of,
because it may register between the two. Neither call may fail.

Foreign frames, behind SPECIAL entries, are counted at home, whose gather runs the sync; whoever
takes them away here cannot always sleep. `invalidate_special` is atomic and complete when it
returns, under no page-table lock perhaps, and no sync follows (`entries.zap_special`).
"""

from typing import Protocol

from xpmem_emu.errors import KernelBug


class Notifier(Protocol):
    """A client: XPMEM's exporter side, a device that caches or shadows translations."""

    def invalidate_range(self, start: int, end: int) -> None:
        """The entries of [start, end) are about to change. Atomic."""

    def invalidate_special(self, start: int, end: int) -> None:
        """The SPECIAL entries of [start, end) are about to be cleared: forget them. Atomic."""

    def invalidate_pages(self, start: int, end: int) -> None:
        """The entries of [start, end) are about to change, and nothing follows: as
        `invalidate_range` and its sync in one. Atomic, under the page-table lock."""

    def watches(self, start: int, end: int) -> bool:
        """Whether it may know something of [start, end)."""

    async def invalidate_range_start(self, start: int, end: int) -> None:
        """Return when nothing of [start, end) is in use, and learn nothing of it before the sync
        that follows."""

    async def invalidate_range_sync(self, start: int, end: int) -> None:
        """Return when nothing learned from the old entries of [start, end) is in use."""

    async def invalidate_range_end(self, start: int, end: int) -> None:
        """Return when whoever did not let go of the pages of [start, end) cannot reach them."""

    async def release(self) -> None:
        """The address space ends; give up everything. Called once, before pages are freed."""


class NotifierChain:
    """The clients of one address space. `registered` empty costs its user one `if`."""

    __slots__ = ("active", "calls", "registered")

    def __init__(self) -> None:
        self.registered: list[Notifier] = []
        """Guarded by nothing: whoever sleeps over it goes through a copy."""
        self.active: list[tuple[int, int]] = []
        """Ranges between their start and their end, where a design has those."""
        self.calls = 0
        """How often a client was told of an invalidation, or waited for."""

    def register(self, notifier: Notifier) -> None:
        """Add a client, which is told of what is under way. KernelBug when it is there already."""
        if notifier in self.registered:
            raise KernelBug("notifier registered twice")
        self.registered.append(notifier)
        for start, end in self.active:
            notifier.invalidate_range(start, end)

    def unregister(self, notifier: Notifier) -> None:
        """Remove a client, which holds nothing any more. From now on it hears nothing, not even a
        sync already owed; but the end of what it was told of."""
        self.registered.remove(notifier)

    def invalidate_range(self, start: int, end: int) -> None:
        """Tell every client, in the order of registration."""
        for notifier in self.registered:
            self.calls += 1
            notifier.invalidate_range(start, end)

    def invalidate_special(self, start: int, end: int) -> None:
        """Tell every client, in the order of registration."""
        for notifier in self.registered:
            self.calls += 1
            notifier.invalidate_special(start, end)

    def invalidate_pages(self, start: int, end: int) -> None:
        """Tell every client, in the order of registration."""
        for notifier in self.registered:
            self.calls += 1
            notifier.invalidate_pages(start, end)

    async def invalidate_range_sync(self, start: int, end: int) -> None:
        """Wait for every client in turn; one that unregisters meanwhile is skipped: it leaves when
        it holds nothing."""
        for notifier in tuple(self.registered):
            if notifier in self.registered:
                self.calls += 1
                await notifier.invalidate_range_sync(start, end)

    async def release(self) -> None:
        """Release every client; the chain is empty afterwards. Each is looked for anew: it may have
        left by itself while another was released."""
        while self.registered:
            notifier = self.registered[0]
            await notifier.release()
            if notifier in self.registered:
                self.registered.remove(notifier)
