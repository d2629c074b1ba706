"""A scheduler with nothing on it but the threads of one test."""

from collections.abc import Coroutine
from typing import Any

from xpmem_emu.sched import LockDep, Mutex, RwSemaphore, Scheduler, SpinLock, Thread, WaitQueue


class Bench:
    """Threads write what happens to them into `log`."""

    def __init__(self) -> None:
        self.scheduler = Scheduler()
        self.lockdep = LockDep()
        self.log: list[str] = []

    def thread(self, name: str, coroutine: Coroutine[Any, Any, None]) -> Thread:
        return self.scheduler.spawn(name, coroutine)

    def run(self, now_ns: int = 0) -> list[str]:
        self.scheduler.run(now_ns)
        return self.log

    def run_one(self, coroutine: Coroutine[Any, Any, None]) -> list[str]:
        self.thread("only", coroutine)
        return self.run()

    def spin(self, name: str = "spin", order: int = 0) -> SpinLock:
        return SpinLock(self.scheduler, self.lockdep, name, order)

    def mutex(self, name: str = "mutex", order: int = 0) -> Mutex:
        return Mutex(self.scheduler, self.lockdep, name, order)

    def semaphore(self, name: str = "mmap_lock", order: int = 0) -> RwSemaphore:
        return RwSemaphore(self.scheduler, self.lockdep, name, order)

    def queue(self) -> WaitQueue:
        return WaitQueue(self.scheduler)
