"""Random loads: the workloads of the simulator's campaigns, on any ground.

    random sharing 80         eighty operations of that workload, a few at a time

The seed draws the operations before anything runs; a few are under way at once, and where the
workload wants things to settle all of them end first. What tasks saw is recorded word by word and
judged when the story is over: every word linearizable, every counter counted right.

An access lasts from before its call is handed over until after its end was seen, which is longer
than it really took: what is found wrong is wrong, on a slow machine too.
"""

from collections.abc import Callable, Sequence
from random import Random

from xpmem_emu.backend.interface import Backend, PendingCall
from xpmem_emu.codec import Buffer
from xpmem_emu.image import Image
from xpmem_emu.judge.checkers.memory import check_memory
from xpmem_emu.judge.scene import Scene
from xpmem_emu.judge.verdict import Violation
from xpmem_emu.kernel.calls import Call
from xpmem_emu.kernel.events import KernelBoot, KernelPanic
from xpmem_emu.sim.operations.executor import Executor
from xpmem_emu.sim.plan import Knobs, Operation
from xpmem_emu.sim.ticket import Ticket
from xpmem_emu.sim.workloads import WORKLOADS
from xpmem_emu.sim.workloads.script import SETTLE_NS, Script
from xpmem_emu.trace import Record
from xpmem_emu.xpc.events import PartitionChange

AT_ONCE = 6
"""Calls under way at a time."""


class RandomLoad:
    """One workload under way. It is what its stage has for a cluster."""

    def __init__(self, ground: Backend, workload: str, budget: int, seed: str) -> None:
        self._ground = ground
        self._names = {partid: name for name, partid in ground.partitions.items()}
        self._operations = _drawn(len(ground.partitions), workload, budget, seed)
        self._total = len(self._operations)
        self._flying: list[tuple[PendingCall, Ticket]] = []
        self._last_ns = 0
        self.ended = 0
        """Calls that have come to their end."""
        self._boots: dict[int, int] = {}
        self._panicked: set[int] = set()
        self._heard = 0
        self._now = 0
        self.stage = Executor(self)

    @property
    def over(self) -> bool:
        """Whether every operation has been made and has ended."""
        return not self._operations and not self._flying

    def goes_on(self, since: int) -> bool:
        """See what has ended, and start what may start now. Whether more calls have ended than
        `since`, or all have."""
        self._see_ends()
        while self._operations and len(self._flying) < AT_ONCE:
            following = self._operations[0]
            if self._flying and following.at_ns - self._last_ns >= SETTLE_NS:
                break
            self._last_ns = following.at_ns
            self.stage.perform(self._operations.pop(0))
            self._see_ends()
        return self.ended > since or self.over

    def describe(self) -> str:
        """How far it is."""
        done = self._total - len(self._operations)
        ends = ", ".join(f"{how} {count}" for how, count in sorted(self.stage.outcomes.items()))
        return f"{done} of {self._total} operations, {len(self._flying)} under way: {ends}"

    def judge(self, image: Image, records: Sequence[Record]) -> tuple[list[Violation], int]:
        """What memory did that it must not, and for how many words nobody can tell."""
        scene = Scene(image)
        for record in records:
            if isinstance(record.event, PartitionChange):
                scene.sessions.changed(record.partid, record.event, record.time_ns)
            elif isinstance(record.event, KernelBoot):
                scene.sessions.booted(record.partid, record.event, record.time_ns)
        unknown = check_memory(scene, self.stage.history)
        return scene.violations, unknown

    def _see_ends(self) -> None:
        for pending, ticket in list(self._flying):
            if pending.ended:
                self._flying.remove((pending, ticket))
                self.ended += 1
                ticket.end(pending.outcome)

    # -- what a stage asks of its cluster --------------------------------------------------

    @property
    def steps(self) -> int:
        """The time, and never the same one twice."""
        self._now = max(self._now + 1, self._ground.now_ns())
        return self._now

    def boot_of(self, partid: int) -> int:
        """The newest boot of a partition, 0 when it does not run."""
        self._hear()
        return self._boots[partid] if self._names[partid] in self._ground.running else 0

    def panicked(self, partid: int) -> bool:
        """Whether its newest boot panicked."""
        self._hear()
        return partid in self._panicked

    def _hear(self) -> None:
        records = self._ground.records()
        for record in records[self._heard :]:
            if isinstance(record.event, KernelBoot):
                self._boots[record.partid] = record.event.boot
                self._panicked.discard(record.partid)
            elif isinstance(record.event, KernelPanic):
                self._panicked.add(record.partid)
        self._heard = len(records)

    def submit(
        self,
        partid: int,
        call: Call,
        bulk: Buffer = b"",
        then: Callable[[Ticket], None] | None = None,
    ) -> Ticket:
        """Start a call; `then` is told of its end by `goes_on`."""
        ticket = Ticket(partid, then)
        self._flying.append((self._ground.begin(self._names[partid], call, bulk), ticket))
        return ticket


def _drawn(partitions: int, workload: str, budget: int, seed: str) -> list[Operation]:
    script = Script(Random(seed), Knobs(partitions=partitions), 0, budget)
    WORKLOADS[workload](script)
    return sorted(script.operations, key=lambda operation: operation.at_ns)
