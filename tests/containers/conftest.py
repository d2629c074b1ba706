"""The shipped docker-compose.yml, up once per session under a project name of its own.

These tests need a Docker engine, the base image and both generations of docker-compose, so only
`make containers` collects them. All that they make carries the project's name and is removed by it;
the image stays, as build cache.
"""

import json
import os
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import compose as compose_v2
import pytest

from xpmem_emu.client.blocking import Partition, connect
from xpmem_emu.client.failures import XpmemError

ROOT = Path(__file__).resolve().parents[2]
V1 = "docker-compose"
V2 = str(Path(compose_v2.__file__).with_name("docker-compose"))
"""The program itself: what its package installs in `bin` swallows the exit code."""
HEALTHY_S = 240
"""A loaded machine has been seen to take 40 s to start a program in a container."""
PROBES = 3
"""In a row make a container unhealthy, when they fail."""
_COMMAND_TIMEOUT_S = 300
BUILD_TIMEOUT_S = 1100
"""It fetches what the image is made of, and a loaded machine has been seen to take nine minutes."""


class Project:
    """One project of a docker-compose `program`: `cluster` is what `--cluster` calls it."""

    def __init__(self, program: str = V1) -> None:
        self.name = f"xe{secrets.token_hex(4)}"
        self.cluster = f"compose-{self.name}"
        self._program = program

    def compose(self, *arguments: str) -> str:
        """What docker-compose prints."""
        return command(self._program, "--project-name", self.name, *arguments)

    def inspect(self, service: str) -> dict[str, object]:
        """All that the engine knows of a service's container."""
        (ident,) = self.compose("ps", "--all", "-q", service).split()
        return inspect(ident)

    def health(self) -> dict[str, str]:
        """What the engine thinks of each partition."""
        return {name: read(self.inspect(name), "State", "Health", "Status") for name in NAMES}

    def until_healthy(self) -> float:
        """Wait until all are. Result: how long that took, in seconds."""
        begun = time.monotonic()
        while (health := self.health()) != dict.fromkeys(NAMES, "healthy"):
            assert time.monotonic() < begun + HEALTHY_S, health
        return time.monotonic() - begun

    def connect(self, name: str) -> Partition:
        """A client on this host."""
        return connect(name, self.cluster)

    def shell(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The command line, on this host."""
        return subprocess.run(
            [str(ROOT / ".venv" / "bin" / "xpmem-emu"), "--cluster", self.cluster, *arguments],
            capture_output=True,
            text=True,
            timeout=_COMMAND_TIMEOUT_S,
        )

    def leftovers(self) -> list[str]:
        """Containers, networks and volumes that are still there."""
        mine = f"label=com.docker.compose.project={self.name}"
        found = command("docker", "ps", "--all", "--quiet", "--filter", mine)
        for kind in ("network", "volume"):
            found += command("docker", kind, "ls", "--quiet", "--filter", mine)
        return found.split()


NAMES = ("p0", "p1", "p2", "p3")


def read(facts: object, *keys: str) -> str:
    """A text deep inside of what the engine says."""
    for key in keys:
        assert isinstance(facts, dict)
        facts = facts[key]
    assert isinstance(facts, str)
    return facts


def inspect(ident: str) -> dict[str, object]:
    """All that the engine knows of a container."""
    (facts,) = json.loads(command("docker", "inspect", ident))
    assert isinstance(facts, dict)
    return facts


def stay_healthy(idents: Sequence[str]) -> None:
    """Wait for as many probes of each container as would make it unhealthy: all must succeed."""
    deadline = time.monotonic() + HEALTHY_S
    for ident in idents:
        before = [one["Start"] for one in probes(ident)]
        while len(later := [one for one in probes(ident) if one["Start"] not in before]) < PROBES:
            assert time.monotonic() < deadline, probes(ident)
        assert [one["ExitCode"] for one in later] == [0] * len(later), later
        assert read(inspect(ident), "State", "Health", "Status") == "healthy"


def probes(ident: str) -> list[dict[str, Any]]:
    """The last probes of a container, oldest first."""
    log = json.loads(command("docker", "inspect", "--format", "{{json .State.Health.Log}}", ident))
    return cast(list[dict[str, Any]], log)


def command(*words: str, timeout_s: float = _COMMAND_TIMEOUT_S) -> str:
    """What a command prints; it must succeed."""
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, timeout=timeout_s)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
    return done.stdout


def all_active(project: Project) -> bool:
    """Whether every partition is active with every other, as its console says."""
    with suppress(XpmemError):
        for name in NAMES:
            with project.connect(name) as partition:
                peers = partition.status()["peers"].values()
                if {peer["state"] for peer in peers} != {"ACTIVE"}:
                    return False
        return True
    return False


@pytest.fixture(scope="session", autouse=True)
def image() -> Iterator[None]:
    """The image, built from this tree, and an environment that knows no cluster."""
    home = tempfile.mkdtemp(prefix="xe")
    before = os.environ.copy()
    os.environ["XDG_RUNTIME_DIR"] = home
    for name in [name for name in os.environ if name.startswith("XPMEM_EMU_")]:
        del os.environ[name]
    try:
        command(V1, "build", timeout_s=BUILD_TIMEOUT_S)
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        shutil.rmtree(home)


@contextmanager
def running(program: str) -> Iterator[Project]:
    """Four partitions, on their way up; nothing is left of them afterwards."""
    made = Project(program)
    try:
        made.compose("up", "--detach")
        yield made
    finally:
        made.compose("down", "--volumes", "--remove-orphans", "--timeout", "5")
        assert made.leftovers() == []


@pytest.fixture(scope="session")
def project(image: None) -> Iterator[Project]:
    """Four partitions of docker-compose 1.29, on their way up."""
    with running(V1) as made:
        yield made


@pytest.fixture
def whole(project: Project) -> Project:
    """The project with every partition running and active with all others again."""
    deadline = time.monotonic() + HEALTHY_S
    for name in NAMES:
        if read(project.inspect(name), "State", "Status") != "running":
            assert project.shell("reboot", name).returncode == 0
    while not all_active(project):
        assert time.monotonic() < deadline, project.compose("logs", "--no-color")
    return project
