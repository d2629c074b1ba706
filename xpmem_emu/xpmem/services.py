"""What the XPMEM module is given by the kernel that loads it."""

from collections.abc import Callable
from dataclasses import dataclass, field

from xpmem_emu.errors import SignalInfo
from xpmem_emu.failpoints import Failpoints
from xpmem_emu.fields import IDENT_PARTID_SHIFT
from xpmem_emu.image import Image
from xpmem_emu.mm.mm_types import MemoryContext
from xpmem_emu.sched import Scheduler
from xpmem_emu.trace import Tracer
from xpmem_emu.xpc.xpc import Patience, Xpc


@dataclass(slots=True, eq=False)
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

    failpoints: Failpoints = field(init=False)
    """Where somebody outside can make something happen."""
    fault_patience: Patience = field(init=False)
    """How long an importer waits for the exporter."""
    recall_patience: Patience = field(init=False)
    """How long an exporter waits for an acknowledgement before it fences the holder."""
    ident_end: int = field(init=False)
    """Segids and apids are below this."""
    recall_bound_ns: int = field(init=False)
    """Longest that any recall takes, fencing included."""

    def __post_init__(self) -> None:
        self.ident_end = self.image.xpc.partid_end << IDENT_PARTID_SHIFT
        times, self.failpoints = self.image.deadlines, self.memory.failpoints
        self.fault_patience = Patience(times.fault_attempt, times.fault_tries, times.fault_wait_max)
        total = times.recall_attempt * times.recall_tries
        self.recall_patience = Patience(times.recall_attempt, times.recall_tries, total)
        self.recall_bound_ns = 2 * total
