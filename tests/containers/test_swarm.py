"""The Docker Swarm stack, deployed on this engine: healthy, sharing, failing, gone."""

import json
import secrets
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.containers.conftest import HEALTHY_S, ROOT, command, inspect, read, stay_healthy
from xpmem_emu.cluster.keys import Capability, Client, KeyFolder, Peer
from xpmem_emu.cluster.topology import read_topology

PARTITIONS = [one.name for one in read_topology("hosts")]
GONE_S = 60
BRIDGE = "docker_gwbridge"
"""What a swarm leaves behind when it is left."""


@dataclass(frozen=True)
class Stack:
    """A stack that was deployed from a copy of the shipped file, beside keys of its own."""

    name: str
    file: Path

    def container(self, service: str) -> str:
        """The container of a service, running or not; empty while there is none."""
        return self._listed(service, "--all", "--quiet")

    def _listed(self, service: str, *how: str) -> str:
        label = f"label=com.docker.swarm.service.name={self.name}_{service}"
        return command("docker", "ps", "--filter", label, *how).strip()

    def health(self) -> dict[str, str]:
        """What the engine thinks of each partition."""
        # In one question: a task that could not begin is replaced, and its container is gone when
        # one asks for more.
        return {
            name: "healthy" if status.endswith("(healthy)") else status or "not there"
            for name in PARTITIONS
            for status in [self._listed(name, "--format", "{{.Status}}")]
        }

    def console(self, *arguments: str) -> str:
        """The command line in the stack's console, on some partition or all."""
        words = ["docker", "exec", self.container("console"), "sh", "-c", " ".join(arguments)]
        return command(*words)

    def leftovers(self) -> list[str]:
        """Containers, networks, volumes and secrets that are still there."""
        mine = f"label=com.docker.stack.namespace={self.name}"
        found = command("docker", "ps", "--all", "--quiet", "--filter", mine)
        for kind in ("network", "volume", "secret"):
            found += command("docker", kind, "ls", "--quiet", "--filter", mine)
        return found.split()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped file, and the keys that its first lines say how to make."""
    folder = tmp_path_factory.mktemp("swarm")
    wanted = {one.name: Peer(one.partid) for one in read_topology("hosts")}
    KeyFolder(folder / "keys").complete({**wanted, "operator": Client(0, [], Capability.OPERATE)})
    (folder / "deploy").mkdir()
    return Path(shutil.copy(ROOT / "deploy" / "swarm.yml", folder / "deploy"))


@pytest.fixture(scope="module")
def swarm(image: None) -> Iterator[None]:
    """This engine is a swarm, of itself alone unless it was one already."""
    state = json.loads(command("docker", "info", "--format", "{{json .Swarm}}"))
    if state["LocalNodeState"] == "active":
        yield
        return
    networks = command("docker", "network", "ls", "--format", "{{.Name}}").split()
    command(
        "docker",
        "swarm",
        "init",
        "--advertise-addr",
        "127.0.0.1",
        "--listen-addr",
        "127.0.0.1:2377",
    )
    try:
        yield
    finally:
        command("docker", "swarm", "leave", "--force")
        if BRIDGE not in networks:
            command("docker", "network", "rm", BRIDGE)


@pytest.fixture(scope="module")
def stack(swarm: None, file: Path) -> Iterator[Stack]:
    made = Stack(f"xe{secrets.token_hex(4)}", file)
    try:
        command(
            "docker",
            "stack",
            "deploy",
            "--resolve-image",
            "never",
            "--compose-file",
            str(file),
            made.name,
        )
        yield made
    finally:
        command("docker", "stack", "rm", made.name)
        deadline = time.monotonic() + GONE_S
        while made.leftovers():
            assert time.monotonic() < deadline, made.leftovers()


def test_docker_reads_the_stack_and_each_service_is_shown_its_own_key(file: Path) -> None:
    text = command("docker", "stack", "config", "--compose-file", str(file))
    services = yaml.safe_load(text)["services"]
    assert sorted(services) == ["console", *PARTITIONS]
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"]
        assert service["read_only"] is True
        assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory", "pids"}
        own = "operator" if name == "console" else name
        assert {each["source"] for each in service["secrets"]} == {"allow", own}


def test_every_partition_becomes_healthy_and_one_that_dies_leaves_the_others_so(
    stack: Stack,
) -> None:
    begun = time.monotonic()
    while (health := stack.health()) != dict.fromkeys(PARTITIONS, "healthy"):
        assert time.monotonic() < begun + HEALTHY_S, health
    print(f"swarm: healthy after {time.monotonic() - begun:.1f} s")
    until_well(stack, len(PARTITIONS))
    assert stack.console(
        "segid=$(xpmem-emu export /etc/hostname --on p0);"
        "xpmem-emu cat $(xpmem-emu attach $segid --on p1) | head -c 12"
    ).strip() == read(inspect(stack.container("console")), "Config", "Hostname")

    command("docker", "kill", stack.container("p0"))
    stay_healthy([stack.container(name) for name in PARTITIONS[1:]])
    assert "not with all" in stack.console("xpmem-emu status || true")


def until_well(stack: Stack, count: int) -> None:
    """Wait until so many say that they are active with all others."""
    deadline = time.monotonic() + HEALTHY_S
    while (said := stack.console("xpmem-emu status || true")).count(" well ") != count:
        assert time.monotonic() < deadline, said
