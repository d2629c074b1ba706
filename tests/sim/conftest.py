"""The shipped swarm, and plans of it."""

from pathlib import Path

import pytest

from xpmem_emu.sim.draw.swarm import Swarm, read_swarm
from xpmem_emu.sim.draw.world import draw_plan
from xpmem_emu.sim.plan import Plan

CHAOS = Path(__file__).parents[2] / "partitions" / "scenarios" / "chaos.toml"


@pytest.fixture(scope="session")
def swarm() -> Swarm:
    """What `chaos` may draw."""
    return read_swarm(CHAOS)


@pytest.fixture
def plan(swarm: Swarm) -> Plan:
    """A plan with faults and several hundred operations."""
    return draw_plan(swarm, 97)
