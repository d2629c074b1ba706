"""What the experiments found holds at small size, too: each is a claim, and a claim is a test."""

import pytest

from xpmem_emu.lab.experiment import LabRow, Setting, number
from xpmem_emu.lab.registry import experiment_names, find_experiment
from xpmem_emu.lab.running import measured_case
from xpmem_emu.units import PAGE_SIZE

SMALL = Setting(percent=1)


def rows(name: str, **wanted: int | str) -> list[LabRow]:
    """The rows of a small run whose given columns have these values."""
    experiment = find_experiment(name)
    cases = [
        case
        for case in experiment.cases(SMALL)
        if all(case[column] == value for column, value in wanted.items())
    ]
    assert cases, "no case is like that"
    return list(experiment.combine([measured_case(name, SMALL, case) for case in cases]))


def test_a_crossed_answer_is_stale_memory_unless_active_faults_are_marked() -> None:
    marked, unmarked = rows("inflight-race")
    assert marked["answer_crossed"] == unmarked["answer_crossed"]
    assert number(unmarked, "answer_crossed") > 0
    assert marked["stale_reached"] == 0
    assert unmarked["stale_reached"] == unmarked["answer_crossed"]


def test_who_sleeps_under_the_spinlock_is_told_with_lock_place_and_task() -> None:
    for row in rows("sleeping-notifier", lock="spinlock, called under it"):
        assert row["kernel_says"] == (
            "BUG: sleeping function called from invalid context (anon_vma->lock taken in "
            "try_to_unmap): kswapd in invalidate_page"
        )
    for lock in ("rw-semaphore, called under it", "spinlock, deferred"):
        assert {row["kernel_says"] for row in rows("sleeping-notifier", lock=lock)} == {""}


def test_one_lock_first_subscribes_sooner_and_sorting_keeps_truncates_waiting_less() -> None:
    most = max(number(case, "areas") for case in find_experiment("mm-lock").cases(SMALL))
    found = {row["design"]: row for row in rows("mm-lock", areas=most, truncating=63)}
    by_sort, by_one = found["sorted array"], found["one lock first"]
    assert number(by_one, "subscribed_ns") < number(by_sort, "subscribed_ns")
    assert number(by_sort, "longest_wait_ns") < number(by_one, "longest_wait_ns")


def test_a_queue_needs_one_interrupt() -> None:
    assert {row["interrupts"] for row in rows("herd", design="queue", within_ns=0)} == {1}
    for row in rows("herd", design="one each"):
        assert row["interrupts"] == row["senders"]


def test_a_bitmap_makes_slots_fast_and_leaves_them_large() -> None:
    slots, bitmap = (
        rows("central-buffer", design="slot a processor"),
        rows("central-buffer", design="slots, with a bitmap"),
    )
    for plain, mapped in zip(slots, bitmap, strict=True):
        assert number(mapped, "messages_per_s") > number(plain, "messages_per_s")
        assert number(mapped, "memory_bytes") > number(plain, "memory_bytes")


@pytest.mark.parametrize(
    ("means", "corrupted"), [("both, no fence", 16), ("both", 0), ("time limit of 2 s", 0)]
)
def test_only_without_a_fence_does_a_late_store_change_pages_of_others(
    means: str, corrupted: int
) -> None:
    (row,) = rows("peer-dies", the_peer="is busy for 1.5 s", found_out_by=means)
    assert row["pages_corrupted"] == corrupted
    assert row["fault_beside_waits_ns"] == 0


def test_read_ahead_saves_faults_or_recalls_in_vain() -> None:
    alone = rows("read-ahead", a_fault_brings="the page alone")
    around = rows("read-ahead", a_fault_brings="16 before, 32 after")
    assert all(row["faults"] == row["touched"] for row in alone)
    assert {row["recalls"] for row in alone} == {0}
    found = {row["access"]: row for row in around}
    assert number(found["sequential"], "faults") == 1
    assert number(found["false sharing"], "recalls") > 0


@pytest.mark.parametrize("name", experiment_names())
def test_cases_of_an_experiment_are_all_different(name: str) -> None:
    cases = find_experiment(name).cases(Setting())
    assert len({tuple(case.items()) for case in cases}) == len(cases)


def test_a_gru_flushes_as_often_as_its_kernel_calls() -> None:
    most = max(number(case, "unmapped_bytes") for case in find_experiment("unmapping").cases(SMALL))
    flushes = {
        row["design"]: row["flushes"]
        for row in rows("unmapping", unmapped_bytes=most, clients="GRU")
    }
    pages = most // PAGE_SIZE
    assert flushes["page"] == pages
    assert flushes["pages"] == -(-pages // 512)
    assert {flushes[design] for design in ("deferred", "gather", "range", "interval")} == {1}
    assert {row["calls"] for row in rows("unmapping", clients="nobody")} == {0}


def test_xpmem_told_page_by_page_sleeps_where_it_may_not() -> None:
    for row in rows("design-clients", client="XPMEM"):
        suits = row["suits"] == "yes"
        assert (row["found_by"] == "nothing") is suits
        assert suits or "sleeping function called from invalid context" in str(row["says"])
