"""Spinlocks, mutexes and rw-semaphores, with lock-order checking.

* `SpinLock`: `with lock:`; never contended (one processor, no preemption) unless somebody slept
  while holding it, which the scheduler reports at the moment it happens.
* `Mutex`: `async with lock:`; first come, first served.
* `RwSemaphore`: `async with lock.read():` / `lock.write():`; first come, first served, so a
  waiting writer is not overtaken by new readers.

`LockDep` learns the order in which lock classes nest and reports the first acquisition that
closes a circle, whether or not it would have deadlocked this time. Two locks of one class may
nest only in ascending `order`, as mmap_sems nest by address, lowest first (sources T9).
"""

from collections import deque

from xpmem_emu.errors import KernelBug
from xpmem_emu.sched.scheduler import Held, Scheduler, Thread, here


class LockDep:
    """The observed nesting of lock classes of one kernel: class -> classes taken inside it."""

    def __init__(self) -> None:
        self._inside: dict[str, dict[str, str]] = {}
        """And who did so first, and where."""

    def acquire(self, thread: Thread, lock: Held) -> None:
        """Check that `thread` may take `lock` after what it already holds; remember the order."""
        for held in thread.held:
            if held is lock:
                raise KernelBug(f"recursive locking: {thread.name} already holds {lock.name}")
            if held.name == lock.name:
                if held.order >= lock.order:
                    raise KernelBug(
                        f"lock order: {lock.name} {lock.order:#x} taken inside {held.name} "
                        f"{held.order:#x} by {thread.name} in {here()}; lowest address first"
                    )
                continue
            inside = self._inside.setdefault(held.name, {})
            if lock.name not in inside:
                by = f"by {thread.name} in {here()}"
                if (other := self._way(lock.name, held.name)) is not None:
                    raise KernelBug(
                        f"lock order: {lock.name} taken inside {held.name} {by}; "
                        f"the opposite order was seen before: {other}"
                    )
                inside[lock.name] = by

    def _way(self, start: str, goal: str) -> str | None:
        """How `goal` came to be taken inside `start`, over others perhaps."""
        ways, todo = {start: ""}, [start]
        while todo:
            outer = todo.pop()
            for name, by in self._inside.get(outer, {}).items():
                if name not in ways:
                    ways[name] = f"{ways[outer]}{name} inside {outer} {by}; "
                    todo.append(name)
        return ways[goal].removesuffix("; ") if goal in ways else None


class _Lock:
    """What every lock has: a class name, an order within the class, and who checks it."""

    atomic = False

    def __init__(self, scheduler: Scheduler, lockdep: LockDep, name: str, order: int = 0) -> None:
        self.name = name
        self.order = order
        self._scheduler = scheduler
        self._lockdep = lockdep

    def _me(self) -> Thread:
        thread = self._scheduler.current
        if thread is None:
            raise KernelBug(f"{self.name} taken outside of any thread")
        return thread


class SpinLock(_Lock):
    """Atomic section. May also be taken from interrupt context (no current thread)."""

    atomic = True
    locked = False
    """Whether somebody is inside."""

    def __enter__(self) -> None:
        if self.locked:
            raise KernelBug(f"spinlock {self.name} is held by somebody who slept or took it twice")
        thread = self._scheduler.current
        if thread is not None:
            if thread.held:
                self._lockdep.acquire(thread, self)
            thread.held.append(self)
        self.locked = True

    def __exit__(self, *exc: object) -> None:
        self.locked = False
        thread = self._scheduler.current
        if thread is not None:
            thread.held.remove(self)

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(self, *exc: object) -> None:
        self.__exit__(*exc)

    def read(self) -> "SpinLock":
        """As of a semaphore, for who does not know which it is: nobody else is inside."""
        return self


class Mutex(_Lock):
    """A sleeping lock with one owner."""

    def __init__(self, scheduler: Scheduler, lockdep: LockDep, name: str, order: int = 0) -> None:
        super().__init__(scheduler, lockdep, name, order)
        self._owner: Thread | None = None
        self._waiters: deque[Thread] = deque()

    async def lock(self) -> None:
        """Take the lock, as `async with` does; for who unlocks elsewhere than at the end."""
        me = self._me()
        self._lockdep.acquire(me, self)
        self._scheduler.might_sleep()
        if self._owner is None:
            self._grant(me)
            return
        self._waiters.append(me)
        await self._scheduler.park(None, None, killable=False)

    __aenter__ = lock

    async def __aexit__(self, *exc: object) -> None:
        self.unlock()

    def unlock(self) -> None:
        """Release the lock and hand it to the thread that waited longest."""
        me = self._me()
        if self._owner is not me:
            raise KernelBug(f"{me.name} unlocks {self.name}, which it does not hold")
        me.held.remove(self)
        self._owner = None
        # Handed over, not let go: this thread, which runs on, could else take it again at once, and
        # who waits would find it locked each time it runs.
        if self._waiters:
            heir = self._waiters.popleft()
            self._grant(heir)
            self._scheduler.wake(heir)

    def _grant(self, thread: Thread) -> None:
        self._owner = thread
        thread.held.append(self)


class RwSemaphore(_Lock):
    """Many readers or one writer."""

    def __init__(self, scheduler: Scheduler, lockdep: LockDep, name: str, order: int = 0) -> None:
        super().__init__(scheduler, lockdep, name, order)
        self._readers: set[Thread] = set()
        self.writer: Thread | None = None
        """Who is inside alone."""
        self._waiters: deque[tuple[Thread, bool]] = deque()
        self._shared, self._exclusive = _RwSection(self, False), _RwSection(self, True)

    @property
    def shared(self) -> bool:
        """Whether readers are inside."""
        return bool(self._readers)

    def read(self) -> "_RwSection":
        """Shared: `async with semaphore.read():`."""
        return self._shared

    def write(self) -> "_RwSection":
        """Exclusive: `async with semaphore.write():`."""
        return self._exclusive

    async def acquire(self, exclusive: bool) -> None:
        """What entering a section does."""
        me = self._me()
        self._lockdep.acquire(me, self)
        self._scheduler.might_sleep()
        # Behind who waits already, be it free for us: readers that come and go would keep a writer
        # out for ever.
        if not self._waiters and self._free_for(exclusive):
            self._grant(me, exclusive)
            return
        self._waiters.append((me, exclusive))
        await self._scheduler.park(None, None, killable=False)
        # Nothing to look at again: whoever released it has granted it to us.

    def _free_for(self, exclusive: bool) -> bool:
        return self.writer is None and not (exclusive and self._readers)

    def _grant(self, thread: Thread, exclusive: bool) -> None:
        if exclusive:
            self.writer = thread
        else:
            self._readers.add(thread)
        thread.held.append(self)

    def release(self) -> None:
        """What leaving a section does: whoever waited longest goes on, and readers together."""
        me = self._me()
        if self.writer is me:
            self.writer = None
        elif me in self._readers:
            self._readers.remove(me)
        else:
            raise KernelBug(f"{me.name} releases {self.name}, which it does not hold")
        me.held.remove(self)
        while self._waiters and self._free_for(self._waiters[0][1]):
            thread, exclusive = self._waiters.popleft()
            self._grant(thread, exclusive)
            self._scheduler.wake(thread)


class _RwSection:
    """One way to hold a semaphore. It has no state: who is inside, the semaphore knows."""

    def __init__(self, semaphore: RwSemaphore, exclusive: bool) -> None:
        self._semaphore = semaphore
        self._exclusive = exclusive

    async def __aenter__(self) -> None:
        await self._semaphore.acquire(self._exclusive)

    async def __aexit__(self, *exc: object) -> None:
        self._semaphore.release()
