"""Seeded worlds: no invariant breaks, the same seed does the same, and situations are reached."""

import signal
from contextlib import suppress
from typing import NoReturn

import msgspec
import pytest
from msgspec.structs import replace

from xpmem_emu.failpoints import POINTS
from xpmem_emu.inject.grammar import parse_injection, stem
from xpmem_emu.inject.injections import ClockEffect, PaceEffect, PointInjection
from xpmem_emu.inject.rules import SIGNATURES, Membership
from xpmem_emu.judge.verdict import Verdict
from xpmem_emu.sim import campaign
from xpmem_emu.sim.campaign import CampaignTally, HarnessError, results
from xpmem_emu.sim.determinism import compared
from xpmem_emu.sim.draw.swarm import Swarm
from xpmem_emu.sim.draw.world import draw_plan
from xpmem_emu.sim.plan import (
    InjectionKind,
    Op,
    Operation,
    Plan,
    PlannedInjection,
    decode_plan,
    encode_plan,
)
from xpmem_emu.sim.run import run_plan
from xpmem_emu.units import MILLISECOND

from .conftest import CHAOS

WORLDS = 50
"""In each of four tests, so that both processes have some; `make sim` runs 10,000."""


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("first", range(0, 4 * WORLDS, WORLDS))
def test_worlds_of_chaos_break_no_invariant(swarm: Swarm, first: int) -> None:
    tally = CampaignTally(swarm)
    for result in results(CHAOS, range(first, first + WORLDS), jobs=1):
        tally.add(result)
    told = [f"seed {each.seed}: {each.violations[:1]}" for each in tally.failed]
    assert (told, tally.errors) == ([], [])
    assert tally.verdict is Verdict.VALID
    assert tally.runs == WORLDS


def test_a_partition_that_shuts_down_when_all_is_healed_boots_again(swarm: Swarm) -> None:
    """Chaos-extremes, seed 253: a crashed peer held the shutdown up until after the healing, and
    nobody booted that partition any more."""
    plan = draw_plan(swarm, 9)
    late = 400 * MILLISECOND
    last = [Operation(0, Op.SPAWN, made=1), Operation(late, Op.CALL, task=1, detail="shutdown")]
    crash = PlannedInjection("crash-0", late - MILLISECOND, late * 2, InjectionKind.CRASH, partid=1)
    result = run_plan(replace(plan, operations=last, faults=[crash], load_ns=late))
    assert result.outcomes == {"spawn ok": 1, "xpmem_open ok": 1, "shutdown ok": 1}
    assert result.verdict is Verdict.VALID, result.violations


def test_the_same_plan_gives_the_same_stream_and_another_seed_another(swarm: Swarm) -> None:
    first, again = run_plan(draw_plan(swarm, 8)), run_plan(draw_plan(swarm, 8))
    assert first.digest == again.digest
    assert first.digest != run_plan(draw_plan(swarm, 9)).digest


def test_a_fault_of_probability_0_changes_no_event_of_a_run(swarm: Swarm) -> None:
    plan = draw_plan(swarm, 9)
    idle = [
        PlannedInjection(f"idle-{number}", at_ns, plan.load_ns, text=f"{text} --prob 0")
        for number, text in enumerate(
            [
                "drop",
                "link p0->p1 delay 5ms --jitter 1ms",
                "corrupt --match type=FAULT_REPLY",
                "loss 50% --burst 4",
                "link *->p1 cut",
                "split p0|p1",
            ]
        )
        for at_ns in (0, plan.load_ns // 2)
    ][::2]
    assert run_plan(replace(plan, faults=[*idle, *plan.faults])).digest == run_plan(plan).digest


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_hash_seeds_change_no_stream() -> None:
    assert [seed for seed, same in compared(CHAOS, range(50)) if not same] == []


def test_a_plan_survives_being_written_down(plan: Plan) -> None:
    assert decode_plan(encode_plan(plan)) == plan


def test_a_drawn_plan_says_what_was_drawn(plan: Plan) -> None:
    text = plan.describe()
    assert f"seed {plan.seed}" in text
    assert all(name in text for name in plan.workloads)
    assert f"partitions={plan.knobs.partitions}" in text


def test_a_situation_never_reached_fails_a_campaign_of_enough_seeds(swarm: Swarm) -> None:
    tally = CampaignTally(swarm, runs=swarm.sometimes_after)
    tally.reached.update(dict.fromkeys(swarm.situations[1:], 1))
    assert tally.missing == [swarm.situations[0]]
    verdicts = [tally.verdict]
    tally.runs -= 1
    verdicts.append(tally.verdict)
    assert verdicts == [Verdict.INVALID, Verdict.VALID]


def test_a_simulator_that_fails_is_not_a_verdict(swarm: Swarm) -> None:
    tally = CampaignTally(swarm)
    tally.add(HarnessError(3, "Traceback"))
    assert (tally.runs, tally.errors[0].seed) == (0, 3)


def test_a_plan_of_another_version_is_refused(plan: Plan) -> None:
    with pytest.raises(msgspec.ValidationError, match="version 1"):
        decode_plan(encode_plan(replace(plan, version=1)))


def test_the_swarm_draws_every_kind_of_fault_and_what_it_draws_can_be_read(swarm: Swarm) -> None:
    faults = [fault for seed in range(400) for fault in draw_plan(swarm, seed).faults]
    known = [parse_injection(fault.text) for fault in faults if fault.text]
    kinds = {stem(fault) for fault in known} | {str(fault.trouble) for fault in faults}
    wanted = {
        each.value for kind in (SIGNATURES, Membership, ClockEffect, PaceEffect) for each in kind
    }
    assert wanted | {"failpoint", "strain", "poison", "crash", "hang"} <= kinds
    points = {fault.point for fault in known if isinstance(fault, PointInjection)}
    assert points == set(POINTS)


def test_a_seed_that_never_ends_is_broken_off_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(plan: Plan) -> NoReturn:
        while True:
            with suppress(Exception):  # as a kernel takes what is raised in it for its own panic
                plan.knobs.partitions.bit_count()

    monkeypatch.setattr(campaign, "run_plan", endless)
    monkeypatch.setattr(campaign, "SEED_LIMIT_S", 0.05)
    [result] = results(CHAOS, [7], jobs=1)
    assert isinstance(result, HarnessError)
    assert result.seed == 7
    assert "not at its end after 0.05 s of processor time" in result.text
    assert "in endless" in result.text  # where it was
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)
