"""Four partitions broken at random under load: a few rounds of the loop. `make soak` does 200."""

import pytest

from .kill_loop import kill_loop

pytestmark = pytest.mark.live

ROUNDS = 12


@pytest.mark.timeout(400)
@pytest.mark.parametrize("seed", [3])
def test_what_is_broken_under_load_heals_and_balances(seed: int) -> None:
    print(f"again: python -m tests.live.kill_loop --rounds {ROUNDS} --seed {seed}")
    tally = kill_loop(ROUNDS, seed, print)
    assert tally.broken.total() == ROUNDS
    assert tally.judgement.boots >= 4
    assert tally.outcomes["load ok"] > 100
