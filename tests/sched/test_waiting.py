"""Wait queues, completions, and answers that another partition owes."""

import pytest

from xpmem_emu.errors import KernelBug
from xpmem_emu.sched import Completion, RemoteAnswer, WaitQueue

from .bench import Bench


async def waiter(bench: Bench, name: str, queue: WaitQueue, until: int | None = None) -> None:
    why = await queue.wait_killable(until)
    bench.log.append(f"{name} {why.name}")


def test_waiters_wake_in_the_order_in_which_they_came(bench: Bench) -> None:
    queue = bench.queue()
    for name in "abc":
        bench.thread(name, waiter(bench, name, queue))
    bench.run()
    queue.wake_all()
    assert bench.run() == ["a WOKEN", "b WOKEN", "c WOKEN"]
    assert len(queue) == 0


def test_a_wait_ends_at_its_deadline_and_leaves_the_queue(bench: Bench) -> None:
    queue = bench.queue()
    bench.thread("a", waiter(bench, "a", queue, until=5))
    assert bench.run(4) == []
    assert bench.run(5) == ["a TIMEOUT"]
    assert len(queue) == 0


def test_a_woken_waiter_takes_its_timer_along(bench: Bench) -> None:
    queue = bench.queue()
    bench.thread("a", waiter(bench, "a", queue, until=5))
    bench.run()
    queue.wake_all()
    bench.run(10)
    assert bench.log == ["a WOKEN"]
    assert bench.scheduler.next_deadline_ns() is None


def test_a_killed_waiter_leaves_the_queue_to_the_others(bench: Bench) -> None:
    queue = bench.queue()
    victim = bench.thread("victim", waiter(bench, "victim", queue))
    bench.thread("other", waiter(bench, "other", queue))
    bench.run()
    bench.scheduler.kill(victim)
    queue.wake_all()
    assert bench.run() == ["victim KILLED", "other WOKEN"]


def test_waking_an_empty_queue_does_nothing(bench: Bench) -> None:
    queue = bench.queue()
    queue.wake_all()
    bench.thread("a", waiter(bench, "a", queue))
    assert bench.run() == []


def test_waiting_under_a_spinlock_is_reported_before_anything_is_queued(bench: Bench) -> None:
    queue = bench.queue()

    async def wrong() -> None:
        with bench.spin():
            await queue.wait()

    with pytest.raises(KernelBug, match="invalid context"):
        bench.run_one(wrong())
    assert len(queue) == 0


def test_a_completion_keeps_its_first_value_and_wakes_everybody(bench: Bench) -> None:
    done: Completion[int] = Completion(bench.scheduler)

    async def wait(name: str) -> None:
        why = await done.wait(100)
        bench.log.append(f"{name} {why.name} {done.value}")

    bench.thread("a", wait("a"))
    bench.run()
    with pytest.raises(KernelBug, match="before it was completed"):
        _ = done.value
    done.complete(1)
    done.complete(2)
    bench.thread("late", wait("late"))
    assert bench.run() == ["a WOKEN 1", "late WOKEN 1"]


def test_a_completion_times_out_and_can_be_killed(bench: Bench) -> None:
    done: Completion[None] = Completion(bench.scheduler)

    async def wait(until: int | None) -> None:
        bench.log.append((await done.wait_killable(until)).name)

    bench.thread("slow", wait(5))
    victim = bench.thread("victim", wait(None))
    bench.run(5)
    bench.scheduler.kill(victim)
    assert bench.run(5) == ["TIMEOUT", "KILLED"]


def test_a_completion_at_the_very_deadline_counts_as_done(bench: Bench) -> None:
    done: Completion[None] = Completion(bench.scheduler)

    async def wait() -> None:
        bench.log.append((await done.wait(5)).name)

    bench.thread("a", wait())
    bench.run()
    bench.scheduler.call_at(5, lambda: done.complete(None))
    assert bench.run(5) == ["WOKEN"]


@pytest.mark.parametrize("kind", ["wait", "wait_killable"])
def test_waiting_for_a_remote_answer_without_a_deadline_is_a_bug(bench: Bench, kind: str) -> None:
    answer: RemoteAnswer[int] = RemoteAnswer(bench.scheduler)

    async def wait(until: int | None) -> None:
        bench.log.append((await getattr(answer, kind)(until)).name)

    assert bench.run_one(wait(0)) == ["TIMEOUT"]
    with pytest.raises(KernelBug, match="no deadline"):
        bench.run_one(wait(None))
