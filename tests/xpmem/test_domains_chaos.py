"""Seeded worlds whose partitions are of two coherence domains, judged by every checker."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from msgspec.structs import replace

from xpmem_emu.image import Image
from xpmem_emu.sim import run
from xpmem_emu.sim.cluster import Observer, Pick, SimCluster
from xpmem_emu.sim.swarm import read_swarm
from xpmem_emu.sim.world import draw

CHAOS = Path(__file__).parents[2] / "partitions" / "scenarios" / "chaos.toml"
SEEDS = range(7000, 7024)


def of_two_domains(
    partitions: int, image: Image, seed: int, watch: Observer,
    pick_of: Callable[[int], Pick | None],
) -> SimCluster:  # fmt: skip
    letters = Random(f"domains/{seed}").choices("AAB", k=partitions)
    images = [replace(image, domain=letter) for letter in letters]
    return SimCluster(partitions, image, seed, watch, pick_of, image_of=images.__getitem__)


def test_words_stay_linearizable_and_nothing_leaks_across_domains(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run, "SimCluster", of_two_domains)
    names: Counter[str] = Counter()
    for seed in SEEDS:
        world = run.Run(draw(read_swarm(CHAOS), seed))
        result = world.result()
        names.update(record.name for record in world.cluster.trace)
        assert result.verdict is run.Verdict.VALID, f"seed {seed}: {result.violations[:3]}"
    assert names["xpmem:copy_serve"] > 100
    assert names["xpmem:fault_serve"] > 100
