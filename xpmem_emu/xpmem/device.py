"""/dev/xpmem: which processes have xpmem state, from open until close, exec or exit.

A thread group (tg) is made by opening the device and found by tgid; one that is being destroyed
is not found any more. The uid and gid are recorded at open. A process without one gets errno
2004 from make and get, which the library answers by opening the device again: that is all the
fork handling there is (sources 1.1, 1.2).

A group is torn down by whoever comes first: close, exec, exit. Everybody else who wants it gone
waits until it is, and its owner waits for the releases and removes that other calls had begun:
"somebody is at it" is not "it is done".

    close                               exit, exec or another close
    | destroy(group), permits, segments | not live any more: wait for the group
    | a release of a third call: wait   |
    | torn down, unregistered, wake --->| goes on: nothing of the group is left
"""

import errno
from collections.abc import Awaitable, Callable

from xpmem_emu.errors import XPMEM_ERRNO_NOPROC, KernelError
from xpmem_emu.sched import Scheduler, WaitQueue, in_place
from xpmem_emu.units import TASK_SIZE
from xpmem_emu.xpmem.exporter import Exporter
from xpmem_emu.xpmem.fence import Fence
from xpmem_emu.xpmem.importer import Importer
from xpmem_emu.xpmem.objects import ThreadGroup, XpmemTask
from xpmem_emu.xpmem.recall import Recalls, pages_of

PIECES = 64
"""Permits or segments that are torn down before others have their turn: a task may have thousands,
and what is not interrupted keeps the heartbeats of the whole partition waiting."""


class RecallNotifier:
    """Subscribes a group to the changes of its address space (sources T7, T12): what is taken away
    there is recalled from importers, and what stays is out of reach of those that were given up."""

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

    invalidate_special = invalidate_range
    """Of an attachment nothing is ever pinned, so a recall ends where it begins."""

    def invalidate_pages(self, start: int, end: int) -> None:
        """Atomic, and yet complete when it returns, which no driver is that has to ask others: it
        does what it can, and that sleeps if a partition holds any of these pages."""
        self.invalidate_range(start, end)
        in_place(self._recalls.settle(self._group, start, end))

    def watches(self, start: int, end: int) -> bool:
        """Whether a segment overlaps."""
        segments = self._group.segments.values()
        return any(pages_of(segment, start, end) is not None for segment in segments)

    async def invalidate_range_start(self, start: int, end: int) -> None:
        """May sleep: recall and wait. Faults wait from now on (`Segment.invalidated`)."""
        self.invalidate_range(start, end)
        await self._recalls.settle(self._group, start, end)

    async def invalidate_range_sync(self, start: int, end: int) -> None:
        """May sleep: complete when no partition that we have a session with can reach the range."""
        await self._recalls.settle(self._group, start, end)

    async def invalidate_range_end(self, start: int, end: int) -> None:
        """May sleep: complete when no lost partition can reach what is left of the range."""
        await self._fence.passed(self._group, start, end)

    async def release(self) -> None:
        """The address space dies: everything that hangs on it goes first."""
        await self._release()


class Device:
    """The thread groups of this partition."""

    def __init__(
        self,
        scheduler: Scheduler,
        recalls: Recalls,
        fence: Fence,
        exporter: Exporter,
        importer: Importer,
    ) -> None:
        self._scheduler = scheduler
        self._recalls = recalls
        self._fence = fence
        self._exporter = exporter
        self._importer = importer
        self._notifiers: dict[ThreadGroup, RecallNotifier] = {}
        """Of every group that is not torn down."""
        self.groups: dict[int, ThreadGroup] = {}
        """The live ones, by tgid."""

    def open(self, process: XpmemTask) -> None:
        """Give `process` a thread group and subscribe to its address space; idempotent."""
        if process.pid in self.groups:
            return
        assert not process.mm.dead  # exit_mmap would not ask this group to let go
        gid = process.gids[0] if process.gids else 0
        group = ThreadGroup(
            process.pid, process.uid, gid, process.mm, process.last_uniq, WaitQueue(self._scheduler)
        )

        async def release() -> None:
            await self._teardown(group)

        notifier = RecallNotifier(self._recalls, self._fence, group, release)
        process.mm.notifiers.register(notifier)
        self.groups[process.pid] = group
        self._notifiers[group] = notifier

    async def close(self, process: XpmemTask) -> None:
        """Flush: release every permit, then remove every segment. No group: nothing to do; one
        that another call is closing: return when it has."""
        for group in self._groups_of(process):
            await self._torn_down(group)

    def find(self, tgid: int) -> ThreadGroup | None:
        """The live thread group of a tgid."""
        return self.groups.get(tgid)

    def mine(self, process: XpmemTask) -> ThreadGroup:
        """The caller's thread group. Raises KernelError 2004 when it has none."""
        group = self.groups.get(process.pid)
        if group is None:
            raise no_state(process)
        return group

    async def fork_begin(self, process: XpmemTask) -> None:
        """Recall everything of the caller and make importers' faults wait (sources 1.12). What it
        had before it closed the device and opened it again is the caller's as well: those segments
        serve no fault any more, but importers may still hold their pages."""
        group = self._forking(process)
        group.fork_depth += 1  # before the recall: nothing is served any more that it would miss
        for segment in group.segments.values():
            if segment.live:
                self._recalls.begin(segment, (0, segment.pages))
        for segment in list(group.segments.values()):  # a copy: one may be removed in each sleep
            await self._recalls.settle(group, segment.vaddr, segment.vaddr + segment.size)
            await self._fence.passed(group, segment.vaddr, segment.vaddr + segment.size)
        await self._closed(process)

    def fork_end(self, process: XpmemTask) -> None:
        """Let importers fault again."""
        group = self._forking(process)
        if not group.fork_depth:
            raise KernelError(errno.EINVAL, "fork_end without fork_begin")
        group.fork_depth -= 1
        self._wake_faults(group)

    def _wake_faults(self, group: ThreadGroup) -> None:
        """Those that wait because the group forks look whether it still does."""
        for segment in group.segments.values():
            segment.changed.wake_all()

    async def _closed(self, process: XpmemTask) -> None:
        """Wait until what other calls are closing is out of everybody's reach."""
        for group in self._groups_of(process):
            if not group.live:
                await self._torn_down(group)

    def _groups_of(self, process: XpmemTask) -> list[ThreadGroup]:
        """The live one, and those that are being torn down."""
        return [group for group in self._notifiers if group.mm is process.mm]

    async def _torn_down(self, group: ThreadGroup) -> None:
        """The group is gone, and who did not let go of its pages is fenced."""
        await self._teardown(group)
        await self._fence.passed(group, 0, TASK_SIZE)

    def _forking(self, process: XpmemTask) -> ThreadGroup:
        group = self.groups.get(process.pid)
        if group is None:
            raise KernelError(errno.ENOENT, f"process {process.pid} has no xpmem state")
        return group

    async def _teardown(self, group: ThreadGroup) -> None:
        """Permits first, which detaches; then segments, which recalls (sources 1.2). Returns when
        the group is torn down, whoever did it."""
        if not group.live:
            while group in self._notifiers:
                await group.changed.wait()
            return
        # Marked and not found any more in one step, so a second open makes another group.
        group.destroy()
        del self.groups[group.tgid]
        group.fork_depth = 0
        self._wake_faults(group)  # not when its segments go: that may be long after its permits
        for number, permit in enumerate(list(group.permits.values()), 1):
            if permit.live:  # asked now: another call may have begun to release it in a sleep
                await self._importer.release(permit)
            await self._breathe(number)
        for number, segment in enumerate(list(group.segments.values()), 1):
            if segment.live:
                await self._exporter.remove(segment, "its exporter exited")
            await self._breathe(number)
        while group.permits or group.segments:  # what other calls had begun to end
            await group.changed.wait()
        group.torn_down()
        group.mm.notifiers.unregister(self._notifiers.pop(group))
        group.changed.wake_all()

    async def _breathe(self, number: int) -> None:
        """After so many pieces of long work everything else of the partition has its turn."""
        if number % PIECES == 0:
            await self._scheduler.cond_resched()


def no_state(process: XpmemTask) -> KernelError:
    """The refusal of a process without a thread group."""
    return KernelError(
        XPMEM_ERRNO_NOPROC,
        f"process {process.pid} has no xpmem state",
        "open the xpmem device in this process (xpmem_open) and try again",
    )
