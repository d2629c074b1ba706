"""Seeded worlds whose partitions are of two coherence domains, judged by every checker."""

from collections import Counter
from pathlib import Path
from random import Random

import pytest
from msgspec.structs import replace

from xpmem_emu.judge.verdict import Verdict
from xpmem_emu.sim.draw.swarm import read_swarm
from xpmem_emu.sim.draw.world import draw_plan
from xpmem_emu.sim.run import Run

CHAOS = Path(__file__).parents[2] / "partitions" / "scenarios" / "chaos.toml"
SEEDS = range(7000, 7024)


@pytest.mark.slow
def test_words_stay_linearizable_and_nothing_leaks_across_domains() -> None:
    names: Counter[str] = Counter()
    swarm = read_swarm(CHAOS)
    for seed in SEEDS:
        plan = draw_plan(swarm, seed)
        domains = "".join(Random(f"domains/{seed}").choices("AAB", k=plan.knobs.partitions))
        world = Run(replace(plan, knobs=replace(plan.knobs, domains=domains)))
        result = world.result()
        names.update(record.name for record in world.cluster.trace)
        assert result.verdict is Verdict.VALID, f"seed {seed}: {result.violations[:3]}"
    assert names["xpmem:copy_serve"] > 100
    assert names["xpmem:fault_serve"] > 100
