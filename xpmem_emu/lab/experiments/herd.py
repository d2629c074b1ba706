"""Processors of other partitions invalidate at one processor: an interrupt for each, or fewer."""

from collections.abc import Callable, Sequence
from random import Random

from msgspec.structs import replace

from xpmem_emu.image import MachineSection
from xpmem_emu.lab.experiment import Conclusion, Curves, Experiment, LabRow, Setting, Word, number
from xpmem_emu.lab.machine.machine import Machine
from xpmem_emu.lab.machine.operations import StrandSteps, Work
from xpmem_emu.lab.tables import lab_cell
from xpmem_emu.units import MILLISECOND

_EACH, _QUEUE, _FLUSH_ONCE = "one each", "queue", "queue, one flush"
_LOOK_UP = 8
"""Steps to find an address space and an entry of its page table."""
_MOST = 16_256
_SLOW_NS = 100 * MILLISECOND


class _Target:
    """The processor that all of them interrupt."""

    def __init__(self, costs: MachineSection, design: str) -> None:
        self.machine = Machine(replace(costs, processors=1))
        self.costs, self.design = costs, design
        self.queue: list[int] = []
        self.interrupts = 0
        self.longest_ns = 0

    def send(self) -> None:
        """Somebody puts down what is to be invalidated, and waits until it is."""
        was_empty = not self.queue
        self.queue.append(self.machine.now_ns)
        if self.design == _EACH or was_empty:
            self.interrupts += 1
            self.machine.interrupt(0, "invalidate", self._handler())

    def _handler(self) -> Callable[[], StrandSteps]:
        return self._one if self.design == _EACH else self._all

    def _one(self) -> StrandSteps:
        yield Work(_LOOK_UP * self.costs.walk)
        yield Work(self.costs.flush)
        self._done(self.queue.pop(0))

    def _all(self) -> StrandSteps:
        # What comes while the queue is worked on finds it not empty, and does not interrupt.
        while self.queue:
            begun = 0
            while begun < len(self.queue):
                yield Work(_LOOK_UP * self.costs.walk)
                if self.design == _QUEUE:
                    yield Work(self.costs.flush)
                    self._done(self.queue[begun])
                begun += 1
            if self.design == _FLUSH_ONCE:
                yield Work(self.costs.flush)
                for sent_ns in self.queue[:begun]:
                    self._done(sent_ns)
            del self.queue[:begun]  # who came during that flush is next

    def _done(self, sent_ns: int) -> None:
        self.longest_ns = max(self.longest_ns, self.machine.now_ns - sent_ns)


def _cases(setting: Setting) -> list[LabRow]:
    most = setting.scaled(_MOST, 64)
    return [
        {"senders": senders, "within_ns": within_ns, "design": design}
        for within_ns in (0, _SLOW_NS)
        for senders in sorted({most // 64, most // 8, most})
        for design in (_EACH, _QUEUE, _FLUSH_ONCE)
    ]


def _measure(setting: Setting, case: LabRow) -> LabRow:
    random = Random(f"{setting.seed}/{case['senders']}/{case['within_ns']}")
    target = _Target(setting.image.machine, str(case["design"]))
    for _ in range(number(case, "senders")):
        target.machine.at(random.randint(0, number(case, "within_ns")), target.send)
    account = target.machine.run()
    return {
        "interrupts": target.interrupts,
        "processor_gone_ns": account.gone_ns,
        "longest_wait_ns": target.longest_ns,
    }


def _conclude(rows: Sequence[LabRow]) -> Conclusion:
    most = max(number(row, "senders") for row in rows)
    crowd = {(str(row["design"]), row["within_ns"]): row for row in rows if row["senders"] == most}

    def shown(design: str, column: str, within_ns: int = 0) -> str:
        return lab_cell(column, crowd[design, within_ns][column])

    return Conclusion(
        Word.SUPPORTED,
        f"Of {most:,} at once, a queue makes {shown(_QUEUE, 'interrupts')} interrupt instead of "
        f"{shown(_EACH, 'interrupts')}, and the processor is gone for "
        f"{shown(_QUEUE, 'processor_gone_ns')} instead of {shown(_EACH, 'processor_gone_ns')}. The "
        f"herd is still there: what is left is the work itself, and with it the wait of the last "
        f"sender, {shown(_QUEUE, 'longest_wait_ns')}; only one flush for all that is queued takes "
        f"much of it ({shown(_FLUSH_ONCE, 'longest_wait_ns')}). Spread over 100 ms it needs "
        f"{shown(_QUEUE, 'interrupts', _SLOW_NS)} interrupts instead of "
        f"{shown(_EACH, 'interrupts', _SLOW_NS)}.",
    )


EXPERIMENT = Experiment(
    place=5,
    question="How long is a processor gone when thousands of others interrupt it?",
    setup=(
        "On the machine, one processor, costs assumed. Each sender asks for one invalidation, at a "
        "random moment of the time given, and waits until it is done: eight steps to find address "
        "space and entry, and a flush. *One each*: every sender interrupts. *Queue*: whoever finds "
        "the queue empty interrupts, and the handler works until it is empty. *One flush*: the "
        "handler looks all of them up and then flushes once."
    ),
    claim=(
        "Up to 16,256 processors may interrupt the same one, a thundering herd; who finds the "
        "queue not empty need not interrupt (sources T20)."
    ),
    cases=_cases,
    measure=_measure,
    conclude=_conclude,
    curves=Curves(
        x="senders",
        y="processor_gone_ns",
        series="design",
        logarithmic=("senders", "processor_gone_ns"),
        only={"within_ns": 0},
    ),
)
