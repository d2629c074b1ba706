"""Ways to keep every truncate out while a client subscribes, and what each costs whom."""

from collections.abc import Sequence
from random import Random

from msgspec.structs import replace

from xpmem_emu.image import MachineSection
from xpmem_emu.lab.experiment import Conclusion, Curves, Experiment, LabRow, Setting, Word, number
from xpmem_emu.lab.machine.locks import Latch, SpinningLock
from xpmem_emu.lab.machine.machine import Machine
from xpmem_emu.lab.machine.operations import (
    Give,
    MaskInterrupts,
    Open,
    PreemptionPoint,
    Raise,
    SpinUntil,
    StrandSteps,
    Take,
    UnmaskInterrupts,
    Work,
)
from xpmem_emu.lab.tables import lab_cell
from xpmem_emu.units import MICROSECOND, MILLISECOND

_SORTED, _GLOBAL = "sorted array", "one lock first"
_GLOBAL_ALL, _STOP = "one lock, truncates too", "stop-machine"
_DESIGNS = (_SORTED, _GLOBAL, _GLOBAL_ALL, _STOP)
_COMPARE_NS = 20
_TRUNCATED_PAGES = 16
_BETWEEN_NS = 50 * MICROSECOND
_WINDOW_NS, _LEAST_NS = 500, 3 * MILLISECOND
"""Truncates are counted for so long for each area, and at least so long, whatever the design."""


class _World:
    """One address space for each client, and tasks that truncate files mapped there."""

    def __init__(
        self, costs: MachineSection, design: str, areas: int, least_ns: int, seed: str
    ) -> None:
        self.machine = Machine(costs)
        self.costs, self.design, self.random = costs, design, Random(seed)
        self.top = SpinningLock("the lock above")
        self.spaces: list[list[SpinningLock]] = []
        self.areas = areas
        self.window_ns = max(areas * _WINDOW_NS, least_ns)
        self.left = 0
        self.truncates = 0
        self.ready_ns = 0

    def client(self) -> None:
        """Somebody subscribes, to an address space of its own."""
        addresses = self.random.sample(range(1, 1 << 30), self.areas)
        locks = [SpinningLock("i_mmap_lock", each, "i_mmap_lock") for each in addresses]
        self.spaces.append(locks)
        self.left += 1
        name = f"client {self.left}"
        match self.design:
            case "sorted array":
                steps = self._by_sorting(locks)
            case "stop-machine":
                steps = self._by_stopping(name)
            case _:
                steps = self._by_global(locks)
        self.machine.spawn(name, steps)

    def truncater(self) -> StrandSteps:
        """Truncates one file after the other, each of which is in some address space."""
        zap_ns = _TRUNCATED_PAGES * self.costs.walk + self.costs.flush
        while self.left or self.machine.now_ns < self.window_ns:
            lock = self.random.choice(self.random.choice(self.spaces))
            if self.design == _STOP:
                yield MaskInterrupts()
            if self.design == _GLOBAL_ALL:
                yield Take(self.top)
            yield Take(lock)
            yield Work(zap_ns)
            yield Give(lock)
            if self.design == _GLOBAL_ALL:
                yield Give(self.top)
            if self.design == _STOP:
                yield UnmaskInterrupts()
            self.truncates += 1
            yield PreemptionPoint()
            yield Work(self.random.randrange(2 * _BETWEEN_NS))

    def _subscribed(self) -> None:
        self.left -= 1
        self.ready_ns = self.machine.now_ns

    def _by_sorting(self, locks: list[SpinningLock]) -> StrandSteps:
        # What is collected comes from the list of areas; the array is of pages of 512 pointers.
        yield Work(len(locks) * self.costs.walk + (len(locks) // 512 + 1) * self.costs.copy)
        yield Work(len(locks) * len(locks).bit_length() * _COMPARE_NS)
        ordered = sorted(locks, key=lambda lock: lock.address)
        for lock in ordered:
            yield Take(lock)
        self._subscribed()
        for lock in ordered:
            yield Give(lock)

    def _by_global(self, locks: list[SpinningLock]) -> StrandSteps:
        yield Take(self.top)
        for lock in locks:
            yield Work(self.costs.walk)
            yield Take(lock, under=self.top)
        self._subscribed()
        for lock in locks:
            yield Give(lock)
        yield Give(self.top)

    def _by_stopping(self, name: str) -> StrandSteps:
        yield Take(self.top)  # two who stop each other would wait for ever
        all_stopped, go_on = Latch("all to stop"), Latch("the machine to go on")
        others = [each for each in self.machine.processors if not each.top or each.top.name != name]
        running = len(others)

        def stop() -> StrandSteps:
            nonlocal running
            running -= 1
            if not running:
                yield Open(all_stopped)
            yield SpinUntil(go_on)

        for each in others:
            yield Raise(each.number, "stop", stop)
        if others:
            yield SpinUntil(all_stopped)
        self._subscribed()
        yield Open(go_on)
        yield Give(self.top)


def _cases(setting: Setting) -> list[LabRow]:
    some, most = setting.scaled(1000, 10), setting.scaled(65_536, 100)
    shapes = [
        *((areas, truncating, 1) for areas in (some, most) for truncating in (1, 15, 63)),
        (10, 15, 1),
        (most // 8, 15, 1),
        (some, 15, 4),
    ]
    return [
        {"areas": areas, "truncating": truncating, "clients": clients, "design": design}
        for areas, truncating, clients in sorted(dict.fromkeys(shapes))
        for design in _DESIGNS
    ]


def _measure(setting: Setting, case: LabRow) -> LabRow:
    truncating, clients = number(case, "truncating"), number(case, "clients")
    costs = replace(setting.image.machine, processors=min(truncating + clients, 64))
    seed = f"{setting.seed}/{case['areas']}/{truncating}"
    least_ns = setting.scaled(_LEAST_NS)
    world = _World(costs, str(case["design"]), number(case, "areas"), least_ns, seed)
    for _ in range(clients):
        world.client()
    for each in range(truncating):
        world.machine.spawn(f"truncate {each}", world.truncater())
    account = world.machine.run()
    waits = account.sum_of(who="truncate", how="spinning")
    stopped = account.sum_of(who="stop")
    return {
        "subscribed_ns": world.ready_ns - costs.switch,
        "truncates_per_ms": world.truncates * MILLISECOND // account.elapsed_ns,
        "longest_wait_ns": max(waits.longest_ns, stopped.longest_ns),
    }


def _conclude(rows: Sequence[LabRow]) -> Conclusion:
    largest = max(number(row, "areas") for row in rows)
    crowd = {
        str(row["design"]): row
        for row in rows
        if row["areas"] == largest and row["truncating"] == 63
    }
    several = {str(row["design"]): row for row in rows if row["clients"] == 4}

    def shown(design: str, column: str, found: dict[str, LabRow] = crowd) -> str:
        return lab_cell(column, found[design][column])

    return Conclusion(
        Word.BOTH,
        f"With {largest:,} areas one lock first subscribes in {shown(_GLOBAL, 'subscribed_ns')}, "
        f"sorting takes {shown(_SORTED, 'subscribed_ns')}: the objection holds, most of the time "
        f"is the sorting. But sorting is done with no lock held, so a truncate waits "
        f"{shown(_SORTED, 'longest_wait_ns')} at most instead of "
        f"{shown(_GLOBAL, 'longest_wait_ns')}. That the new lock would serialise all truncates is "
        f"true only if each of them takes it ({shown(_GLOBAL_ALL, 'truncates_per_ms')} in a "
        f"millisecond instead of {shown(_GLOBAL, 'truncates_per_ms')}), and who takes one lock "
        f"needs no order. Four clients at once are where sorting is ahead: "
        f"{shown(_SORTED, 'subscribed_ns', several)} against "
        f"{shown(_GLOBAL, 'subscribed_ns', several)} with {shown(_SORTED, 'areas', several)} "
        f"areas each. Stopping the machine takes {shown(_STOP, 'subscribed_ns')} and is right only "
        f"if every truncate keeps interrupts off from start to end, for ever.",
    )


EXPERIMENT = Experiment(
    place=3,
    question="What does it cost to keep every truncate out while a client subscribes?",
    setup=(
        "On the machine, costs assumed. An address space has a spinlock for each area; clients "
        "subscribe, each to its own space, while each other processor truncates one file after the "
        "other: one lock, 16 entries, a flush, then 50 us of something else. *Sorted array*: "
        "collect, sort (20 ns a comparison), take all by address. *One lock first*: take it, then "
        "all in the order of the list; a truncate takes only its own. *Truncates too*: as the "
        "objection was first understood. *Stop-machine*: all other processors wait in an "
        "interrupt, which truncates hold off. Truncates are counted over the same time in each "
        "design."
    ),
    claim=(
        "Sorting locks in a vmalloc'ed array is no excuse when one more lock above them would do; "
        "against it: such a lock serialises all truncates (sources T8). And: stop the machine, "
        "subscribing is rare (sources T24)."
    ),
    cases=_cases,
    measure=_measure,
    conclude=_conclude,
    curves=Curves(
        x="areas",
        y="subscribed_ns",
        series="design",
        logarithmic=("areas", "subscribed_ns"),
        only={"truncating": 15, "clients": 1},
    ),
)
