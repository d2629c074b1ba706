"""Faults of the simulated cluster of a test."""

import pytest

from xpmem_emu.sim.cluster import SimCluster
from xpmem_emu.sim.faults import SimFaults


@pytest.fixture
def faults(cluster: SimCluster) -> SimFaults:
    """Its fault board, and the texts that go up on it."""
    return SimFaults(cluster, seed=3)
