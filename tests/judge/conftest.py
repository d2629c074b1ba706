"""The shipped swarm: what makes the streams that are judged."""

from tests.sim.conftest import swarm  # noqa: F401 - the fixture
