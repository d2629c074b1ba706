"""Shooting mappings down from the exporter's side, by tokens, or telling the partitions that hold
pages."""

from collections.abc import Callable, Sequence
from functools import partial

from msgspec.structs import replace

from xpmem_emu.image import MachineSection
from xpmem_emu.lab.experiment import Conclusion, Curves, Experiment, LabRow, Setting, Word, number
from xpmem_emu.lab.machine.locks import Latch, SleepingLock
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

_TOKENS, _HOLDERS = "tokens", "holders"
_PAGES = 512
_TOKEN_BYTES = 16
"""An address space and an address in it."""


class _Recall:
    """Processor 0 is the exporter's; each other one is the processor of an importing partition on
    which its interrupts and its thread run."""

    def __init__(self, costs: MachineSection, partitions: int, tasks: int) -> None:
        self.machine = Machine(replace(costs, processors=partitions + 1))
        self.costs, self.partitions, self.tasks = costs, partitions, tasks
        self.left = 0
        self.done = Latch("all importers")
        self.took_ns = 0
        self.gone_ns = 0
        """How long the exporter's processor does nothing else."""

    def by_tokens(self) -> None:
        """The exporter interrupts for each task, and spins: it may do so under a spinlock."""
        self._start(self._shoot())

    def by_holders(self) -> None:
        """The exporter tells each partition once, and sleeps."""
        self._start(self._tell())

    def _start(self, exporter: StrandSteps) -> None:
        self.machine.spawn("exporter", exporter)
        for each in range(self.partitions):
            self.machine.spawn(f"importer {each}", self._ends())

    def _ends(self) -> StrandSteps:
        """What runs there otherwise has ended when the recall begins."""
        yield Work(0)

    def _shoot(self) -> StrandSteps:
        self.left = self.partitions * self.tasks
        begun_ns = self.machine.now_ns
        for _ in range(self.tasks):
            for each in range(self.partitions):
                yield Work(self.costs.message)
                yield Raise(each + 1, "shoot", self._shot)
        yield SpinUntil(self.done)
        self.took_ns = self.gone_ns = self.machine.now_ns - begun_ns

    def _shot(self) -> StrandSteps:
        yield from self._zap()
        yield from self._answered()

    def _tell(self) -> StrandSteps:
        self.left = self.partitions
        begun_ns = self.machine.now_ns
        for each in range(self.partitions):
            yield Work(self.costs.message)
            arrived = Latch("a message")
            self.machine.spawn(f"xpc {each}", self._thread(arrived))
            yield Raise(each + 1, "message", partial(self._arrive, arrived))
        self.gone_ns = self.machine.now_ns - begun_ns
        yield SleepUntil(self.done)
        self.took_ns = self.machine.now_ns - begun_ns

    def _arrive(self, arrived: Latch) -> StrandSteps:
        yield Open(arrived)

    def _thread(self, arrived: Latch) -> StrandSteps:
        yield SleepUntil(arrived)
        for _ in range(self.tasks):
            mmap_sem = SleepingLock("mmap_sem")
            yield Take(mmap_sem)
            yield from self._zap()
            yield Give(mmap_sem)
        yield Work(self.costs.message)
        yield from self._answered()

    def _zap(self) -> StrandSteps:
        yield Work(_PAGES * self.costs.walk)
        yield Work(self.costs.flush)

    def _answered(self) -> StrandSteps:
        self.left -= 1
        if not self.left:
            yield Open(self.done)


_WAYS: dict[str, Callable[[_Recall], None]] = {
    _TOKENS: _Recall.by_tokens,
    _HOLDERS: _Recall.by_holders,
}


def _cases(setting: Setting) -> list[LabRow]:
    most = setting.scaled(63, 4)
    return [
        {"partitions": partitions, "tasks_each": tasks, "exporter_keeps": design}
        for partitions in sorted({2, most // 4, most})
        for tasks in (1, 16)
        for design in _WAYS
    ]


def _measure(setting: Setting, case: LabRow) -> LabRow:
    partitions, tasks = number(case, "partitions"), number(case, "tasks_each")
    design = str(case["exporter_keeps"])
    recall = _Recall(setting.image.machine, partitions, tasks)
    _WAYS[design](recall)
    recall.machine.run()
    mappings = partitions * tasks * _PAGES
    zap_ns = _PAGES * recall.costs.walk + recall.costs.flush
    return {
        "told_of": mappings if design == _TOKENS else partitions * _PAGES,
        "table_bytes": mappings * _TOKEN_BYTES if design == _TOKENS else partitions * _PAGES // 8,
        "recall_ns": recall.took_ns,
        "exporter_gone_ns": recall.gone_ns,
        "interrupts_off_ns": recall.costs.interrupt + (zap_ns if design == _TOKENS else 0),
    }


def _conclude(rows: Sequence[LabRow]) -> Conclusion:
    most = max(number(row, "partitions") for row in rows)
    found = {
        (row["exporter_keeps"], row["tasks_each"]): row for row in rows if row["partitions"] == most
    }

    def shown(design: str, column: str, tasks: int = 16) -> str:
        return lab_cell(column, found[design, tasks][column])

    return Conclusion(
        Word.BOTH,
        f"It can be done without sleeping, and with one task in each of {most} partitions it is "
        f"even sooner over: {shown(_TOKENS, 'recall_ns', 1)} against "
        f"{shown(_HOLDERS, 'recall_ns', 1)}. With 16 tasks in each the exporter has to be told of "
        f"{shown(_TOKENS, 'told_of')} mappings instead of {shown(_HOLDERS, 'told_of')}, keeps "
        f"{shown(_TOKENS, 'table_bytes')} for 2M of memory instead of "
        f"{shown(_HOLDERS, 'table_bytes')} bytes, has no processor for "
        f"{shown(_TOKENS, 'exporter_gone_ns')} instead of {shown(_HOLDERS, 'exporter_gone_ns')}, "
        f"while each interrupt of an importer takes {shown(_TOKENS, 'interrupts_off_ns')}. And "
        f"who spins for a partition that died spins for ever.",
    )


EXPERIMENT = Experiment(
    place=9,
    question="What if the exporter shot mappings down by itself?",
    setup=(
        "Tables are computed, the rest is simulated on the machine, costs assumed. Tasks of other "
        "partitions map all 512 pages of a segment, which is taken back. *Tokens*: the exporter "
        "knows each mapping by a token of 16 bytes, of which it is told at every first touch; it "
        "interrupts for each task and spins, and the handler tears entries down. *Holders*, as "
        "here: it knows one bit for each page and partition, sends one message to each, and "
        "sleeps; a thread there takes each mmap_sem and zaps."
    ),
    claim=(
        "The exporter could keep tokens and raise an interrupt whose handler finds address space "
        "and addresses (sources T24); all that the importers know would have to be copied to it "
        "(sources T3)."
    ),
    cases=_cases,
    measure=_measure,
    conclude=_conclude,
    curves=Curves(
        x="partitions",
        y="recall_ns",
        series="exporter_keeps",
        logarithmic=("partitions", "recall_ns"),
        only={"tasks_each": 16},
    ),
)
