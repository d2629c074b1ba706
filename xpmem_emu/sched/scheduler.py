"""Threads, the run queue and timers of one simulated kernel.

A thread is a coroutine that runs until it parks. There is one simulated processor and no
preemption, so code between two awaits is atomic; what may change across an await is what the
locks are for. Time is whatever the owner says it is (`run(now_ns)`), which makes the same
kernel live and simulated. The `pick` hook lets a simulator choose among the runnable threads.

Parking while holding a spinlock is a KernelBug: "sleeping function called from invalid context".
"""

import heapq
import sys
import types
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from enum import Enum
from typing import Any, Protocol

from xpmem_emu.errors import KernelBug


class Wake(Enum):
    """Why a parked thread runs again."""

    WOKEN = "woken"
    TIMEOUT = "timeout"
    KILLED = "killed"


class Held(Protocol):
    """A lock as the thread that holds it sees it."""

    name: str
    order: int
    atomic: bool


class Timer:
    """One entry of the timer heap; cancelled timers stay until they surface."""

    __slots__ = ("action", "deadline_ns")

    def __init__(self, deadline_ns: int, action: Callable[[], None]) -> None:
        self.deadline_ns = deadline_ns
        self.action: Callable[[], None] | None = action
        """None once it fired or was cancelled."""


class Thread:
    """One kernel thread or one system call in progress. `owner` is the task it runs for."""

    __slots__ = (
        "_coroutine",
        "_killable",
        "_leave",
        "_started",
        "_timer",
        "_wake",
        "held",
        "killed",
        "name",
        "owner",
        "parked",
    )

    def __init__(self, name: str, coroutine: Coroutine[Any, Wake, None], owner: object) -> None:
        self.name = name
        self.owner = owner
        self.held: list[Held] = []
        """Locks, in the order in which they were taken."""
        self.killed = False
        """Never taken back."""
        self.parked = False
        """Asleep, so somebody has to wake it: not while it is runnable."""
        self._coroutine = coroutine
        self._killable = False
        self._started = False
        self._wake: Wake | None = None
        """Why it runs next; None while it sleeps or runs."""
        self._timer: Timer | None = None
        self._leave: Callable[[], None] | None = None
        """Takes it off what it waits on."""

    def __repr__(self) -> str:
        return f"<Thread {self.name}>"


@types.coroutine
def _park() -> Generator[None, Wake, Wake]:
    return (yield)


def here() -> str:
    """The innermost function outside of this package, with its line: who wants to sleep or lock."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals["__name__"].startswith(__package__):
        frame = frame.f_back
    module = frame.f_globals["__name__"].removeprefix("xpmem_emu.")
    return f"{module}.{frame.f_code.co_qualname}, line {frame.f_lineno}"


def in_place(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run from atomic context what may sleep, in the hope that it does not. KernelBug when it does;
    the scheduler says where."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise KernelBug("sleeping function called from invalid context: nothing would wake it")


class Scheduler:
    """Run queue, timers and the current thread of one kernel."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.current: Thread | None = None
        self.pick: Callable[[int], int] | None = None
        """Given how many threads are runnable, which of them runs next (simulator's hook)."""
        self.parking: Callable[[Thread], None] | None = None
        """Told of each thread that is about to park; may kill it (simulator's hook)."""
        self.threads: dict[Thread, None] = {}
        """In the order of their creation."""
        self._runnable: deque[Thread] = deque()
        self._timers: list[tuple[int, int, Timer]] = []
        self._timer_count = 0
        self._cancelled = 0
        self._resting: deque[tuple[int, Thread]] = deque()
        """Who gave up the processor by cond_resched, and when, first come first."""
        self._closing = False

    # -- threads ---------------------------------------------------------------------------

    def spawn(
        self, name: str, coroutine: Coroutine[Any, Any, None], owner: object = None
    ) -> Thread:
        """Make a thread runnable. It ends when the coroutine returns; when the image is gone, as
        for what ends with it, it never begins."""
        thread = Thread(name, coroutine, owner)
        if self._closing:
            coroutine.close()
            return thread
        thread._wake = Wake.WOKEN
        self.threads[thread] = None
        self._runnable.append(thread)
        return thread

    def kill(self, thread: Thread) -> None:
        """Mark `thread` killed: its killable waits, present and future, return Wake.KILLED."""
        thread.killed = True
        if thread.parked and thread._killable:
            self.wake(thread, Wake.KILLED)

    def thread_name(self) -> str:
        """Name of the running thread, `irq` outside of all threads."""
        return self.current.name if self.current else "irq"

    # -- parking ---------------------------------------------------------------------------

    async def park(
        self, until_ns: int | None, leave: Callable[[], None] | None, *, killable: bool
    ) -> Wake:
        """Give up the processor until woken, until `until_ns`, or until killed.

        `leave` takes the thread off whatever it waits on; it runs however the wait ends. Only
        the primitives of this package call park: the rest of the kernel uses them.
        """
        if self._closing:
            raise GeneratorExit
        thread = self.current
        if thread is None:
            raise KernelBug("sleeping function called outside of any thread")
        self.might_sleep()
        if self.parking is not None:
            self.parking(thread)
        # `kill` wakes who is parked. Who was killed before, or by `parking`, would sleep for ever.
        if killable and thread.killed:
            if leave is not None:
                leave()
            return Wake.KILLED
        thread.parked, thread._killable, thread._leave = True, killable, leave
        if until_ns is not None:
            thread._timer = self.call_at(until_ns, lambda: self.wake(thread, Wake.TIMEOUT))
        return await _park()

    def might_sleep(self) -> None:
        """Raise KernelBug when the current thread holds a spinlock (sources T10)."""
        if self.current is not None:
            for lock in self.current.held:
                if lock.atomic:
                    raise KernelBug(
                        f"sleeping function called from invalid context: {self.current.name} "
                        f"holds spinlock {lock.name} in {here()}"
                    )

    def wake(self, thread: Thread, why: Wake = Wake.WOKEN) -> None:
        """Make a parked thread runnable; a thread that is not parked is left alone."""
        if not thread.parked:
            return
        thread.parked = False
        leave, thread._leave = thread._leave, None
        if leave is not None:
            leave()
        timer, thread._timer = thread._timer, None
        if timer is not None:
            self.cancel(timer)
        thread._wake = why
        self._runnable.append(thread)

    async def sleep_until(self, deadline_ns: int) -> Wake:
        """Sleep uninterruptibly until `deadline_ns`."""
        return await self.park(deadline_ns, None, killable=False)

    async def sleep_until_killable(self, deadline_ns: int) -> Wake:
        """Sleep until `deadline_ns` or until the thread is killed."""
        return await self.park(deadline_ns, None, killable=True)

    async def reschedule(self) -> None:
        """Let every other runnable thread go first."""
        thread = self.current
        assert thread is not None
        self.might_sleep()
        # Runnable, so not `parked`: neither a wake nor a kill puts it into the queue once more.
        thread._wake = Wake.WOKEN
        self._runnable.append(thread)
        await _park()

    async def cond_resched(self) -> None:
        """In long work: let all that comes from outside have its turn, and go on in a later idle
        step. Of several that do so one goes on in each: all together would make one long step."""
        thread = self.current
        assert thread is not None
        self.might_sleep()
        self._resting.append((self.now_ns, thread))
        await self.park(None, None, killable=False)

    # -- timers ----------------------------------------------------------------------------

    def call_at(self, deadline_ns: int, action: Callable[[], None]) -> Timer:
        """Run `action` (atomic context) at `deadline_ns`."""
        timer = Timer(deadline_ns, action)
        self._timer_count += 1
        heapq.heappush(self._timers, (deadline_ns, self._timer_count, timer))
        return timer

    def cancel(self, timer: Timer) -> None:
        """Forget a timer's action, harmless when it fired already. The heap is rebuilt when dead
        entries outnumber live ones."""
        if timer.action is None:
            return
        timer.action = None
        self._cancelled += 1
        if self._cancelled > 64 and self._cancelled * 2 > len(self._timers):
            self._timers = [entry for entry in self._timers if entry[2].action is not None]
            heapq.heapify(self._timers)
            self._cancelled = 0

    def next_deadline_ns(self) -> int | None:
        """When the next idle step has something to do, None when nothing is pending."""
        # What rests goes on as soon as time passes; a timer that is due by now was fired already.
        return self.now_ns + 1 if self._resting else self._next_timer_ns()

    def _next_timer_ns(self) -> int | None:
        timers = self._timers
        while timers and timers[0][2].action is None:
            heapq.heappop(timers)
            self._cancelled -= 1
        return timers[0][0] if timers else None

    # -- the loop --------------------------------------------------------------------------

    def run(self, now_ns: int, idle: bool = True) -> None:
        """Fire the timers due at `now_ns`, then run threads until all are parked. When `idle`, as
        nothing came from outside, one of those that rest goes on: who asks waits for none.

        An exception that leaves a thread leaves this method; `current` still names the thread,
        so that the owner can say where the kernel died.
        """
        self.advance(now_ns)
        if idle and self._resting and self._resting[0][0] < self.now_ns:
            self.wake(self._resting.popleft()[1])
        runnable = self._runnable
        while True:
            if self._timers and self._timers[0][0] <= self.now_ns:
                self._fire_timers()
            if not runnable:
                return
            while runnable:
                self._resume(runnable.popleft() if len(runnable) == 1 else self._next())

    def advance(self, now_ns: int) -> None:
        """Set the clock without running anything; it never goes back."""
        if now_ns > self.now_ns:
            self.now_ns = now_ns

    def close(self) -> None:
        """Drop every thread: the image is gone. Locks are released on the way out, but nothing
        sleeps or runs any more, and what goes wrong in a kernel that is dead does not matter."""
        self._closing = True
        for thread in self.threads:
            self.current = thread  # as which it unlocks what it holds
            with suppress(Exception):
                thread._coroutine.close()
        self.threads.clear()
        self._runnable.clear()
        self._resting.clear()
        self._timers.clear()
        self.current = None

    def _fire_timers(self) -> None:
        while (deadline_ns := self._next_timer_ns()) is not None and deadline_ns <= self.now_ns:
            timer = heapq.heappop(self._timers)[2]
            action, timer.action = timer.action, None
            assert action is not None
            action()

    def _next(self) -> Thread:
        if self.pick is None:
            return self._runnable.popleft()
        index = self.pick(len(self._runnable))
        thread = self._runnable[index]
        del self._runnable[index]
        return thread

    def _resume(self, thread: Thread) -> None:
        self.current = thread
        why, thread._wake = thread._wake, None
        try:
            if why is None:
                raise KernelBug(f"thread {thread.name} resumed without a reason")
            if thread._started:
                thread._coroutine.send(why)
            else:
                thread._started = True
                thread._coroutine.send(None)  # type: ignore[arg-type]
        except StopIteration:
            self.threads.pop(thread, None)
            if thread.held:
                names = ", ".join(lock.name for lock in thread.held)
                raise KernelBug(f"thread {thread.name} ended with locks held: {names}") from None
        self.current = None
