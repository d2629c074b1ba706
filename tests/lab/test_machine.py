"""The costed machine: its arithmetic by hand, and what holds for whatever runs on it."""

import pytest

from tests.lab.costs import costs
from xpmem_emu.image import ImageError, read_image
from xpmem_emu.lab.machine.account import Account, WaitKind
from xpmem_emu.lab.machine.locks import Latch, SleepingLock, SpinningLock
from xpmem_emu.lab.machine.machine import Machine
from xpmem_emu.lab.machine.operations import (
    Give,
    MaskInterrupts,
    Nap,
    PreemptionPoint,
    Raise,
    SleepUntil,
    StrandSteps,
    Take,
    TakeShared,
    UnmaskInterrupts,
    Work,
)
from xpmem_emu.lab.machine.order import LockOrder
from xpmem_emu.lab.machine.strand import Doing


def longest(account: Account, who: str, how: str) -> int:
    return account.sum_of(who=who, how=how).longest_ns


def test_the_arithmetic_is_that_of_an_example_worked_by_hand() -> None:
    """Two processors, three tasks, one lock, one interrupt.

    ns    processor 0                        processor 1
    0     switch to a                        switch to b, and c is ready
    1000  a takes L, which is free: 10       b works 200
    1010  a works 5000                       at 1200 b asks for L and spins
    2000  interrupt: 500, its handler 1000; a has 4010 left
    3500  a goes on
    7510  a gives L, works 300               L passes to b: 100
    7610                                     b has waited 7610 - 1200 = 6410, works 700
    7810  a ends; switch to c                at 8310 b gives L and ends, idle from there
    8810  c has waited 8810, works 90
    8900  c ends                             idle for 8900 - 8310 = 590

    Busy 8900 + (1200 + 700), spinning 6410, idle 590: twice 8900 in all.
    """
    machine, lock = Machine(costs(2)), SpinningLock("L")

    def a() -> StrandSteps:
        yield Take(lock)
        yield Work(5000)
        yield Give(lock)
        yield Work(300)

    def b() -> StrandSteps:
        yield Work(200)
        yield Take(lock)
        yield Work(700)
        yield Give(lock)

    def only(ns: int) -> StrandSteps:
        yield Work(ns)

    machine.spawn("a", a())
    machine.spawn("b", b())
    machine.spawn("c", only(90))
    machine.at(2000, lambda: machine.interrupt(0, "irq", lambda: only(1000)))
    account = machine.run()
    assert account.elapsed_ns == 8900
    assert account.spent_ns == {Doing.BUSY: 10_800, Doing.SPIN: 6410, Doing.IDLE: 590}
    waits = {kind: each.total_ns for kind, each in account.waits.items()}
    assert waits == {
        WaitKind("a", "a processor", "ready", ""): 1000,
        WaitKind("b", "a processor", "ready", ""): 1000,
        WaitKind("c", "a processor", "ready", ""): 8810,
        WaitKind("b", "L", "spinning", "preemption"): 6410,
        WaitKind("irq", "processor 0", "pending", ""): 0,
    }
    assert account.complaints == {}


def test_a_semaphore_lets_the_processor_go_and_costs_two_switches() -> None:
    """0: switch to a. 1000: a takes S (10) and naps 5000 with it; switch to b. 2010: b asks for S
    and sleeps, idle. 6010: a is ready, switch. 7010: a gives S; b has it, and is ready. a works
    50 and ends, 7060: switch to b, who has waited for S from 2010 to 7010."""
    machine, lock = Machine(costs(1)), SleepingLock("S")

    def a() -> StrandSteps:
        yield Take(lock)
        yield Nap(5000)
        yield Give(lock)
        yield Work(50)

    def b() -> StrandSteps:
        yield Take(lock)
        yield Give(lock)

    machine.spawn("a", a())
    machine.spawn("b", b())
    account = machine.run()
    assert account.elapsed_ns == 8060
    assert longest(account, "b", "sleeping") == 5000
    assert account.spent_ns[Doing.IDLE] == 6010 - 2010


def test_a_reader_who_comes_after_a_writer_waits_behind_it() -> None:
    machine, lock = Machine(costs(3)), SleepingLock("S")
    order: list[str] = []

    def reader(name: str, after_ns: int) -> StrandSteps:
        yield Work(after_ns)
        yield TakeShared(lock)
        order.append(name)
        yield Work(2000)
        yield Give(lock)

    def writer() -> StrandSteps:
        yield Work(500)
        yield Take(lock)
        order.append("writer")
        yield Give(lock)

    machine.spawn("first", reader("first", 0))
    machine.spawn("writer", writer())
    machine.spawn("second", reader("second", 1000))
    machine.run()
    assert order == ["first", "writer", "second"]


def test_an_interrupt_waits_as_long_as_they_are_off() -> None:
    machine = Machine(costs(1))

    def deaf() -> StrandSteps:
        yield MaskInterrupts()
        yield Work(9000)
        yield UnmaskInterrupts()
        yield Work(1)

    def handler() -> StrandSteps:
        yield Work(5)

    machine.spawn("deaf", deaf())
    machine.at(3000, lambda: machine.interrupt(0, "irq", handler))
    account = machine.run()
    assert account.waits[WaitKind("irq", "processor 0", "pending", "interrupts")].total_ns == 7000
    assert account.elapsed_ns == 1000 + 9000 + 500 + 5 + 1


def test_an_interrupted_waiter_has_its_lock_when_the_handler_ends() -> None:
    machine, lock = Machine(costs(2)), SpinningLock("L")

    def holder() -> StrandSteps:
        yield Take(lock)
        yield Work(1000)
        yield Raise(1, "irq", handler)
        yield Work(100)
        yield Give(lock)

    def waiter() -> StrandSteps:
        yield Work(100)
        yield Take(lock)
        yield Give(lock)

    def handler() -> StrandSteps:
        yield Work(20_000)

    machine.spawn("holder", holder())
    machine.spawn("waiter", waiter())
    account = machine.run()
    # Raised at 2010, served until 2010 + 500 + 20,000; then the hand-over.
    assert account.elapsed_ns == 22_510 + 100
    assert longest(account, "waiter", "spinning") == 22_610 - 1100


def test_who_sleeps_with_a_spinlock_is_told_with_lock_place_and_task() -> None:
    machine, lock = Machine(costs(2)), SpinningLock("i_mmap_lock")

    def invalidate() -> StrandSteps:
        yield Nap(100)

    def truncate() -> StrandSteps:
        yield Take(lock)
        yield from invalidate()
        yield Give(lock)

    machine.spawn("vmtruncate", truncate())
    (told,) = machine.run().complaints
    assert str(told) == (
        "BUG: sleeping function called from invalid context (i_mmap_lock taken in truncate): "
        "vmtruncate in invalidate"
    )


@pytest.mark.parametrize(
    ("steps", "why"),
    [
        ([MaskInterrupts(), Nap(1)], "interrupts off"),
        ([MaskInterrupts(), PreemptionPoint()], "interrupts off"),
        ([MaskInterrupts(), SleepUntil(Latch("l"))], "interrupts off"),
    ],
)
def test_so_is_who_sleeps_with_interrupts_off(steps: list[MaskInterrupts], why: str) -> None:
    machine = Machine(costs(1))
    machine.spawn("t", (each for each in steps))
    assert any(why in each.text for each in machine.run().complaints)


def test_a_semaphore_may_not_be_taken_under_a_spinlock_even_if_it_is_free() -> None:
    machine, spin, sem = Machine(costs(1)), SpinningLock("spin"), SleepingLock("sem")

    def wrong() -> StrandSteps:
        yield Take(spin)
        yield Take(sem)
        yield Give(sem)
        yield Give(spin)

    machine.spawn("t", wrong())
    assert len(machine.run().complaints) == 1


def test_a_handler_that_would_sleep_is_told_and_keeps_its_processor() -> None:
    machine = Machine(costs(1))

    def handler() -> StrandSteps:
        yield Nap(7000)

    machine.at(0, lambda: machine.interrupt(0, "irq", handler))
    account = machine.run()
    assert account.spent_ns == {Doing.BUSY: 500, Doing.SPIN: 7000, Doing.IDLE: 0}
    assert "in an interrupt handler" in next(iter(account.complaints)).text


def test_a_lock_that_a_handler_wants_from_whom_it_interrupted_is_a_deadlock() -> None:
    machine, lock = Machine(costs(1)), SpinningLock("L")

    def holder() -> StrandSteps:
        yield Take(lock)
        yield Work(1000)
        yield Give(lock)

    def handler() -> StrandSteps:
        yield Take(lock)
        yield Give(lock)

    machine.spawn("holder", holder())
    machine.at(1500, lambda: machine.interrupt(0, "irq", handler))
    told = [str(each) for each in machine.run().complaints]
    assert "deadlock: spinning for L for ever: irq in handler" in told


def test_who_takes_mmap_sems_against_their_addresses_is_told_with_the_other_order() -> None:
    machine = Machine(costs(1), LockOrder())
    low, high = (SleepingLock("mmap_sem", address, "mmap_sem") for address in (0x1000, 0x2000))

    def importer_first() -> StrandSteps:
        yield Take(low)
        yield Take(high)
        yield Give(high)
        yield Give(low)

    def exporter_first() -> StrandSteps:
        yield Take(high)
        yield Take(low)
        yield Give(low)
        yield Give(high)

    machine.spawn("right", importer_first())
    machine.spawn("wrong", exporter_first())
    (told,) = machine.run().complaints
    assert str(told) == (
        "possible deadlock: mmap_sem (0x1000) is taken after mmap_sem (0x2000), lowest address "
        "comes first; the other order seen: right in importer_first: wrong in exporter_first"
    )


def test_under_a_lock_that_serialises_them_any_order_is_right() -> None:
    machine = Machine(costs(1), LockOrder())
    top = SpinningLock("all")
    locks = [SpinningLock("anon_vma", address, "anon_vma") for address in (3, 1, 2)]

    def everyone() -> StrandSteps:
        yield Take(top)
        for each in locks:
            yield Take(each, under=top)
        for each in (*locks, top):
            yield Give(each)

    machine.spawn("t", everyone())
    assert machine.run().complaints == {}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[machine]\nlock = "-5ns"', "machine.lock: -5ns is below zero"),
        ("[machine]\nprocessors = 65", "machine.processors: Expected `int` <= 64"),
        ("[machine]\nprocessors = 0", "machine.processors: Expected `int` >= 1"),
        ("[machine]\nfluxes = 3", "machine.fluxes: no such key"),
    ],
)
def test_a_machine_that_cannot_be_is_refused_by_its_key(text: str, told: str) -> None:
    with pytest.raises(ImageError) as refused:
        read_image(text)
    assert told in refused.value.cause
    assert refused.value.remedy
