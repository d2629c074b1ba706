"""mmu_gather: clear entries, flush everybody, then free. In this order, always (sources T15).

Under the page-table lock the notifiers are told (`invalidate`) and frames are collected while
their entries are cleared. When the `async with` block ends, every spinlock is dropped, so the
sleeping half runs: sync the notifiers, and only then give back the references (sources T11, T12).
Which calls they get, and when, is a `Design` of `designs`; the picture is the default one.

    exporter                                   holder of a page
    lock; invalidate_range; clear entry
    unlock; invalidate_range_sync ------------> drop translation
                                  <------------ acknowledged, reference dropped
    put the frame: it may be free now

A holder that did not answer was given up, and may be about to store into a page that stays in use.
So the block ends, with no reference held any more, by waiting until that holder's way to the page
is cut (`Notifier.invalidate_range_end`). Only then does the caller's operation return.

What a Gather owes is counted in `context.operations`, which is zero when the kernel is quiet.
"""

from types import TracebackType

from xpmem_emu.errors import KernelBug
from xpmem_emu.failpoints.points import GATHER_FREE
from xpmem_emu.mm.designs import DESIGNS
from xpmem_emu.mm.extents import Frames, runs
from xpmem_emu.mm.mm_types import AddressSpace, MemoryContext
from xpmem_emu.mm.notifier import Notifier
from xpmem_emu.units import PAGE_SHIFT


class Gather:
    """One operation's invalidations and frames; `async with Gather(context) as gather:`."""

    def __init__(self, context: MemoryContext) -> None:
        self.context = context
        self._design = DESIGNS[context.image.mm.notifier]()
        self._changed: list[tuple[Notifier, int, int]] = []
        """Who was told of what, and has a right to its end though it left the chain meanwhile."""
        self._frames: list[Frames] = []
        """References that go after the sync."""

    async def __aenter__(self) -> "Gather":
        self.context.operations += 1
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(value, KernelBug):
            return  # this kernel ends here: it may not sleep on the way out, as if all were well
        await self.finish()
        # Before the end, which may be that of a fence: that wants memory, and whoever wants memory
        # waits while there is an operation.
        self.context.operations -= 1
        self.context.changed.wake_all()
        await self._end()

    async def start(self, mm: AddressSpace, start: int, end: int) -> None:
        """[start, end) is going to be invalidated. Holds no page_table_lock; what was looked at
        before may be different when this returns."""
        told = await self._design.start(mm, start, end)
        self._changed += [(client, start, end) for client in told]

    def invalidate(self, mm: AddressSpace, start: int, end: int) -> None:
        """Tell mm's notifiers that [start, end) changes. Under mm.page_table_lock, and before it
        does: what they note and what is changed are one step for whoever else takes the lock."""
        assert mm.page_table_lock.locked
        if mm.notifiers.registered:
            self._changed += [(client, start, end) for client in mm.notifiers.registered]
            self._design.invalidate(mm, start, end)

    def invalidate_pages(self, mm: AddressSpace, vpns: Frames) -> None:
        """As `invalidate`, for the runs of `vpns`."""
        if mm.notifiers.registered:
            for first, count in runs(vpns):
                self.invalidate(mm, first << PAGE_SHIFT, (first + count) << PAGE_SHIFT)

    def collect(self, frames: Frames) -> None:
        """Put one reference to each of `frames` after the sync."""
        if len(frames):
            self._frames.append(frames)

    async def sync(self) -> None:
        """Wait until every notifier is done with what was invalidated so far."""
        self._design.flush()
        await self._design.sync()

    async def finish(self) -> None:
        """Sync, then put the collected frames. The other way round a frame would be somebody else's
        while a holder of the old page still stores into it."""
        self.context.scheduler.might_sleep()  # also when there is nobody to wait for
        await self.sync()
        if self._frames and self.context.failpoints.armed:
            await self.context.failpoints.reach(GATHER_FREE)
        collected, self._frames = self._frames, []
        for frames in collected:
            self.context.frames.put(frames)

    async def _end(self) -> None:
        """Wait until nobody who was given up can reach what the operation left in use. Nothing is
        owed or held any more, because what cuts that way needs the frames idle, and memory."""
        for client, start, end in self._changed:
            await client.invalidate_range_end(start, end)
