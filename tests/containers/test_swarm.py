"""The Docker Swarm stack: read and completed by Docker, and in agreement with its topology."""

import shutil
from pathlib import Path

import yaml

from tests.containers.conftest import ROOT, command
from xpmem_emu.live.topology import read_topology

SECRETS = ("allow.json", *(f"private/{name}.key_secret" for name in ("operator", "p0", "p1", "p2")))


def test_docker_reads_the_stack_and_each_partition_gets_its_own_key(tmp_path: Path) -> None:
    stack = tmp_path / "deploy" / "swarm.yml"
    stack.parent.mkdir()
    shutil.copyfile(ROOT / "deploy" / "swarm.yml", stack)
    (tmp_path / "keys" / "private").mkdir(parents=True)
    for name in SECRETS:
        (tmp_path / "keys" / name).touch()
    text = command("docker", "stack", "config", "--compose-file", str(stack))
    services = yaml.safe_load(text)["services"]
    assert sorted(services) == [one.name for one in read_topology("hosts")]
    for name, service in services.items():
        assert service["command"][:2] == ["boot", name]
        assert service["cap_drop"] == ["ALL"]
        assert service["read_only"] is True
        assert {each["source"] for each in service["secrets"]} == {"allow", "operator", name}
