"""docker-compose up: four partitions as containers, healthy, hardened, and sharing memory."""

import hashlib
import os
import random
import re
import secrets
import time
from pathlib import Path

import pytest

from tests.containers.conftest import (
    BUILD_TIMEOUT_S,
    HEALTHY_S,
    NAMES,
    Project,
    all_active,
    command,
    read,
)
from xpmem_emu import __version__
from xpmem_emu.client.blocking import Partition, Task
from xpmem_emu.codec import Buffer

MEBIBYTE = 1 << 20
BASE = "python:3.11-slim-bookworm"
OURS_MAX = 105_000_000
"""Bytes of the image that are not its base's."""


def test_all_four_become_healthy_and_then_well(project: Project) -> None:
    print(f"healthy after {project.until_healthy():.1f} s")
    deadline = time.monotonic() + HEALTHY_S
    while not all_active(project):
        assert time.monotonic() < deadline
    assert [row.split()[:2] for row in project.shell("status").stdout.splitlines()[1:]] == [
        [name, "well"] for name in NAMES
    ]


@pytest.mark.parametrize("service", [*NAMES, "console"])
def test_no_container_has_rights(project: Project, service: str) -> None:
    facts = project.inspect(service)
    assert read(facts, "Config", "User") == "10001:10001"
    host = facts["HostConfig"]
    assert isinstance(host, dict)
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert host["ReadonlyRootfs"] is True
    assert host["Privileged"] is False
    assert host["PidsLimit"] == 128
    assert host["NanoCpus"] == 10**9
    assert host["Memory"] == (512 << 20 if service == "console" else 2 << 30)
    published = [one["HostIp"] for each in host["PortBindings"].values() for one in each]
    assert set(published) <= {"127.0.0.1"}


def test_the_kernel_agrees_that_a_partition_has_no_rights(project: Project) -> None:
    status = dict(
        line.split(":\t", 1)
        for line in project.compose("exec", "-T", "p0", "cat", "/proc/1/status").splitlines()
    )
    assert status["Uid"].split() == ["10001"] * 4
    assert {int(status[key], 16) for key in ("CapEff", "CapPrm", "CapBnd")} == {0}
    assert status["NoNewPrivs"] == "1"
    said = project.compose("exec", "-T", "p0", "sh", "-c", "touch /opt/x 2>&1 || true")
    assert "Read-only file system" in said


@pytest.mark.parametrize("service", [*NAMES, "console"])
def test_a_container_is_shown_its_own_private_key_alone(project: Project, service: str) -> None:
    shown = project.compose("exec", "-T", service, "ls", "/keys/private").split()
    assert shown == [f"{'operator' if service == 'console' else service}.key_secret"]


def test_no_copy_of_a_key_outlives_the_command_that_needed_it(whole: Project) -> None:
    assert whole.shell("status").returncode == 0
    copies = Path(os.environ["XDG_RUNTIME_DIR"], "xpmem-emu-keys")
    assert {one.name.partition(".")[0] for one in copies.glob("*")} <= {str(os.getpid())}


def test_the_image_says_what_it_is_and_what_it_was_made_of(whole: Project) -> None:
    labels = whole.inspect("p0")["Config"]["Labels"]  # type: ignore[index]
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    made_of = whole.compose("exec", "-T", "p0", "cat", "/opt/xpmem-emu/versions.txt")
    assert re.search(r"^pyzmq==\d", made_of, re.MULTILINE)
    assert "pip" not in whole.compose("exec", "-T", "p0", "ls", "/opt/xpmem-emu/bin")


def test_the_console_service_reaches_every_partition(project: Project) -> None:
    said = project.compose("exec", "-T", "console", "xpmem-emu", "status", "-o", "jsonl")
    assert [line.count('"ACTIVE"') for line in said.splitlines()] == [3, 3, 3, 3]


def exported(partition: Partition, data: bytes) -> tuple[Task, int, int]:
    """A task that exports `data`, where it has it, and the segid."""
    task = partition.spawn()
    address = task.mmap(len(data))
    task.store(address, data)
    return task, address, task.xpmem_make(address, len(data))


def attached(partition: Partition, segid: int, size: int) -> tuple[Task, int]:
    """A task that attached the segment, and where."""
    task = partition.spawn()
    return task, task.xpmem_attach(task.xpmem_get(segid), 0, size)


def digest(data: Buffer) -> str:
    """Its SHA-256."""
    return hashlib.sha256(data).hexdigest()


def sent(*partitions: Partition) -> int:
    """Messages that these sent so far, heartbeats not counted."""
    return sum(partition.status()["counters"]["sent"] for partition in partitions)


def test_memory_crosses_containers_of_one_domain_without_a_message(whole: Project) -> None:
    data = random.Random(4).randbytes(2 * MEBIBYTE)
    with whole.connect("p0") as p0, whole.connect("p1") as p1:
        exporter, address, segid = exported(p0, data)
        importer, at = attached(p1, segid, len(data))
        cold = sent(p0, p1)
        assert digest(importer.load(at, len(data))) == digest(data)
        warm = sent(p0, p1)
        assert warm > cold
        importer.load(at, len(data))
        importer.store(at + 4096, b"stored by p1")
        assert sent(p0, p1) == warm
        assert exporter.load(address + 4096, 12) == b"stored by p1"


def test_memory_crosses_to_another_domain_by_message(whole: Project) -> None:
    data = random.Random(5).randbytes(2 * MEBIBYTE)
    with whole.connect("p0") as p0, whole.connect("p3") as p3:
        exporter, address, segid = exported(p0, data)
        importer, at = attached(p3, segid, len(data))
        assert digest(importer.load(at, len(data))) == digest(data)
        first = sent(p3)
        importer.load(at, 4096)
        importer.store(at, b"stored by p3")
        assert sent(p3) >= first + 2
        assert exporter.load(address, 12) == b"stored by p3"


def test_the_readme_walk_works_from_this_host(whole: Project) -> None:
    text = "hello from p1"
    segid = whole.shell("export", "README.md", "--on", "p0").stdout.strip()
    here = whole.shell("attach", segid, "--on", "p1").stdout.strip()
    assert whole.shell("store", f"{here}+4096", text).returncode == 0
    there = whole.shell("attach", segid, "--on", "p2").stdout.strip()
    assert whole.shell("load", f"{there}+4096", str(len(text)), "--text").stdout.strip() == text
    assert whole.shell("remove", segid).returncode == 0


def test_what_is_docker_composes_business_says_so(project: Project) -> None:
    up, down = project.shell("up"), project.shell("down")
    assert "try: docker-compose up -d --build" in up.stderr
    assert "try: docker-compose down --volumes" in down.stderr
    assert (up.returncode, down.returncode) == (1, 1)


def test_the_image_is_little_larger_than_its_base() -> None:
    """96 MB were measured, half of them numpy; with all that pip installs it would be 134."""
    size, of_base = (
        int(command("docker", "image", "inspect", "--format", "{{.Size}}", image))
        for image in ("xpmem-emu", BASE)
    )
    assert 0 < size - of_base < OURS_MAX


def test_the_image_is_made_from_what_base_names_and_says_so() -> None:
    base = f"xe{secrets.token_hex(4)}:pinned"
    command("docker", "tag", BASE, base)
    try:
        image = command(
            "docker", "build", "--quiet", "--file", "partitions/Dockerfile",
            "--build-arg", f"BASE={base}", ".", timeout_s=BUILD_TIMEOUT_S,
        ).split()[-1]  # fmt: skip
        label = '{{index .Config.Labels "org.opencontainers.image.base.name"}}'
        assert command("docker", "image", "inspect", "--format", label, image).strip() == base
    finally:
        command("docker", "rmi", "--no-prune", base)
