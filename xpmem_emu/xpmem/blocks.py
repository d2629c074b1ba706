"""Many blocks for one access or transfer, a few of them under way at a time.

A bulk access that asked for block after block would wait a round trip for each; one that asked
for everything at once would take every slot from everybody else. So a fixed number of threads
takes the blocks in order. Whoever waits can be killed at once; what is under way then ends
without it, because the peer may still carry it out.

A block exists when a thread takes it, not before: a transfer of a terabyte that fails at its
first page costs what one of a page costs.
"""

import errno
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

from xpmem_emu.errors import KernelError, Signalled
from xpmem_emu.sched import Completion, Scheduler, Wake
from xpmem_emu.xpmem.services import Services

BLOCK = 1 << 20
"""Bytes of one message, unless the image's payload is smaller."""
ABREAST = 4
"""Blocks of one access under way at a time; each still waits for a slot like everybody."""
WORD = 8

Job = Callable[[int, int], Awaitable[None]]
"""Carries out the block at an offset, of a size."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """The blocks of a range: (offset, size) of each. Cuts lie between words, so none is torn."""

    offset: int
    size: int
    step: int

    def __len__(self) -> int:
        end = self.offset + self.size
        return -(-end // self.step) - self.offset // self.step

    def __iter__(self) -> Iterator[tuple[int, int]]:
        at, end = self.offset, self.offset + self.size
        while at < end:
            cut = min((at // self.step + 1) * self.step, end)
            yield at, cut - at
            at = cut


def blocks_of(services: Services, offset: int, size: int) -> Blocks:
    """The blocks of a range that is not empty, each as large as a message of the image."""
    step = max(min(BLOCK, services.image.xpc.payload) // WORD, 1) * WORD
    return Blocks(offset, size, step)


async def run_abreast(
    scheduler: Scheduler, name: str, blocks: Blocks, job: Job, abreast: int = ABREAST
) -> None:
    """Do `job` for each of `blocks`, so many at a time; when one fails, begin no other, and raise
    the failure that comes first in their order once none is under way. Raises KernelError EINTR
    when the caller is killed."""
    if len(blocks) == 1:
        await job(blocks.offset, blocks.size)
        return
    crew = _Crew(scheduler, blocks, job, abreast)
    for number in range(crew.working):
        scheduler.spawn(f"{name}-{number}", crew.work())
    if await crew.done.wait_killable() is Wake.KILLED:
        crew.stopped = True
        raise KernelError(errno.EINTR, "killed while blocks were under way")
    if crew.failures:
        raise crew.failures.pop(min(crew.failures))


class _Crew:
    """The threads of one call."""

    def __init__(self, scheduler: Scheduler, blocks: Blocks, job: Job, abreast: int) -> None:
        self.done: Completion[None] = Completion(scheduler)
        self.failures: dict[int, KernelError | Signalled] = {}
        """By the offset of the block."""
        self.stopped = False
        self.working = min(abreast, len(blocks))
        self._blocks = iter(blocks)
        self._job = job
        self._scheduler = scheduler

    async def work(self) -> None:
        """Take blocks until there is none, or no need of more."""
        for offset, size in self._blocks:
            begun_ns = self._scheduler.now_ns
            try:
                await self._job(offset, size)
            except (KernelError, Signalled) as error:
                # Without the frames that it came through: they lead back here, and such a circle
                # would keep the block until somebody collects garbage.
                self.failures[offset] = error.with_traceback(None)
            if self.failures or self.stopped:
                break
            if self._scheduler.now_ns == begun_ns:
                # Between two partitions a block is a message; within one, a copy of terabytes
                # would else be a single step.
                await self._scheduler.cond_resched()
        self.working -= 1
        if not self.working:
            self.done.complete(None)
