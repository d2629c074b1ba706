"""Mutual exclusion, fairness, and the orders in which locks may nest."""

import re

import pytest

from xpmem_emu.errors import KernelBug
from xpmem_emu.sched import Mutex, RwSemaphore

from .bench import Bench


async def critical(bench: Bench, name: str, mutex: Mutex) -> None:
    async with mutex:
        bench.log.append(f"{name} in")
        await bench.scheduler.reschedule()
        bench.log.append(f"{name} out")


def test_a_mutex_admits_one_thread_at_a_time_first_come_first_served(bench: Bench) -> None:
    mutex = bench.mutex()
    for name in "abc":
        bench.thread(name, critical(bench, name, mutex))
    assert bench.run() == ["a in", "a out", "b in", "b out", "c in", "c out"]


def test_a_mutex_is_handed_over_so_that_its_old_owner_cannot_take_it_again_first(
    bench: Bench,
) -> None:
    mutex = bench.mutex()

    async def greedy() -> None:
        for _ in range(2):
            await critical(bench, "greedy", mutex)

    bench.thread("greedy", greedy())
    bench.thread("patient", critical(bench, "patient", mutex))
    assert bench.run()[2] == "patient in"


def test_a_kill_does_not_end_the_wait_for_a_mutex(bench: Bench) -> None:
    mutex = bench.mutex()

    async def hold() -> None:
        async with mutex:
            await bench.scheduler.sleep_until(10)

    bench.thread("holder", hold())
    victim = bench.thread("victim", critical(bench, "victim", mutex))
    bench.thread("next", critical(bench, "next", mutex))
    bench.run()
    bench.scheduler.kill(victim)
    assert bench.run() == []
    assert bench.run(10) == ["victim in", "victim out", "next in", "next out"]


def test_only_the_owner_may_unlock(bench: Bench) -> None:
    mutex = bench.mutex()

    async def steal() -> None:
        mutex.unlock()

    with pytest.raises(KernelBug, match="does not hold"):
        bench.run_one(steal())


async def reader(bench: Bench, name: str, lock: RwSemaphore) -> None:
    async with lock.read():
        bench.log.append(f"{name} in")
        await bench.scheduler.reschedule()
        bench.log.append(f"{name} out")


async def writer(bench: Bench, name: str, lock: RwSemaphore) -> None:
    async with lock.write():
        assert lock.writer is not None
        bench.log.append(f"{name} in")
        await bench.scheduler.reschedule()
        bench.log.append(f"{name} out")


def test_readers_share_and_a_waiting_writer_is_not_overtaken(bench: Bench) -> None:
    lock = bench.semaphore()
    bench.thread("r1", reader(bench, "r1", lock))
    bench.thread("r2", reader(bench, "r2", lock))
    bench.thread("w", writer(bench, "w", lock))
    bench.thread("r3", reader(bench, "r3", lock))
    bench.thread("r4", reader(bench, "r4", lock))
    assert bench.run() == [
        "r1 in",
        "r2 in",
        "r1 out",
        "r2 out",
        "w in",
        "w out",
        "r3 in",
        "r4 in",
        "r3 out",
        "r4 out",
    ]
    assert lock.writer is None


def test_releasing_a_semaphore_that_is_not_held_is_reported(bench: Bench) -> None:
    lock = bench.semaphore()

    async def release() -> None:
        lock.release()

    with pytest.raises(KernelBug, match="does not hold"):
        bench.run_one(release())


def test_taking_a_lock_twice_is_recursive_locking(bench: Bench) -> None:
    lock = bench.semaphore()

    async def twice() -> None:
        async with lock.read(), lock.read():
            pass

    with pytest.raises(KernelBug, match="recursive locking"):
        bench.run_one(twice())


@pytest.mark.parametrize(("first", "second"), [(0x1000, 0x2000), (0x2000, 0x1000)])
def test_locks_of_one_class_nest_lowest_address_first(
    bench: Bench, first: int, second: int
) -> None:
    outer, inner = bench.semaphore(order=first), bench.semaphore(order=second)

    async def nest() -> None:
        async with outer.read(), inner.read():
            bench.log.append("both")

    if first < second:
        assert bench.run_one(nest()) == ["both"]
    else:
        place = r"by only in tests\.sched\.test_locks\..*nest, line \d+; lowest address first"
        with pytest.raises(KernelBug, match=place):
            bench.run_one(nest())


def test_an_inversion_is_reported_although_it_did_not_deadlock_this_time(bench: Bench) -> None:
    mmap_lock, i_mutex = bench.semaphore("mmap_lock"), bench.mutex("i_mutex")

    async def fault() -> None:
        async with mmap_lock.read(), i_mutex:
            bench.log.append("fault")

    async def truncate() -> None:
        async with i_mutex, mmap_lock.write():
            bench.log.append("truncate")

    assert bench.run_one(fault()) == ["fault"]
    with pytest.raises(KernelBug, match="opposite order") as reported:
        bench.run_one(truncate())
    now, _, before = str(reported.value).partition("; the opposite order was seen before: ")
    assert re.match(r"lock order: mmap_lock taken inside i_mutex by \w+ in tests.*truncate,", now)
    assert re.match(r"i_mutex inside mmap_lock by \w+ in tests.*fault, line \d+$", before)


def test_a_circle_of_three_classes_is_reported(bench: Bench) -> None:
    locks = [bench.mutex(name) for name in "abc"]

    async def nest(outer: Mutex, inner: Mutex) -> None:
        async with outer, inner:
            pass

    for i in range(2):
        bench.run_one(nest(locks[i], locks[i + 1]))
    with pytest.raises(KernelBug, match="a taken inside c"):
        bench.run_one(nest(locks[2], locks[0]))


def test_a_spinlock_found_locked_means_that_somebody_slept_or_recursed(bench: Bench) -> None:
    lock = bench.spin()

    def interrupt() -> None:
        with lock:
            assert lock.locked
            with pytest.raises(KernelBug, match="slept or took it twice"), lock:
                pass

    bench.scheduler.call_at(1, interrupt)
    bench.run(1)
    assert not lock.locked


def test_a_sleeping_lock_cannot_be_taken_under_a_spinlock(bench: Bench) -> None:
    async def wrong() -> None:
        with bench.spin("anon_vma"):
            async with bench.mutex():
                pass

    with pytest.raises(KernelBug, match=r"invalid context.*anon_vma"):
        bench.run_one(wrong())


def test_a_sleeping_lock_cannot_be_taken_outside_of_threads(bench: Bench) -> None:
    failures: list[BaseException] = []

    def interrupt() -> None:
        try:
            bench.mutex().lock().send(None)
        except KernelBug as bug:
            failures.append(bug)

    bench.scheduler.call_at(1, interrupt)
    bench.run(1)
    assert "outside of any thread" in str(failures[0])
