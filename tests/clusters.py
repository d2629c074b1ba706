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

_ALWAYS = {"mm_frames_total", "calls", "xpc_remembered"}
"""The call that counts is a call; answers are remembered until their slot is used again."""


def leftovers(cluster: SimCluster) -> dict[str, int]:
    """What is still in use when every task has ended, of one partition after the other, and every
    name of a file is gone. By `pN name`; empty when nothing is, at the latest after 12 seconds."""
    found: dict[str, int] = {}
    for partid in [p for p, kernel in cluster.kernels.items() if kernel.stopped is None]:
        for task in list(cluster.kernels[partid].tasks):
            cluster.kernels[partid].tasks.end(task, None, "the test is over")
        for name in list(cluster.kernels[partid].memory.files.by_name):
            cluster.call(partid, Unlink(name))
        for _ in range(6):
            cluster.run_for(2 * SECOND)
            left = {name: count for name, count in cluster.audit(partid).items() if count}
            if left.keys() <= _ALWAYS:
                break
        found |= {f"p{partid} {name}": left[name] for name in left.keys() - _ALWAYS}
    return found


def events_of(trace: Iterable[Record], kind: type[_E]) -> list[_E]:
    """The events of one type in a stream, in its order."""
    return [record.event for record in trace if isinstance(record.event, kind)]


def cluster_of(task: SimTask) -> SimCluster:
    """The simulated cluster that a task is in; a task asks less than that of where it is."""
    assert isinstance(task.cluster, SimCluster)
    return task.cluster
