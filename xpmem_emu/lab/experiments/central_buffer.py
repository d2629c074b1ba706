"""Where senders put what is to be invalidated: by processor, in one queue, or one for each
partition."""

from collections.abc import Sequence

from msgspec.structs import replace

from xpmem_emu.image import MachineSection
from xpmem_emu.lab.experiment import Conclusion, Curves, Experiment, LabRow, Setting, Word, number
from xpmem_emu.lab.machine.locks import Latch, SpinningLock
from xpmem_emu.lab.machine.machine import Machine
from xpmem_emu.lab.machine.operations import (
    Give,
    Open,
    Raise,
    SleepUntil,
    SpinUntil,
    StrandSteps,
    Take,
    Work,
)
from xpmem_emu.lab.tables import lab_cell
from xpmem_emu.units import MICROSECOND, SECOND

_SLOTS, _BITMAP = "slot a processor", "slots, with a bitmap"
_ONE, _EACH = "one queue", "queue a partition"
_DESIGNS = (_SLOTS, _BITMAP, _ONE, _EACH)
_LINE_BYTES = 128
_PARTITIONS = 64
_DEPTH = 4
"""Places of a queue for each processor or partition that may fill it."""
_REMOTE_NS = MICROSECOND
"""One access to memory of another partition, uncached."""
_SENDERS = 63
_MESSAGES = 20


def _memory_bytes(design: str, processors: int) -> int:
    match design:
        case "slot a processor":
            return processors * _LINE_BYTES
        case "slots, with a bitmap":
            return processors * _LINE_BYTES + processors // 8
        case "one queue":
            return processors * _LINE_BYTES
        case _:
            return _PARTITIONS * _DEPTH * _LINE_BYTES


def _lines_looked_at(design: str, processors: int) -> int:
    """By the handler, before it knows what there is."""
    match design:
        case "slot a processor":
            return processors
        case "slots, with a bitmap":
            return processors // 8 // _LINE_BYTES
        case "one queue":
            return 1
        case _:
            return _PARTITIONS


class _Buffer:
    """A partition that is sent to; each sender waits for its message to be done."""

    def __init__(self, costs: MachineSection, design: str, processors: int) -> None:
        self.machine = Machine(replace(costs, processors=_SENDERS + 1))
        self.costs, self.design, self.processors = costs, design, processors
        queues = {_ONE: 1, _EACH: 8}.get(design, 0)
        self.locks = [SpinningLock("the queue") for _ in range(queues)]
        self.waiting: list[Latch] = []
        self.raised = False
        self.longest_ns = 0
        self.finished = Latch("all senders to end")
        self.left = _SENDERS

    def sender(self, me: int) -> StrandSteps:
        for _ in range(_MESSAGES):
            begun_ns = self.machine.now_ns
            done = Latch("the invalidation")
            yield from self._put(me)
            self.waiting.append(done)
            if not self.raised:
                self.raised = True
                yield Raise(_SENDERS, "invalidate", self.handler)
            yield SpinUntil(done)
            self.longest_ns = max(self.longest_ns, self.machine.now_ns - begun_ns)
        self.left -= 1
        if not self.left:
            yield Open(self.finished)

    def _put(self, me: int) -> StrandSteps:
        if not self.locks:
            # The slot is its own; with a bitmap, an atomic operation on a bit.
            yield Work(_REMOTE_NS * (2 if self.design == _BITMAP else 1))
            return
        lock = self.locks[me % len(self.locks)]
        # Only within a partition is a lock coherent; else each hold is an atomic operation there.
        across_ns = 2 * _REMOTE_NS if self.design == _ONE else 0
        yield Take(lock)
        yield Work(_REMOTE_NS + across_ns)
        yield Give(lock)

    def handler(self) -> StrandSteps:
        self.raised = False
        yield Work(_lines_looked_at(self.design, self.processors) * self.costs.walk)
        found, self.waiting = self.waiting, []
        for each in found:
            yield Work(8 * self.costs.walk + self.costs.flush)
            yield Open(each)

    def owner(self) -> StrandSteps:
        """The task of the processor that is interrupted."""
        yield SleepUntil(self.finished)


def _cases(setting: Setting) -> list[LabRow]:
    most = setting.scaled(65_536, 4096)
    return [
        {"processors": processors, "design": design}
        for processors in sorted({4096, most // 4, most})
        for design in _DESIGNS
    ]


def _measure(setting: Setting, case: LabRow) -> LabRow:
    design, processors = str(case["design"]), number(case, "processors")
    buffer = _Buffer(setting.image.machine, design, processors)
    for each in range(_SENDERS):
        buffer.machine.spawn(f"sender {each}", buffer.sender(each))
    buffer.machine.spawn("owner", buffer.owner())
    account = buffer.machine.run()
    return {
        "memory_bytes": _memory_bytes(design, processors),
        "lines_looked_at": _lines_looked_at(design, processors),
        "messages_per_s": _SENDERS * _MESSAGES * SECOND // account.elapsed_ns,
        "longest_wait_ns": buffer.longest_ns,
    }


def _conclude(rows: Sequence[LabRow]) -> Conclusion:
    most = max(number(row, "processors") for row in rows)
    found = {row["design"]: row for row in rows if row["processors"] == most}

    def shown(design: str, column: str) -> str:
        return lab_cell(column, found[design][column])

    return Conclusion(
        Word.BOTH,
        f"With {most:,} processors a slot for each takes {shown(_SLOTS, 'memory_bytes')} at every "
        f"processor that can be interrupted, and a handler that has to look at all of them serves "
        f"{shown(_SLOTS, 'messages_per_s')} messages in a second: large and slow. It need not be "
        f"either: a bitmap makes it {shown(_BITMAP, 'messages_per_s')}, one queue with atomic "
        f"operations from afar {shown(_ONE, 'messages_per_s')}, and a queue for each partition, "
        f"whose own processors agree by a lock of theirs, {shown(_EACH, 'messages_per_s')} in "
        f"{shown(_EACH, 'memory_bytes')}. That is what XPC has.",
    )


EXPERIMENT = Experiment(
    place=8,
    question="How large or slow is a central buffer of invalidations?",
    setup=(
        "Memory and lines are computed, the rest is simulated on the machine, costs assumed: 63 "
        "processors send 20 invalidations each, one after the other, and wait for each; the 64th "
        "is interrupted, unless it is already, and looks for what there is. A line is 128 bytes, "
        "an access to another partition 1 us, looking at a line one step of a walk. *One queue*: "
        "its lock is an atomic operation on memory of another partition, both ways. *Queue a "
        "partition*: 64 of them, of which eight are in use here."
    ),
    claim=(
        "A central place would be indexed by 65,536 processors or need a lock that most of the "
        "machine could take only uncached: really large or really slow (sources T21)."
    ),
    cases=_cases,
    measure=_measure,
    conclude=_conclude,
    curves=Curves(
        x="processors",
        y="longest_wait_ns",
        series="design",
        logarithmic=("processors", "longest_wait_ns"),
    ),
)
