"""Two calls of a task at a time, kills inside calls, second boots over stopped processes: a few
rounds of the loop. `make soak` does a hundred."""

import sys
from pathlib import Path

import pytest

from .crowd_loop import KINDS, Round, crowd_loop, unexplained
from .loops import Broken, Row

pytestmark = pytest.mark.live

ROUNDS = 8


@pytest.mark.timeout(300)
def test_crowded_tasks_cost_no_partition_anything() -> None:
    print(f"again: python -m tests.live.crowd_loop --rounds {ROUNDS} --seed 5")
    tally = crowd_loop(ROUNDS, 5, print)
    assert tally.kinds.total() == ROUNDS
    assert tally.refused >= 2
    assert tally.killed > 0


@pytest.mark.timeout(300)
def test_a_partition_that_is_given_up_for_a_killed_task_is_seen() -> None:
    broken = (sys.executable, str(Path(__file__).with_name("expelling_partition.py")))
    with pytest.raises(Broken, match="healthy partitions were given up"):
        crowd_loop(6, 6, print, ("kill inside",), broken)


@pytest.mark.parametrize(
    ("broken", "late_ns", "seen"), [("p1", 0, 0), ("p2", 0, 1), ("", 0, 1), ("", 2_000_000_000, 0)]
)
def test_the_end_of_a_session_is_explained_by_its_own_round_only(
    broken: str, late_ns: int, seen: int
) -> None:
    end: Row = {
        "partid": 0,
        "peer": 1,
        "time_ns": 5_000_000_000,
        "reason": "TIMEOUT",
        "place": "here",
    }
    still: Row = {"partid": 1, "time_ns": 5_100_000_000, "late_ns": late_ns}
    one = Round(KINDS[0], 4_000_000_000, broken, 6_000_000_000)
    assert len(unexplained([end], [one], [still])) == seen
    assert len(unexplained([end | {"time_ns": 9_000_000_000}], [one], [])) == 1
