"""The shipped docker-compose.yml, up once per session under a project name of its own.

These tests need a Docker engine and the base image, so only `make containers` collects them. All
that they make carries the project's name and is removed by it; the image stays, as build cache.
"""

import json
import os
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from xpmem_emu.live.client import Partition, XpmemError, connect

ROOT = Path(__file__).resolve().parents[2]
HEALTHY_S = 60
_COMMAND_TIMEOUT_S = 300


class Project:
    """One docker-compose project: `cluster` is what `--cluster` calls it."""

    def __init__(self) -> None:
        self.name = f"xe{secrets.token_hex(4)}"
        self.cluster = f"compose-{self.name}"

    def compose(self, *arguments: str) -> str:
        """What docker-compose prints, of either generation."""
        program = ["docker-compose"] if shutil.which("docker-compose") else ["docker", "compose"]
        return command(*program, "--project-name", self.name, *arguments)

    def inspect(self, service: str) -> dict[str, object]:
        """All that the engine knows of a service's container."""
        (ident,) = self.compose("ps", "-q", service).split()
        (facts,) = json.loads(command("docker", "inspect", ident))
        assert isinstance(facts, dict)
        return facts

    def health(self) -> dict[str, str]:
        """What the engine thinks of each partition."""
        return {name: read(self.inspect(name), "State", "Health", "Status") for name in NAMES}

    def connect(self, name: str) -> Partition:
        """A client on this host."""
        return connect(name, self.cluster)

    def shell(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The command line, on this host."""
        return subprocess.run(
            [str(ROOT / ".venv" / "bin" / "xpmem-emu"), "--cluster", self.cluster, *arguments],
            capture_output=True, text=True, timeout=_COMMAND_TIMEOUT_S,
        )  # fmt: skip

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


def command(*words: str) -> str:
    """What a command prints; it must succeed."""
    done = subprocess.run(
        words, capture_output=True, text=True, cwd=ROOT, timeout=_COMMAND_TIMEOUT_S
    )
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
        Project().compose("build")
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        shutil.rmtree(home)


@pytest.fixture(scope="session")
def project(image: None) -> Iterator[Project]:
    """Four partitions, on their way up."""
    made = Project()
    try:
        made.compose("up", "--detach")
        yield made
    finally:
        made.compose("down", "--volumes", "--remove-orphans", "--timeout", "5")
        assert made.leftovers() == []


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
