"""Every checker is proven: a protocol broken on purpose is caught, by what should catch it."""

import pytest

from xpmem_emu.kernel import calls_memory
from xpmem_emu.mm.access import store
from xpmem_emu.sim.killing import hunt
from xpmem_emu.sim.mutants import MUTANTS, mutated
from xpmem_emu.sim.swarm import Swarm

SLOW = {"evict_overtakes_fault", "reclaim_held", "pending_is_silence", "boot_is_proof",
        "pins_unlimited", "recalls_queue_with_faults"}
"""These need more seeds than a test has time for; `make mutants` hunts them."""
LIMIT = 60


@pytest.mark.parametrize("name", [name for name in MUTANTS if name not in SLOW])
def test_mutant_is_caught(swarm: Swarm, name: str) -> None:
    kill = hunt(swarm, starts=1, limit=LIMIT, mutant=name)
    assert kill.killed, f"{name} survives {LIMIT} seeds"


def test_the_canary_fails_at_the_first_seed(swarm: Swarm) -> None:
    assert hunt(swarm, starts=2, limit=1, mutant="canary").seeds == [1, 1]


def test_a_mutant_is_gone_when_its_block_ends() -> None:
    with mutated("canary"):
        assert calls_memory.store is not store
    assert calls_memory.store is store
