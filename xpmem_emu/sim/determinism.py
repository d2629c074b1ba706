"""The determinism gate (D1): the same seeds in fresh processes under different hash seeds.

Python orders sets of text by a random seed of the process; whatever of that reaches the event
stream shows as a different hash. Run as a program it prints one hash a line.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from xpmem_emu.sim.draw.swarm import read_swarm
from xpmem_emu.sim.draw.world import draw_plan
from xpmem_emu.sim.run import run_plan

HASH_SEEDS = ("1", "4242")


def digests(scenario: Path, seeds: range) -> Iterator[str]:
    """The hash of each run, in this process."""
    swarm = read_swarm(scenario)
    for seed in seeds:
        yield run_plan(draw_plan(swarm, seed)).digest


def compared(scenario: Path, seeds: range) -> Iterator[tuple[int, bool]]:
    """Each seed, and whether its streams are the same twice. Raises CalledProcessError with what
    the process said that failed."""
    with ExitStack() as stack:
        streams = [stack.enter_context(_fresh(scenario, seeds, each)) for each in HASH_SEEDS]
        for seed, first, second in zip(seeds, *streams, strict=True):
            yield seed, first == second


@contextmanager
def _fresh(scenario: Path, seeds: range, hash_seed: str) -> Iterator[Iterator[str]]:
    """The hashes of all seeds as they come from a process of their own, which ends here."""
    environment = os.environ | {"PYTHONHASHSEED": hash_seed}
    command = [
        sys.executable,
        "-m",
        "xpmem_emu.sim.determinism",
        str(scenario),
        str(seeds.start),
        str(seeds.stop),
    ]
    with (
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=said, text=True
        ) as process,
    ):
        try:
            yield _lines(process, said)
        finally:
            process.kill()


def _lines(process: "subprocess.Popen[str]", said: IO[str]) -> Iterator[str]:
    assert process.stdout is not None
    yield from process.stdout
    if process.wait():
        said.seek(0)
        raise subprocess.CalledProcessError(process.returncode, process.args, stderr=said.read())


if __name__ == "__main__":
    for each in digests(Path(sys.argv[1]), range(int(sys.argv[2]), int(sys.argv[3]))):
        print(each, flush=True)
