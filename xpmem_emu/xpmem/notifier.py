"""Subscribes a thread group to the changes of its address space (sources T7, T12): what is taken
away there is recalled from importers, and what stays is out of reach of those that were given
up."""

from collections.abc import Awaitable, Callable

from xpmem_emu.xpmem.fence import Fence
from xpmem_emu.xpmem.objects import ThreadGroup
from xpmem_emu.xpmem.recall import Recalls, pages_of


class RecallNotifier:
    """The notifier of one thread group."""

    def __init__(
        self,
        recalls: Recalls,
        fence: Fence,
        group: ThreadGroup,
        release: Callable[[], Awaitable[None]],
    ) -> None:
        self._recalls = recalls
        self._fence = fence
        self._group = group
        self._release = release

    def invalidate_range(self, start: int, end: int) -> None:
        """Atomic: begin the recall of every segment that overlaps."""
        for segment in self._group.segments.values():
            if segment.live and (pages := pages_of(segment, start, end)) is not None:
                self._recalls.begin(segment, pages)

    async def invalidate_range_sync(self, start: int, end: int) -> None:
        """May sleep: complete when no partition that we have a session with can reach the range."""
        await self._recalls.settle(self._group, start, end)

    async def invalidate_range_end(self, start: int, end: int) -> None:
        """May sleep: complete when no lost partition can reach what is left of the range."""
        await self._fence.passed(self._group, start, end)

    async def release(self) -> None:
        """The address space dies: everything that hangs on it goes first."""
        await self._release()
