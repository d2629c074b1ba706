"""What the XPMEM module is given by the kernel that loads it."""

from collections.abc import Callable
from dataclasses import dataclass

from xpmem_emu.errors import SignalInfo
from xpmem_emu.failpoints import Failpoints
from xpmem_emu.image import Image
from xpmem_emu.mm.mm_types import MemoryContext
from xpmem_emu.sched import Scheduler
from xpmem_emu.trace import Tracer
from xpmem_emu.xpc.xpc import Patience, Xpc


@dataclass(frozen=True, slots=True)
class Services:
    """The rest of the kernel, as XPMEM uses it."""

    partid: int
    boot: int
    image: Image
    scheduler: Scheduler
    tracer: Tracer
    memory: MemoryContext
    xpc: Xpc
    kill: Callable[[int, SignalInfo], None]
    """Sends a fatal signal to the task with this pid."""

    @property
    def failpoints(self) -> Failpoints:
        """Where somebody outside can make something happen."""
        return self.memory.failpoints

    @property
    def fault_patience(self) -> Patience:
        """How long an importer waits for the exporter."""
        times = self.image.deadlines
        return Patience(times.fault_attempt, times.fault_tries, times.fault_wait_max)

    @property
    def recall_patience(self) -> Patience:
        """How long an exporter waits for an acknowledgement before it fences the holder."""
        times = self.image.deadlines
        total = times.recall_attempt * times.recall_tries
        return Patience(times.recall_attempt, times.recall_tries, total)

    @property
    def recall_bound_ns(self) -> int:
        """Longest that any recall takes, fencing included."""
        return 2 * self.image.deadlines.recall_attempt * self.image.deadlines.recall_tries
