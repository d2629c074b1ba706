"""The simulator as a ground: virtual time, and every checker looks at every step.

The process of a partition that crashed, panicked or was rebooted is proven gone a little later,
as the watch over life files does it for processes. A seed other than 0 lets the kernels choose
among runnable threads at random; seed 0 takes them in order.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from random import Random

from msgspec.structs import replace

from xpmem_emu.backend.interface import (
    ASKED_TO_PANIC,
    BackendSpec,
    InjectionCount,
    PendingCall,
    Unanswered,
)
from xpmem_emu.codec import Buffer
from xpmem_emu.judge.monitor import Monitor
from xpmem_emu.judge.streams import StreamsEnd
from xpmem_emu.judge.verdict import Violation
from xpmem_emu.kernel.breaking import CrashKernel
from xpmem_emu.kernel.calls import Call, Shutdown, Value
from xpmem_emu.kernel.interface import Done
from xpmem_emu.sim.cluster import Pick, SimCluster
from xpmem_emu.sim.ending import check_left
from xpmem_emu.sim.injection.injections import SimInjections
from xpmem_emu.sim.ticket import Stuck, Ticket
from xpmem_emu.trace import Record
from xpmem_emu.units import MILLISECOND, SECOND

_PROOF_NS = 200 * MILLISECOND
"""How long after its heartbeats are missed a dead process is proven gone."""
_ANSWER_NS = 2 * SECOND


class SimBackend:
    """A Backend whose partitions are kernels of this process, in virtual time."""

    name = "sim"

    def __init__(self, wanted: BackendSpec, seed: int) -> None:
        self.partitions: Mapping[str, int] = {
            name: partid for partid, name in enumerate(wanted.partitions)
        }
        self._image = wanted.image
        self._watch = Monitor(wanted.image)
        self._cluster = SimCluster(
            len(wanted.partitions),
            wanted.image,
            seed,
            self._watch,
            partial(_pick, seed),
            lambda partid: replace(wanted.image, domain=wanted.domains[partid]),
        )
        self._faults = SimInjections(self._cluster, seed, self._watch.take)

    @property
    def running(self) -> Sequence[str]:
        kernels = self._cluster.kernels
        return [
            name
            for name, partid in self.partitions.items()
            if partid in kernels and kernels[partid].stopped is None
        ]

    def up(self) -> None:
        self._watch.follow(self._cluster)
        self._cluster.run_until_active()

    def down(self) -> None:
        self._cluster.down()

    # -- calls and looks -------------------------------------------------------------------

    def begin(self, partition: str, call: Call, bulk: Buffer = b"") -> PendingCall:
        pending = PendingCall()

        def ended(ticket: Ticket) -> None:
            pending.end(ticket.outcome)

        self._cluster.submit(self.partitions[partition], call, bulk, ended)
        return pending

    def ask(self, partition: str, call: Call) -> Value:
        pending = self.begin(partition, call)
        self.wait(lambda: pending.ended, _ANSWER_NS)
        if not isinstance(pending.outcome, Done):
            raise Unanswered(f"{partition} does not answer")
        return pending.outcome.value

    def records(self) -> Sequence[Record]:
        return self._cluster.trace

    def now_ns(self) -> int:
        return self._cluster.now_ns

    def wait(self, condition: Callable[[], bool], patience_ns: int) -> bool:
        try:
            self._cluster.run_until(condition, patience_ns)
        except Stuck:
            return False
        return True

    # -- faults ----------------------------------------------------------------------------

    def put_up(self, text: str) -> None:
        self._faults.add(text)

    def heal(self, name: str = "") -> None:
        if name:
            self._faults.board.remove(name)
        else:
            self._faults.board.reset()

    def release_held(self, name: str) -> None:
        self._faults.board.release(name)

    def fault(self, name: str) -> InjectionCount:
        rows = [row for row in self._faults.board.rows() if row["name"] == name]
        return InjectionCount(
            sum(int(row["hits"]) for row in rows), sum(int(row["held"]) for row in rows)
        )

    # -- from outside ----------------------------------------------------------------------

    def crash(self, partition: str) -> None:
        partid = self.partitions[partition]
        boot = self._cluster.boot_of(partid)
        self._cluster.crash(partid)
        proven_ns = self._cluster.now_ns + self._image.xpc.heartbeat_check + _PROOF_NS
        self._cluster.at(proven_ns, lambda: self._cluster.prove_gone(partid, boot))

    def panic(self, partition: str) -> None:
        self.begin(partition, CrashKernel(ASKED_TO_PANIC))
        self.crash(partition)

    def hang(self, partition: str) -> None:
        self._cluster.hang(self.partitions[partition])

    def resume(self, partition: str) -> None:
        self._cluster.resume(self.partitions[partition])

    def boot(self, partition: str) -> None:
        self._cluster.boot(self.partitions[partition])

    def reboot(self, partition: str) -> None:
        self.begin(partition, Shutdown())
        self.wait(lambda: partition not in self.running, _ANSWER_NS)
        self.crash(partition)
        self.boot(partition)

    def cut(self, partition: str) -> None:
        self.put_up(f"isolate {partition} --name cut-{partition}")

    def mend(self, partition: str) -> None:
        self.heal(f"cut-{partition}")

    # -- judging ---------------------------------------------------------------------------

    def judge(self, ending: StreamsEnd) -> Sequence[Violation]:
        if ending is StreamsEnd.AT_REST:
            self._watch.pins.unused()
            self._watch.pins.settled()
            self._watch.bounds.settled()
            check_left(self._cluster, self._watch)
        return self._watch.scene.violations


def _pick(seed: int, partid: int) -> Pick | None:
    if not seed:
        return None
    draws = Random(f"{seed}/scheduler/{partid}").random
    return lambda runnable: int(draws() * runnable)
