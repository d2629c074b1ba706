"""Threads, timers, kills and the end of a kernel."""

import gc
import re

import pytest

from xpmem_emu.errors import KernelBug
from xpmem_emu.sched import Wake

from .bench import Bench


def test_threads_run_in_the_order_of_their_creation_until_they_park(bench: Bench) -> None:
    async def step(name: str) -> None:
        bench.log.append(f"{name}1")
        await bench.scheduler.reschedule()
        bench.log.append(f"{name}2")

    for name in "abc":
        bench.thread(name, step(name))
    assert bench.run() == ["a1", "b1", "c1", "a2", "b2", "c2"]
    assert not bench.scheduler.threads


def test_a_simulator_can_pick_who_runs_next(bench: Bench) -> None:
    async def say(name: str) -> None:
        bench.log.append(name)

    bench.scheduler.pick = lambda runnable: runnable - 1
    for name in "abc":
        bench.thread(name, say(name))
    assert bench.run() == ["c", "b", "a"]


def test_sleepers_wake_at_their_time_in_the_order_of_deadlines(bench: Bench) -> None:
    async def sleep(name: str, until_ns: int) -> None:
        assert await bench.scheduler.sleep_until(until_ns) is Wake.TIMEOUT
        bench.log.append(f"{name}@{bench.scheduler.now_ns}")

    for name, until_ns in (("late", 30), ("early", 10), ("same", 30)):
        bench.thread(name, sleep(name, until_ns))
    assert bench.run(9) == []
    assert bench.scheduler.next_deadline_ns() == 10
    assert bench.run(10) == ["early@10"]
    assert bench.run(100) == ["early@10", "late@100", "same@100"]
    assert bench.scheduler.next_deadline_ns() is None


def test_a_deadline_in_the_past_ends_a_sleep_in_the_same_run(bench: Bench) -> None:
    async def sleep() -> None:
        await bench.scheduler.sleep_until(5)
        bench.log.append("awake")

    bench.thread("sleeper", sleep())
    assert bench.run(50) == ["awake"]


def test_time_never_goes_back(bench: Bench) -> None:
    bench.run(50)
    bench.run(20)
    assert bench.scheduler.now_ns == 50


def test_a_cancelled_timer_does_not_fire_and_leaves_nothing(bench: Bench) -> None:
    timers = [bench.scheduler.call_at(i, lambda: bench.log.append("fired")) for i in range(200)]
    for timer in timers[1:]:
        bench.scheduler.cancel(timer)
        bench.scheduler.cancel(timer)
    assert bench.scheduler.next_deadline_ns() == 0
    assert len(bench.scheduler._timers) < 100
    assert bench.run(1000) == ["fired"]


def test_a_timer_may_set_a_timer(bench: Bench) -> None:
    def first() -> None:
        bench.scheduler.call_at(2, lambda: bench.log.append("second"))

    bench.scheduler.call_at(1, first)
    assert bench.run(5) == ["second"]


def test_a_kill_ends_killable_waits_present_and_future_and_no_others(bench: Bench) -> None:
    async def wait() -> None:
        bench.log.append((await bench.scheduler.sleep_until_killable(100)).name)
        bench.log.append((await bench.scheduler.sleep_until_killable(100)).name)
        bench.log.append((await bench.scheduler.sleep_until(100)).name)

    thread = bench.thread("victim", wait())
    bench.run()
    bench.scheduler.kill(thread)
    assert bench.run(1) == ["KILLED", "KILLED"]
    assert bench.run(100) == ["KILLED", "KILLED", "TIMEOUT"]
    assert bench.scheduler.next_deadline_ns() is None


def test_sleeping_under_a_spinlock_is_reported_with_task_lock_and_place(bench: Bench) -> None:
    async def sleep() -> None:
        with bench.spin("page_table_lock"):
            await bench.scheduler.sleep_until(1)

    bench.thread("faulter", sleep())
    with pytest.raises(KernelBug, match="invalid context") as reported:
        bench.run()
    assert re.search(
        r"faulter holds spinlock page_table_lock in tests\.sched\.test_scheduler\."
        r"test_sleeping\w+\.<locals>\.sleep, line \d+$",
        str(reported.value),
    )


def test_even_yielding_under_a_spinlock_is_reported(bench: Bench) -> None:
    async def give_way() -> None:
        with bench.spin():
            await bench.scheduler.reschedule()

    with pytest.raises(KernelBug, match="invalid context"):
        bench.run_one(give_way())


def test_of_those_in_long_work_one_goes_on_in_each_step(bench: Bench) -> None:
    async def work(name: str) -> None:
        for piece in range(2):
            bench.log.append(f"{name}{piece}")
            await bench.scheduler.cond_resched()

    for name in "abc":
        bench.thread(name, work(name))
    assert bench.run() == ["a0", "b0", "c0"]
    for now_ns, done in ((1, "a1"), (50, "b1"), (51, "c1")):
        assert bench.scheduler.next_deadline_ns() is not None
        assert bench.run(now_ns)[3:][-1] == done
    for now_ns in (52, 53, 54):
        bench.run(now_ns)
    assert (len(bench.log), bench.scheduler.threads) == (6, {})
    assert bench.scheduler.next_deadline_ns() is None


def test_who_asks_does_not_wait_for_a_piece_of_long_work(bench: Bench) -> None:
    async def work() -> None:
        await bench.scheduler.cond_resched()
        bench.log.append("piece")

    bench.thread("worker", work())
    bench.run()
    bench.scheduler.run(10, idle=False)
    assert bench.log == []
    assert bench.scheduler.next_deadline_ns() == 11
    assert bench.run(11) == ["piece"]


def test_a_thread_that_ends_with_a_lock_held_is_reported(bench: Bench) -> None:
    async def forget() -> None:
        await bench.mutex("forgotten").lock()

    with pytest.raises(KernelBug, match="ended with locks held: forgotten"):
        bench.run_one(forget())


def test_an_exception_leaves_the_run_and_names_its_thread(bench: Bench) -> None:
    async def fail() -> None:
        raise ValueError("broken")

    bench.thread("culprit", fail())
    with pytest.raises(ValueError, match="broken"):
        bench.run()
    assert bench.scheduler.thread_name() == "culprit"


def test_outside_of_threads_the_context_is_called_irq(bench: Bench) -> None:
    bench.scheduler.call_at(1, lambda: bench.log.append(bench.scheduler.thread_name()))
    assert bench.run(1) == ["irq"]


def test_close_drops_threads_that_hold_locks_and_want_to_sleep_on_the_way_out(bench: Bench) -> None:
    mutex, queue = bench.mutex(), bench.queue()

    async def work(name: str) -> None:
        try:
            async with mutex:
                await queue.wait()
        finally:
            await queue.wait()
            bench.log.append(f"{name} slept during close")

    for name in "ab":
        bench.thread(name, work(name))
    bench.thread("never started", work("c"))
    bench.run()
    bench.thread("new", work("d"))
    bench.scheduler.close()
    assert bench.run(10) == []
    assert not bench.scheduler.threads
    assert bench.scheduler.current is None


@pytest.mark.filterwarnings("error")
def test_what_a_dead_image_spawns_never_begins(bench: Bench) -> None:
    """Neither by a thread on its way out, nor later by somebody who holds the image."""

    async def work(name: str) -> None:
        bench.log.append(name)

    async def last_will() -> None:
        try:
            await bench.queue().wait()
        finally:
            bench.thread("will", work("will"))

    for name in "ab":
        bench.thread(name, last_will())
    bench.run()
    bench.scheduler.close()
    bench.thread("late", work("late"))
    assert bench.run(10) == []
    assert not bench.scheduler.threads
    gc.collect()


def test_close_survives_a_thread_whose_cleanup_fails(bench: Bench) -> None:
    async def work() -> None:
        try:
            await bench.queue().wait()
        finally:
            raise KernelBug("state is broken")

    bench.thread("broken", work())
    bench.run()
    bench.scheduler.close()
    assert not bench.scheduler.threads
