"""Kills a task in the middle of one of its calls: as the call is about to sleep for the nth time.

A signal may come at any moment, and the moments that matter are the sleeps: what a call has half
done is then seen by others. The scheduler tells of each sleep before it begins, so a kill here
finds the call in exactly that place; a wait that can be killed does not even begin.
"""

from collections.abc import Callable
from functools import partial

from xpmem_emu.errors import Signal, SignalInfo
from xpmem_emu.kernel.kernel import Kernel
from xpmem_emu.sched import Thread
from xpmem_emu.sim.cluster import SimCluster


class Fatal:
    """The calls of one run that do not outlive a certain sleep."""

    def __init__(self, cluster: SimCluster, told: Callable[[int, str], None]) -> None:
        """`told` of each kill: the partition and the thread's name."""
        self._cluster = cluster
        self._told = told
        self._sleeps: dict[tuple[int, str], int] = {}

    def arm(self, partid: int, thread: str, nth: int) -> None:
        """Kill the task of the next call whose thread has this name, at its nth sleep."""
        kernel = self._cluster.kernels.get(partid)
        if kernel is not None:
            self._sleeps[partid, thread] = nth
            kernel.scheduler.parking = partial(self._parking, kernel)

    def _parking(self, kernel: Kernel, thread: Thread) -> None:
        key = (kernel.partid, thread.name)
        left = self._sleeps.get(key)
        if left is None:
            return
        self._sleeps[key] = left - 1
        if left == 1:
            del self._sleeps[key]
            pid = int(thread.name.rpartition("/")[2])
            self._told(*key)
            kernel.kill(pid, SignalInfo(Signal.SIGKILL, f"killed in {thread.name}"))
