"""A block transfer that gets no answer, waited for in an interrupt handler and in a thread."""

from collections.abc import Sequence

from msgspec.structs import replace

from xpmem_emu.image import MachineSection
from xpmem_emu.lab.experiment import Conclusion, Curves, Experiment, LabRow, Setting, Word
from xpmem_emu.lab.machine.locks import Latch
from xpmem_emu.lab.machine.machine import Machine
from xpmem_emu.lab.machine.operations import (
    Nap,
    Open,
    PreemptionPoint,
    SleepUntil,
    StrandSteps,
    Work,
)
from xpmem_emu.lab.tables import lab_cell
from xpmem_emu.units import MILLISECOND, SECOND

_HANDLER, _THREAD = "interrupt handler", "thread"
_DEAD, _ALIVE = "does not answer", "answers"
_TIMEOUT_NS, _READS = 28 * SECOND, 2
"""Each read, and how many: the engine repeats one by itself (sources T18)."""
_ANSWER_NS = 20_000
_BEGIN_NS, _END_NS = SECOND, 60 * SECOND
_SLICE_NS = 5 * MILLISECOND
_DISK_NS = 50 * MILLISECOND


class _Partition:
    """Twice as many tasks as processors, a disk that interrupts processor 0, and an invalidation
    whose details have to be fetched from another partition."""

    def __init__(self, costs: MachineSection, context: str, peer: str) -> None:
        self.machine = Machine(replace(costs, processors=4))
        self.context = context
        self.reads_ns = [_ANSWER_NS] if peer == _ALIVE else [_TIMEOUT_NS] * _READS
        self.arrived = Latch("an invalidation")
        self.done_ns = 0
        self.longest_gap_ns = 0

    def task(self) -> StrandSteps:
        last = self.machine.now_ns
        while self.machine.now_ns < _END_NS:
            yield Work(_SLICE_NS)
            yield PreemptionPoint()
            self.longest_gap_ns = max(self.longest_gap_ns, self.machine.now_ns - last)
            last = self.machine.now_ns

    def disk(self) -> StrandSteps:
        yield Work(10_000)

    def invalidation(self) -> StrandSteps:
        if self.context == _THREAD:
            yield Open(self.arrived)
            return
        for ns in self.reads_ns:
            yield Work(ns)  # it polls: nobody may sleep here
        self.done_ns = self.machine.now_ns

    def thread(self) -> StrandSteps:
        yield SleepUntil(self.arrived)
        for ns in self.reads_ns:
            yield Nap(ns)
        self.done_ns = self.machine.now_ns


def _cases(_setting: Setting) -> list[LabRow]:
    return [
        {"waited_for_in": context, "the_other_side": peer}
        for peer in (_ALIVE, _DEAD)
        for context in (_HANDLER, _THREAD)
    ]


def _measure(setting: Setting, case: LabRow) -> LabRow:
    costs = setting.image.machine
    partition = _Partition(costs, str(case["waited_for_in"]), str(case["the_other_side"]))
    machine = partition.machine
    if partition.context == _THREAD:
        machine.spawn("invalidate", partition.thread())
    for number in range(8):
        machine.spawn(f"task {number}", partition.task())
    for at_ns in range(_DISK_NS, _END_NS, _DISK_NS):
        machine.at(at_ns, lambda: machine.interrupt(0, "disk", partition.disk))
    machine.at(_BEGIN_NS, lambda: machine.interrupt(0, "invalidation", partition.invalidation))
    account = machine.run()
    disk = account.sum_of(who="disk", how="pending")
    return {
        "exporter_waits_ns": partition.done_ns - _BEGIN_NS,
        "disk_waits_ns": disk.longest_ns,
        "a_task_stands_still_ns": partition.longest_gap_ns,
    }


def _conclude(rows: Sequence[LabRow]) -> Conclusion:
    found = {(row["waited_for_in"], row["the_other_side"]): row for row in rows}

    def shown(context: str, column: str, peer: str = _DEAD) -> str:
        return lab_cell(column, found[context, peer][column])

    return Conclusion(
        Word.SUPPORTED,
        f"In the handler no other interrupt of the processor is served for "
        f"{shown(_HANDLER, 'disk_waits_ns')}, and the task that it interrupted stands still for "
        f"{shown(_HANDLER, 'a_task_stands_still_ns')}; in a thread these are "
        f"{shown(_THREAD, 'disk_waits_ns')} and {shown(_THREAD, 'a_task_stands_still_ns')}. For "
        f"the exporter it is the same, {shown(_THREAD, 'exporter_waits_ns')}: sleeping spares all "
        f"others, not it. Where the other side answers the thread has to get a processor first, "
        f"{shown(_THREAD, 'exporter_waits_ns', _ALIVE)} instead of "
        f"{shown(_HANDLER, 'exporter_waits_ns', _ALIVE)}.",
    )


EXPERIMENT = Experiment(
    place=6,
    question="Who waits while a block transfer gets no answer?",
    setup=(
        "On the machine, four processors and eight tasks that pass a preemption point every 5 ms, "
        "costs assumed. An invalidation interrupts processor 0 and its details are read by the "
        "transfer engine: 20 us, or 28 s twice where the other side is gone. A disk interrupts the "
        "same processor every 50 ms. *Interrupt handler*: it polls until the engine is done. "
        "*Thread*: the handler wakes one, which sleeps."
    ),
    claim=(
        "The engine's read times out after 28 s and is repeated once; in interrupt context that is "
        "56 s without another interrupt (sources T18)."
    ),
    cases=_cases,
    measure=_measure,
    conclude=_conclude,
    curves=Curves(
        x="the_other_side",
        y="a_task_stands_still_ns",
        series="waited_for_in",
        logarithmic=("a_task_stands_still_ns",),
    ),
)
