"""What spin finds in a broken model is what the kernels do when they are broken in the same way."""

import subprocess
import sys
from pathlib import Path

import pytest

from xpmem_emu.sim.explore.choices import format_line
from xpmem_emu.sim.explore.search import retell

from .trails import INVALIDATE, REPLY, follow, read_trail

CHECK = Path(__file__).resolve().parents[2] / "models" / "check"
VARIANTS = {
    "NO_VALID_CHECK": ("install_invalid", {"S1", "S4"}),
    "NO_ACK_WAIT": ("free_before_ack", {"S1", "S2"}),
    "NO_FENCE": ("no_quarantine", {"S2", "S7"}),
}
"""A variant of the model: the mutant that breaks the kernel alike, what may notice."""


@pytest.mark.slow
@pytest.mark.needs("spin", "gcc")
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_counter_example_of_the_model_holds_on_the_kernels(variant: str) -> None:
    story = subprocess.run(
        [sys.executable, str(CHECK), "--explain", variant],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    mutant, invariants = VARIANTS[variant]
    trail = read_trail(story)
    deviations, left = follow(trail, mutant)
    assert len(left) <= 1, f"{left} of {trail.events} did not happen; the model says\n{story}"
    line = format_line(deviations)
    broken = retell(trail.world, line, mutant)
    assert set(broken.invariants) & invariants, f"{line}\n{story}"
    assert retell(trail.world, line).violations == []


def test_the_race_that_started_it_all_is_one_deviation() -> None:
    trail = read_trail(
        "importer 0: FAULT 1\nexporter: frame 1 pinned for importer 0\n"
        "exporter: munmap, page was in frame 1\nexporter: INVALIDATE 1 to importer 0\n"
        "importer 0: INVALIDATE 1 zaps frame 0\nimporter 0: FAULT_REPLY 1 was crossed\n"
        "importer 0: maps frame 1\n"
    )
    deviations, _ = follow(trail, "install_invalid")
    assert f"{INVALIDATE} before {REPLY}" in [each.text for each in deviations]
