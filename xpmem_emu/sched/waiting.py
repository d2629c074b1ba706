"""Wait queues and completions: how a thread waits for a condition.

A `WaitQueue` wakes in first-in first-out order. A `Completion` is a one-shot value. A
`RemoteAnswer` is a completion that another partition must fill in: waiting for it without a
deadline is a KernelBug, because that partition may be dead (sources T19).
"""

from collections.abc import Callable
from functools import partial
from typing import ClassVar, Generic, TypeVar

from xpmem_emu.errors import KernelBug
from xpmem_emu.sched.scheduler import Scheduler, Thread, Wake

_T = TypeVar("_T")


class WaitQueue:
    """Threads waiting for something to change. Waiters re-check their condition when woken."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._waiters: dict[Thread, None] = {}

    def __len__(self) -> int:
        return len(self._waiters)

    async def wait(self, until: int | None = None) -> Wake:
        """Sleep, uninterruptibly, until woken or until `until` (absolute nanoseconds)."""
        return await self._scheduler.park(until, self._join(), killable=False)

    async def wait_killable(self, until: int | None = None) -> Wake:
        """Like wait, but a fatal signal ends it with Wake.KILLED."""
        return await self._scheduler.park(until, self._join(), killable=True)

    def wake_all(self) -> None:
        """Wake every waiter, in the order in which they came. There is no waking of one alone: it
        may need no more what it waited for, and would tell nobody."""
        for thread in list(self._waiters):  # a copy: each leaves the queue as it is woken
            self._scheduler.wake(thread)

    def _join(self) -> Callable[[], None]:
        thread = self._scheduler.current
        if thread is None:
            raise KernelBug("waiting outside of any thread")
        self._scheduler.might_sleep()
        self._waiters[thread] = None
        return partial(self._waiters.pop, thread, None)


class Completion(Generic[_T]):
    """A value that becomes known once. Any number of threads may wait for it."""

    deadline_needed: ClassVar[bool] = False

    def __init__(self, scheduler: Scheduler) -> None:
        self._queue = WaitQueue(scheduler)
        self._value: _T | None = None
        self.done = False

    def complete(self, value: _T) -> None:
        """Set the value and wake all waiters. The first call wins; later ones are ignored."""
        if not self.done:
            self.done = True
            self._value = value
            self._queue.wake_all()

    @property
    def value(self) -> _T:
        """The value. KernelBug when it is not known yet."""
        if not self.done:
            raise KernelBug("completion read before it was completed")
        return self._value  # type: ignore[return-value]

    async def wait(self, until: int | None = None) -> Wake:
        """Sleep until completed (Wake.WOKEN) or until the deadline (Wake.TIMEOUT)."""
        if until is None and self.deadline_needed:
            raise KernelBug("waiting for a remote answer with no deadline")
        while not self.done:
            if await self._queue.wait(until) is Wake.TIMEOUT:
                # Completed between the deadline and our turn: what is there is not refused.
                return Wake.WOKEN if self.done else Wake.TIMEOUT
        return Wake.WOKEN

    async def wait_killable(self, until: int | None = None) -> Wake:
        """Like wait, but a fatal signal ends it with Wake.KILLED."""
        if until is None and self.deadline_needed:
            raise KernelBug("waiting for a remote answer with no deadline")
        while not self.done:
            why = await self._queue.wait_killable(until)
            if why is not Wake.WOKEN:
                return Wake.WOKEN if self.done else why
        return Wake.WOKEN


class RemoteAnswer(Completion[_T]):
    """A completion that a peer must fill in. Every wait for it needs a deadline."""

    deadline_needed = True
