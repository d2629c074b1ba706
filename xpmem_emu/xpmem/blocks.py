"""Many blocks for one access or transfer, a few of them under way at a time.

A bulk access that asked for block after block would wait a round trip for each; one that asked
for everything at once would take every slot from everybody else. So a fixed number of threads
takes the blocks in order. Whoever waits can be killed at once; what is under way then ends
without it, because the peer may still carry it out.
"""

import errno
from collections.abc import Awaitable, Callable, Sequence
from itertools import pairwise

from xpmem_emu.errors import KernelError, Signalled
from xpmem_emu.sched import Completion, Scheduler, Wake
from xpmem_emu.xpmem.services import Services

BLOCK = 1 << 20
"""Bytes of one message, unless the image's payload is smaller."""
ABREAST = 4
"""Blocks of one access under way at a time; each still waits for a slot like everybody."""
_WORD = 8

Job = Callable[[], Awaitable[None]]


def cut(services: Services, offset: int, size: int) -> list[tuple[int, int]]:
    """(offset, size) of the blocks of a range. Cuts lie between words, so none is torn."""
    step = max(min(BLOCK, services.image.xpc.payload) // _WORD, 1) * _WORD
    cuts = range((offset // step + 1) * step, offset + size, step)
    bounds = [offset, *cuts, offset + size]
    return [(lo, hi - lo) for lo, hi in pairwise(bounds)]


async def run_abreast(scheduler: Scheduler, name: str, jobs: Sequence[Job]) -> None:
    """Run all `jobs`; when one fails, begin no other, and raise the failure that comes first in
    their order once none is under way. Raises KernelError EINTR when the caller is killed."""
    if len(jobs) == 1:
        await jobs[0]()
        return
    crew = _Crew(scheduler, jobs)
    for number in range(crew.working):
        scheduler.spawn(f"{name}-{number}", crew.work())
    if await crew.done.wait_killable() is Wake.KILLED:
        crew.stopped = True
        raise KernelError(errno.EINTR, "killed while blocks were under way")
    if crew.failures:
        raise crew.failures[min(crew.failures)]


class _Crew:
    """The threads of one call."""

    def __init__(self, scheduler: Scheduler, jobs: Sequence[Job]) -> None:
        self.done: Completion[None] = Completion(scheduler)
        self.failures: dict[int, KernelError | Signalled] = {}
        self.stopped = False
        self.working = min(ABREAST, len(jobs))
        self._jobs = iter(enumerate(jobs))

    async def work(self) -> None:
        """Take jobs until there is none, or no need of more."""
        for number, job in self._jobs:
            try:
                await job()
            except (KernelError, Signalled) as error:
                self.failures[number] = error
            if self.failures or self.stopped:
                break
        self.working -= 1
        if not self.working:
            self.done.complete(None)
