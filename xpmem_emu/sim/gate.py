"""The determinism gate (D1): the same seeds in fresh processes under different hash seeds.

Python orders sets of text by a random seed of the process; whatever of that reaches the event
stream shows as a different hash. Run as a program it prints one hash a line.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from xpmem_emu.sim.run import run_plan
from xpmem_emu.sim.swarm import read_swarm
from xpmem_emu.sim.world import draw

HASH_SEEDS = ("1", "4242")


def digests(scenario: Path, seeds: Sequence[int]) -> list[str]:
    """The hash of each run, in this process."""
    swarm = read_swarm(scenario)
    return [run_plan(draw(swarm, seed)).digest for seed in seeds]


def differing(scenario: Path, seeds: Sequence[int]) -> list[int]:
    """The seeds whose streams are not the same twice. Raises CalledProcessError."""
    first, second = (_in_fresh_process(scenario, seeds, each) for each in HASH_SEEDS)
    return [seed for seed, a, b in zip(seeds, first, second, strict=True) if a != b]


def _in_fresh_process(scenario: Path, seeds: Sequence[int], hash_seed: str) -> list[str]:
    environment = os.environ | {"PYTHONHASHSEED": hash_seed}
    command = [sys.executable, "-m", "xpmem_emu.sim.gate", str(scenario), *map(str, seeds)]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return done.stdout.split()


if __name__ == "__main__":
    print("\n".join(digests(Path(sys.argv[1]), [int(seed) for seed in sys.argv[2:]])))
