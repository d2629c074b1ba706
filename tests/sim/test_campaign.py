"""Seeded worlds: no invariant breaks, the same seed does the same, and situations are reached."""

import pytest

from xpmem_emu.sim.campaign import HarnessError, Tally, results
from xpmem_emu.sim.gate import differing
from xpmem_emu.sim.plan import Plan, decode_plan, encode_plan
from xpmem_emu.sim.run import Verdict, run_plan
from xpmem_emu.sim.sometimes import MEANINGS
from xpmem_emu.sim.swarm import Swarm
from xpmem_emu.sim.world import draw

from .conftest import CHAOS


@pytest.mark.parametrize("first", range(0, 120, 20))
def test_twenty_worlds_of_chaos_break_no_invariant(swarm: Swarm, first: int) -> None:
    tally = Tally(swarm)
    for result in results(CHAOS, range(first, first + 20), jobs=1):
        tally.add(result)
    told = [f"seed {each.seed}: {each.violations[:1]}" for each in tally.failed]
    assert (told, tally.errors) == ([], [])
    assert tally.verdict is Verdict.VALID
    assert tally.runs == 20


def test_the_same_plan_gives_the_same_stream_and_another_seed_another(swarm: Swarm) -> None:
    first, again = run_plan(draw(swarm, 8)), run_plan(draw(swarm, 8))
    assert first.digest == again.digest
    assert first.digest != run_plan(draw(swarm, 9)).digest


def test_hash_seeds_change_no_stream() -> None:
    assert differing(CHAOS, range(6)) == []


def test_a_plan_survives_being_written_down(plan: Plan) -> None:
    assert decode_plan(encode_plan(plan)) == plan


def test_a_drawn_plan_says_what_was_drawn(plan: Plan) -> None:
    text = plan.describe()
    assert f"seed {plan.seed}" in text
    assert all(name in text for name in plan.workloads)
    assert f"partitions={plan.knobs.partitions}" in text


def test_a_situation_never_reached_fails_a_campaign_of_enough_seeds(swarm: Swarm) -> None:
    tally = Tally(swarm, runs=swarm.sometimes_after)
    tally.reached.update(dict.fromkeys(list(MEANINGS)[1:], 1))
    assert tally.missing == [next(iter(MEANINGS))]
    assert tally.verdict is Verdict.INVALID
    tally.runs -= 1
    assert tally.verdict is Verdict.VALID


def test_a_simulator_that_fails_is_not_a_verdict(swarm: Swarm) -> None:
    tally = Tally(swarm)
    tally.add(HarnessError(3, "Traceback"))
    assert (tally.runs, tally.errors[0].seed) == (0, 3)
