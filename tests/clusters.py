"""Images for simulated clusters, and what a cluster must not leave behind."""

from collections.abc import Iterable
from typing import TypeVar

from xpmem_emu.image import Bytes, Image, MemorySection
from xpmem_emu.kernel.calls import Unlink
from xpmem_emu.sim.cluster import SimCluster
from xpmem_emu.sim.task import SimTask
from xpmem_emu.trace import Event, Record
from xpmem_emu.units import SECOND

_E = TypeVar("_E", bound=Event)

SMALL = Image(memory=MemorySection(size=Bytes(4 << 20), swap=Bytes(1 << 20), files=Bytes(16 << 20)))
LARGE = Image(
    memory=MemorySection(size=Bytes(192 << 20), swap=Bytes(64 << 20), files=Bytes(128 << 20))
)


def leftovers(cluster: SimCluster, partid: int) -> dict[str, int]:
    """What is still in use after every task of a partition has ended; empty when nothing is."""
    for task in list(cluster.kernels[partid].tasks):
        cluster.kernels[partid].tasks.end(task, None, "the test is over")
    for name in list(cluster.kernels[partid].memory.files.by_name):
        cluster.call(partid, Unlink(name))
    cluster.run_for(12 * SECOND)
    counts = cluster.audit(partid)
    # The call that counts is a call; answers are remembered until their slot is used again.
    fixed = ("mm_frames_total", "calls", "xpc_remembered")
    return {key: count for key, count in counts.items() if count and key not in fixed}


def events_of(trace: Iterable[Record], kind: type[_E]) -> list[_E]:
    """The events of one type in a stream, in its order."""
    return [record.event for record in trace if isinstance(record.event, kind)]


def cluster_of(task: SimTask) -> SimCluster:
    """The simulated cluster that a task is in; a task asks less than that of where it is."""
    assert isinstance(task.cluster, SimCluster)
    return task.cluster
