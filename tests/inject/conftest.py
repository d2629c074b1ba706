"""Faults of the simulated cluster of a test."""

import pytest

from xpmem_emu.sim.cluster import SimCluster
from xpmem_emu.sim.injection.injections import SimInjections


@pytest.fixture
def faults(cluster: SimCluster) -> SimInjections:
    """Its fault board, and the texts that go up on it."""
    return SimInjections(cluster, seed=3)
