"""L7: whether a wake-up was forgotten.

A step ends when all threads of a kernel sleep. Whoever sleeps then on a queue must have something
to wait for: a fault in flight or pages being given back, a recall, pages being pinned, a fork, a
place among the faults in flight, a permit or group that is being torn down, a fence that is at
work, a page in transit, the holder of a lock. That a deadline would end the wait is no excuse. And
no thread that was killed sleeps on where it may be killed, nor past its time.
"""

from collections.abc import Iterator

from xpmem_emu.judge.checkers.base import Checker
from xpmem_emu.judge.invariants import Invariant
from xpmem_emu.judge.scene import Scene
from xpmem_emu.kernel.kernel import Kernel
from xpmem_emu.kernel.tasks import TaskState
from xpmem_emu.mm import pte
from xpmem_emu.mm.mm_types import AddressSpace
from xpmem_emu.units import PAGE_SHIFT, TASK_SIZE
from xpmem_emu.xpmem.objects import ThreadGroup

_DRAINS = frozenset({"both_closing", "peer_closed", "draining"})
"""States of a channel in which it waits for threads."""
_FENCE = "xpmem_fence/"
"""Threads that move pages; between two attempts of one, pages may go by themselves."""


class Waits(Checker):
    """Looks at every queue of the partition that made the step."""

    judges = (Invariant.L7,)
    looks_at = (
        "after each step the queues of a kernel against what is waited for there; locks that "
        "somebody could have; threads that were killed, should have been or are past their time; "
        "channels that close with nothing running"
    )

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self._said: set[tuple[int, str]] = set()

    def crashed(self, partid: int) -> None:
        """Nobody waits there any more."""
        self._said = {each for each in self._said if each[0] != partid}

    def stepped(self, partid: int) -> None:
        """Whether anybody was forgotten."""
        kernel = self.scene.kernels.get(partid)
        if kernel is None or kernel.stopped is not None:
            return
        for what in _forgotten(kernel):
            if (partid, what) not in self._said:
                self._said.add((partid, what))
                self.report(Invariant.L7, partid, what)


def _forgotten(kernel: Kernel) -> Iterator[str]:
    """What somebody waits for that is there, or was forgotten."""
    yield from _importing(kernel)
    yield from _exporting(kernel)
    yield from _memory(kernel)
    yield from _calls(kernel)
    yield from _channels(kernel)
    scheduler = kernel.scheduler
    for thread in scheduler.threads:
        if thread.killed and thread.parked and thread._killable:
            yield f"thread {thread.name} was killed and sleeps on"
        timer = thread._timer
        if thread.parked and timer is not None and timer.deadline_ns < scheduler.now_ns:
            yield f"thread {thread.name} sleeps past its deadline"


def _importing(kernel: Kernel) -> Iterator[str]:
    faults, most = kernel.xpmem.faults, kernel.image.limits.inflight_faults
    imports = kernel.xpmem.imports.all()
    under_way = sum(len(imported.inflight) for imported in imports)
    if len(faults._place) and under_way < most:
        yield f"a fault waits for a place, with {under_way} of {most} taken"
    for imported in imports:
        if len(imported.changed) and not (imported.inflight or imported.evictions):
            yield f"somebody waits for segment {imported.segid:#x}, of which nothing is under way"


def _exporting(kernel: Kernel) -> Iterator[str]:
    for segment in kernel.xpmem.exporter.segments.values():
        busy = segment.recalls or segment.requests or segment.group.fork_depth
        if len(segment.changed) and not busy:
            yield f"somebody waits for segment {segment.segid:#x}, which nothing happens to"
    for group in kernel.xpmem.device._notifiers:
        if len(group.changed) and not _ending(group):
            yield f"somebody waits for an end in group {group.tgid}, where nothing ends"
    fences = any(each.name.startswith(_FENCE) for each in kernel.scheduler.threads)
    if len(kernel.xpmem.fence._moved) and not fences:
        yield "somebody waits for a fence, and none is at work"


def _ending(group: ThreadGroup) -> bool:
    if not group.live:
        return bool(group.permits or group.segments)
    return any(not permit.live and permit.attachments for permit in group.permits.values())


def _memory(kernel: Kernel) -> Iterator[str]:
    memory = kernel.memory
    spaces = list(memory.address_spaces.values())
    if len(memory.changed) and not memory.operations and not any(map(_in_transit, spaces)):
        yield "somebody waits for memory, and nothing happens to it"
    for mm in spaces:
        lock = mm.mmap_lock
        if lock._waiters and lock.writer is None and not (lock._waiters[0][1] and lock._readers):
            yield f"somebody waits for the mmap_lock of task {mm.pid}, who could have it"
    mutexes = [inode.mutex for inode in memory.files.inodes.values()]
    for mutex in (memory.direct_reclaim, *mutexes):
        if mutex._waiters and mutex._owner is None:
            yield f"somebody waits for {mutex.name}, which nobody holds"


def _calls(kernel: Kernel) -> Iterator[str]:
    """Who ends a task, or replaces its program, waits for its calls: they have been told."""
    for task in kernel.tasks:
        ending = task.state is not TaskState.RUNNING
        for thread in task.threads:
            if (ending or task.executing) and not (thread.killed or thread is task.executing):
                yield f"task {task.pid} ends its calls, and {thread.name} was not killed"


def _channels(kernel: Kernel) -> Iterator[str]:
    """A channel that closes waits for its threads, and for nothing else of this partition."""
    for peer in kernel.xpc.partitions.values():
        for channel in peer.session.channels if peer.session is not None else ():
            ended = channel.opening is not None and not channel.opening.threads
            if ended and channel.state.value in _DRAINS:
                yield f"a channel to p{peer.partid} is {channel.state.value}, and nobody runs"


def _in_transit(mm: AddressSpace) -> bool:
    return bool(pte.has(mm.page_table.entries(0, TASK_SIZE >> PAGE_SHIFT)[1], pte.BUSY).any())
