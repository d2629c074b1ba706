"""A notifier that has to wait for another partition: under a spinlock, under a semaphore, or
after the lock."""

from collections.abc import Sequence
from random import Random

from msgspec.structs import replace

from xpmem_emu.lab.experiment import Conclusion, Curves, Experiment, LabRow, Setting, Word, number
from xpmem_emu.lab.machine.locks import SleepingLock, SpinningLock
from xpmem_emu.lab.machine.machine import Machine
from xpmem_emu.lab.machine.operations import Give, Nap, PreemptionPoint, StrandSteps, Take, Work
from xpmem_emu.lab.tables import lab_cell
from xpmem_emu.units import MICROSECOND, MILLISECOND

_SPIN, _SEM = "spinlock", "rw-semaphore"
_UNDER, _DEFERRED = "spinlock, called under it", "spinlock, deferred"
_SEM_UNDER = "rw-semaphore, called under it"
_WINDOW_NS = 50 * MILLISECOND
_HELD_NS = 400
"""How much of a brk is done with the lock."""
_ROUND_TRIP_NS = 50 * MICROSECOND
_EVERY_NS = MILLISECOND


class _Anon:
    """Processes that share an anon_vma and call brk all the time, and reclaim, which may have to
    tell an importer."""

    def __init__(self, setting: Setting, case: LabRow) -> None:
        costs, seed = setting.image.machine, setting.seed
        self.window_ns = setting.scaled(_WINDOW_NS)
        self.processors, self.brk_ns = number(case, "processors"), number(case, "one_brk_ns")
        self.machine = Machine(replace(costs, processors=self.processors))
        self.costs, self.design = costs, str(case["lock"])
        self.random = Random(f"{seed}/{self.processors}/{self.brk_ns}")
        kind = SleepingLock if self.design in (_SEM, _SEM_UNDER) else SpinningLock
        self.lock = kind("anon_vma->lock")
        self.brks = 0
        self.invalidated = 0

    def brk_test(self) -> StrandSteps:
        while self.machine.now_ns < self.window_ns:
            yield Work(self.random.randrange(2 * (self.brk_ns - _HELD_NS)))
            yield Take(self.lock)
            yield Work(_HELD_NS)
            yield Give(self.lock)
            self.brks += 1
            yield PreemptionPoint()

    def try_to_unmap(self) -> StrandSteps:
        while self.machine.now_ns < self.window_ns:
            yield Nap(_EVERY_NS)
            yield Take(self.lock)
            yield Work(4 * self.costs.walk)
            if self.design == _DEFERRED:
                yield Give(self.lock)
                yield from self.invalidate_page()
            else:
                yield from self.invalidate_page()
                yield Give(self.lock)
            self.invalidated += 1

    def invalidate_page(self) -> StrandSteps:
        yield Work(self.costs.message)
        yield Nap(_ROUND_TRIP_NS)


def _cases(_setting: Setting) -> list[LabRow]:
    shapes = [(1, 4), (4, 4), (4, 10), (4, 20), (4, 100), (16, 100)]
    return [
        {"processors": processors, "one_brk_ns": us * MICROSECOND, "lock": design}
        for processors, us in shapes
        for design in (_SPIN, _SEM, _UNDER, _SEM_UNDER, _DEFERRED)
    ]


def _measure(setting: Setting, case: LabRow) -> LabRow:
    anon = _Anon(setting, case)
    if anon.design not in (_SPIN, _SEM):
        anon.machine.spawn("kswapd", anon.try_to_unmap())
    for each in range(anon.processors):
        anon.machine.spawn(f"brk {each}", anon.brk_test())
    account = anon.machine.run()
    return {
        "brks": anon.brks,
        "longest_wait_ns": account.sum_of(who="brk", what="anon_vma").longest_ns,
        "invalidated": anon.invalidated,
        "kernel_says": next((str(each) for each in account.complaints), ""),
    }


def _compared(rows: Sequence[LabRow]) -> list[LabRow]:
    """With the brks that are missing beside the spinlock of a kernel without such clients."""
    best: dict[object, int] = {}
    found: list[LabRow] = []
    for row in rows:
        brks = number(row, "brks")
        spin = best.setdefault((row["processors"], row["one_brk_ns"]), brks)
        slower = f"{max(spin - brks, 0) * 100 / spin:.1f} %"
        found.append({**row, "slower": slower})
    return found


def _conclude(rows: Sequence[LabRow]) -> Conclusion:
    found = {(row["lock"], row["processors"], row["one_brk_ns"]): row for row in rows}

    def shown(lock: str, column: str, us: int, processors: int = 4) -> str:
        return lab_cell(column, found[lock, processors, us * MICROSECOND][column])

    return Conclusion(
        Word.SUPPORTED,
        f"Called under the spinlock it is reported: {shown(_UNDER, 'kernel_says', 4)}. All "
        f"processors come to spin for it, none is left for who sleeps, and the machine stops for "
        f"ever. A semaphore works, and makes brk slower where nobody needs it: on four by "
        f"{shown(_SEM, 'slower', 100)} with one brk in 100 us, {shown(_SEM, 'slower', 20)} in 20 "
        f"us, {shown(_SEM, 'slower', 10)} in 10 us, and below that it is a convoy: the lock passes "
        f"from sleeper to sleeper, a switch each. The 10 to 15 % of AIM9 lie within. Deferred, brk "
        f"is slower by {shown(_DEFERRED, 'slower', 20)} (20 us) while reclaim invalidates a page "
        f"in each millisecond, and waits {shown(_DEFERRED, 'longest_wait_ns', 20)} at most "
        f"instead of {shown(_SEM_UNDER, 'longest_wait_ns', 20)}.",
    )


EXPERIMENT = Experiment(
    place=2,
    question="What does a notifier cost that sleeps under the lock of a reverse map?",
    setup=(
        "On the machine, 50 ms, costs assumed. On each processor a process calls brk all the time; "
        "400 ns of each call are spent with the anon_vma lock that all of them share. Reclaim "
        "takes that lock once in a millisecond to unmap a page, of which another partition has to "
        "be told: 50 us there and back. The first two rows of each group have no such client. "
        "*Slower*: brks that are missing beside the spinlock without a client."
    ),
    claim=(
        "A rw-semaphore in place of the spinlock lets reverse maps sleep, and the brk test of AIM9 "
        "goes down by 10 to 15 %; what sleeps can be done after the lock (sources T10, T11, T12)."
    ),
    cases=_cases,
    measure=_measure,
    conclude=_conclude,
    combine=_compared,
    curves=Curves(
        x="one_brk_ns",
        y="longest_wait_ns",
        series="lock",
        logarithmic=("one_brk_ns", "longest_wait_ns"),
        only={"processors": 4},
    ),
)
