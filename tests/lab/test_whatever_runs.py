"""What holds on the costed machine for whatever tasks do: locks exclude, nobody is forgotten, time
is conserved."""

from random import Random

import pytest

from tests.lab.costs import costs
from xpmem_emu.lab.machine.account import Account
from xpmem_emu.lab.machine.locks import Latch, SleepingLock, SpinningLock
from xpmem_emu.lab.machine.machine import Machine
from xpmem_emu.lab.machine.operations import (
    Give,
    MaskInterrupts,
    Nap,
    Open,
    PreemptionPoint,
    Raise,
    SleepUntil,
    StrandSteps,
    Take,
    TakeShared,
    UnmaskInterrupts,
    Work,
)
from xpmem_emu.lab.machine.strand import Doing


class Drawn:
    """Tasks that do what a seed says, and look whether they are alone where they should be."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.machine = Machine(costs(self.random.randint(1, 6)))
        self.spins = [SpinningLock(f"spin{n}") for n in range(3)]
        self.sems = [SleepingLock(f"sem{n}") for n in range(3)]
        self.latches = [Latch(f"latch{n}") for n in range(4)]
        self.inside: dict[object, int] = {}
        self.ended = 0
        self.worked_ns = 0

    def work(self) -> StrandSteps:
        ns = self.random.choice([0, 1, 50, 3000])
        self.worked_ns += ns
        yield Work(ns)

    def alone(self, take: Take | TakeShared) -> StrandSteps:
        yield take
        count = self.inside[take.lock] = self.inside.get(take.lock, 0) + 1
        assert count == 1 or isinstance(take, TakeShared)
        yield from self.work()
        self.inside[take.lock] -= 1
        yield Give(take.lock)

    def task(self, opens: Latch | None) -> StrandSteps:
        for _ in range(self.random.randint(1, 12)):
            match self.random.randrange(7):
                case 0:
                    yield from self.alone(Take(self.random.choice(self.spins)))
                case 1:
                    yield from self.alone(Take(self.random.choice(self.sems)))
                case 2:
                    yield from self.alone(TakeShared(self.random.choice(self.sems)))
                case 3:
                    yield Nap(self.random.choice([0, 10, 5000]))
                case 4:
                    yield MaskInterrupts()
                    yield from self.alone(Take(self.random.choice(self.spins)))
                    yield UnmaskInterrupts()
                case 5:
                    yield Raise(
                        self.random.randrange(len(self.machine.processors)), "irq", self.irq
                    )
                case _:
                    yield PreemptionPoint()
        if opens is not None:
            yield Open(opens)
        self.ended += 1

    def waiter(self, latch: Latch) -> StrandSteps:
        yield from self.work()
        yield SleepUntil(latch)
        self.ended += 1

    def irq(self) -> StrandSteps:
        yield from self.work()


@pytest.mark.parametrize("seed", range(60))
def test_whatever_runs_excludes_wakes_and_conserves_time(seed: int) -> None:
    print("seed", seed)
    drawn = Drawn(seed)
    for number, latch in enumerate(drawn.latches):
        drawn.machine.spawn(f"waiter{number}", drawn.waiter(latch))
        drawn.machine.spawn(f"early{number}", drawn.task(latch))
    others = drawn.random.randint(1, 10)
    for number in range(others):
        drawn.machine.spawn(f"task{number}", drawn.task(None))
    account = drawn.machine.run()
    assert drawn.ended == 2 * len(drawn.latches) + others, "a wake-up was lost"
    assert account.complaints == {}, "nothing waits for ever"
    assert all(ns >= 0 for ns in account.spent_ns.values())
    assert sum(account.spent_ns.values()) == account.processors * account.elapsed_ns
    assert account.spent_ns[Doing.BUSY] >= drawn.worked_ns
    spun = account.sum_of(how="spinning").total_ns
    assert account.spent_ns[Doing.SPIN] <= spun, "who is interrupted waits on while others work"


def test_a_run_is_the_same_again() -> None:
    def run() -> Account:
        drawn = Drawn(7)
        for number in range(12):
            drawn.machine.spawn(f"task{number}", drawn.task(None))
        return drawn.machine.run()

    assert run() == run()
