"""Tasks and partitions of the simulator as tests and users have them: the operations of the client
library, each call made in virtual time until it ends.

A refusal is KernelError, a signal is Signalled. `begin` makes any call of a task without waiting
for it.
"""

from collections.abc import Sequence
from typing import Protocol, TypeVar

from xpmem_emu.client.operations import Blocking, OperationAnswer, OperationRequest, Steps, ask
from xpmem_emu.client.partition_operations import PartitionOperations
from xpmem_emu.client.task_operations import TaskOperations
from xpmem_emu.codec import Buffer
from xpmem_emu.kernel.call import Call, Returns
from xpmem_emu.sim.ticket import Ticket

_T = TypeVar("_T")


class Callee(Protocol):
    """What a task needs of a cluster."""

    def submit(self, partid: int, call: Call, bulk: Buffer = b"") -> Ticket:
        """Begin a call now; run the cluster to let it end."""

    def call(self, partid: int, call: Call, bulk: Buffer = b"") -> OperationAnswer:
        """Make a call and run until it ends. Raises KernelError, Signalled, Stuck."""


class SimPartition(PartitionOperations["SimTask"], Blocking):
    """Partition `partid`, whichever boot of it runs."""

    def __init__(self, cluster: Callee, partid: int) -> None:
        self.cluster = cluster
        self.partid = partid

    def task(self, pid: int) -> "SimTask":
        return SimTask(self.cluster, self.partid, pid)

    def exchange(self, requests: Sequence[OperationRequest]) -> list[OperationAnswer]:
        return _made(self.cluster, self.partid, requests)


class SimTask(TaskOperations["SimTask"], Blocking):
    """Task `pid` of partition `partid`."""

    def __init__(self, cluster: Callee, partid: int, pid: int) -> None:
        self.cluster = cluster
        self.partid = partid
        self.pid = pid

    def sibling(self, pid: int) -> "SimTask":
        return SimTask(self.cluster, self.partid, pid)

    def begin(self, call: Call, bulk: Buffer = b"") -> Ticket:
        """Start a call; run the cluster to let it end."""
        return self.cluster.submit(self.partid, call, bulk)

    def exchange(self, requests: Sequence[OperationRequest]) -> list[OperationAnswer]:
        return _made(self.cluster, self.partid, requests)

    def by_library(self, call: Returns[_T]) -> Steps[_T]:
        """What the kernel says, also to a task without xpmem state; libxpmem would hide that."""
        return ask(call)


def _made(
    cluster: Callee, partid: int, requests: Sequence[OperationRequest]
) -> list[OperationAnswer]:
    answers = []
    for request in requests:
        assert isinstance(request.body, Call), "what is no call is for a harness, and here is none"
        answers.append(cluster.call(partid, request.body, request.bulk))
    return answers
