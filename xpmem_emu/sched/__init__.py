"""The kernel's own scheduler and the locks that sleep or must not.

Nothing here knows about memory, partitions or I/O; it sits below `mm` and `xpc` because both
sleep. Threads are plain Python coroutines, driven by `Scheduler` and by nothing else.

The rule that carries the design: **a plain `def` is atomic context, an `async def` may sleep.**
"""

from xpmem_emu.sched.locks import LockDep, Mutex, RwSemaphore, SpinLock
from xpmem_emu.sched.scheduler import Scheduler, Thread, Wake, in_place
from xpmem_emu.sched.waiting import Completion, RemoteAnswer, WaitQueue

__all__ = [
    "Completion",
    "LockDep",
    "Mutex",
    "RemoteAnswer",
    "RwSemaphore",
    "Scheduler",
    "SpinLock",
    "Thread",
    "WaitQueue",
    "Wake",
    "in_place",
]
