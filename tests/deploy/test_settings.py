"""What the shipped files set, so that a deployment outlives what is ordinary: a tmpfs of root's, a
host that is busy for a second, an end in order."""

import re
from pathlib import Path

import pytest
import yaml

from xpmem_emu.cluster.topology import load_image, read_topology
from xpmem_emu.units import SECOND

ROOT = Path(__file__).resolve().parents[2]


def test_anybody_may_write_where_a_tmpfs_is_mounted_over_a_folder_of_the_image() -> None:
    """It is root's and takes its rights from what it covers; a partition is not root."""
    dockerfile = (ROOT / "partitions" / "Dockerfile").read_text()
    assert "install -d -m 1777 /run/xpmem-emu /arenas " in dockerfile


@pytest.mark.parametrize("name", ["compose", "hosts"])
def test_only_who_was_silent_for_seconds_is_given_up(name: str) -> None:
    for one in read_topology(name):
        assert load_image(one.image).xpc.heartbeat_check >= 2 * SECOND, one.name
    assert load_image("laptop").xpc.heartbeat_check < SECOND


@pytest.mark.parametrize("file", ["docker-compose.yml", "deploy/swarm.yml"])
def test_a_partition_has_time_to_end_in_order(file: str) -> None:
    services = yaml.safe_load((ROOT / file).read_text())["services"]
    names = [one for one in services if re.fullmatch(r"p\d", one)]
    assert len(names) >= 3
    for name in names:
        assert services[name]["stop_grace_period"] == "20s", name
