"""Partitions in containers, as the Docker engine of this machine knows them.

A container is a partition when it has the label `xpmem-emu.topology`, which names the topology
that it boots from; it is found by that and by nothing else. Everything goes through the `docker`
command, because it knows where its engine is. Nothing here starts or removes a container: that is
the business of docker-compose, or of whoever wrote the containers down.
"""

import errno
import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from xpmem_emu.cluster.keys import ALLOW_FILE, PRIVATE_FOLDER, AllowList, Client
from xpmem_emu.cluster.paths import KEYS_VARIABLE
from xpmem_emu.cluster.temporary_keys import temporary_keys
from xpmem_emu.cluster.topology import PartitionSpec, read_topology
from xpmem_emu.errors import KernelError

COMPOSE_CLUSTER = "compose"
"""The cluster of the one project that runs; `compose-NAME` is that of project NAME."""
TOPOLOGY_LABEL = "xpmem-emu.topology"
KEYS_LABEL = "xpmem-emu.keys"
"""A container that has the keys of its project's clients, and where."""
START_REMEDY = "docker-compose up -d --build"
_PROJECT_LABEL = "com.docker.compose.project"
_SERVICE_LABEL = "com.docker.compose.service"
_COMMAND_TIMEOUT_S = 60.0
_COMPOSE_TIMEOUT_S = 300.0


class _State(Struct, frozen=True, rename="pascal"):
    status: str
    pid: int


class _Config(Struct, frozen=True, rename="pascal"):
    labels: dict[str, str]
    env: list[str]


class _Binding(Struct, frozen=True, rename="pascal"):
    host_ip: str
    host_port: str


class _Networking(Struct, frozen=True, rename="pascal"):
    ports: dict[str, list[_Binding] | None]


class _Container(Struct, frozen=True, rename="pascal"):
    id: Annotated[str, Meta(min_length=12)]
    state: _State
    config: _Config
    network_settings: _Networking


class PartitionContainer(Struct, frozen=True):
    """One partition's container. `state` as Docker says: running, paused, exited, ...; `pid` as
    this machine sees it, 0 when there is none; `console` empty when no port is published; `keys`
    a folder in the container, empty when it is told of none."""

    spec: PartitionSpec
    project: str
    ident: str
    state: str
    pid: int
    console: str
    keys: str


def is_containers(cluster: str) -> bool:
    """Whether a cluster of this name is one of containers."""
    return cluster == COMPOSE_CLUSTER or cluster.startswith(f"{COMPOSE_CLUSTER}-")


def containers(cluster: str) -> list[PartitionContainer]:
    """The partitions of `cluster` in the order of their partids, alive or not. Raises KernelError
    ENOENT when there are none, EEXIST when it could be one of several projects."""
    project = cluster.removeprefix(COMPOSE_CLUSTER).removeprefix("-")
    filters = [TOPOLOGY_LABEL] + ([f"{_PROJECT_LABEL}={project}"] if project else [])
    found = _inspected([word for each in filters for word in ("--filter", f"label={each}")])
    if not found:
        raise KernelError(errno.ENOENT, f"cluster {cluster} has no containers here", START_REMEDY)
    projects = sorted({one.project for one in found})
    if len(projects) > 1:
        names = [f"{COMPOSE_CLUSTER}-{project}" for project in projects]
        raise KernelError(
            errno.EEXIST, f"{cluster} may be {', '.join(names)}", f"--cluster {names[0]}"
        )
    return sorted(found, key=lambda one: one.spec.partid)


def container(cluster: str, name: str) -> PartitionContainer:
    """The container of partition `name`. Raises KernelError ENOENT."""
    found = {one.spec.name: one for one in containers(cluster)}
    if name not in found:
        raise KernelError(
            errno.ENOENT, f"cluster {cluster} has no partition {name}", f"one of {', '.join(found)}"
        )
    return found[name]


def docker(*arguments: str) -> bytes:
    """What `docker ARGUMENTS` prints. Raises KernelError when it fails."""
    try:
        done = subprocess.run(
            ["docker", *arguments], capture_output=True, timeout=_COMMAND_TIMEOUT_S
        )
    except FileNotFoundError:
        raise KernelError(
            errno.ENOENT, "there is no docker command here", "install Docker's command line"
        ) from None
    except subprocess.TimeoutExpired:
        raise KernelError(errno.ETIMEDOUT, f"docker {arguments[0]} does not end") from None
    if done.returncode:
        why = done.stderr.decode(errors="replace").strip() or f"exit code {done.returncode}"
        raise KernelError(
            errno.EIO,
            f"docker {arguments[0]}: {why.splitlines()[0]}",
            "look at it with: docker info",
        )
    return done.stdout


def docker_compose(project: str, file: Path, *arguments: str) -> None:
    """`docker-compose ARGUMENTS` of a project, by either generation of it. Raises KernelError."""
    program = ["docker-compose"] if shutil.which("docker-compose") else ["docker", "compose"]
    command = [*program, "--project-name", project, "--file", str(file), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_COMPOSE_TIMEOUT_S)
    if done.returncode:
        raise KernelError(
            errno.EIO, f"docker-compose {arguments[0]} failed:\n{done.stderr}", "docker info"
        )


def keys_of(one: PartitionContainer) -> str:
    """A folder of this user's own with the allow-list of a container's project and its clients'
    private keys, as they are when this program asks first; gone when this program ends. Empty when
    the container has no keys. Raises KernelError."""
    return _copied_keys(one.ident, one.project, one.keys) if one.keys else ""


@lru_cache(maxsize=64)
def _copied_keys(ident: str, project: str, keys: str) -> str:
    folder = temporary_keys()
    (folder / PRIVATE_FOLDER).mkdir(mode=0o700)
    mine = [f"label={_PROJECT_LABEL}={project}", f"label={KEYS_LABEL}={keys}"]
    filters = [word for each in mine for word in ("--filter", each)]
    keepers = docker("ps", "--all", "--quiet", "--no-trunc", *filters).decode().split()
    # A tar file of the folder; its first part is the folder's own name.
    packed = docker("cp", f"{(keepers or [ident])[0]}:{keys}", "-")
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        found = {member.name.partition("/")[2]: member for member in tar if member.isfile()}
        allow = _content(tar, found[ALLOW_FILE])
        (folder / ALLOW_FILE).write_bytes(allow)
        for key in msgspec.json.decode(allow, type=AllowList).keys:
            name = f"{PRIVATE_FOLDER}/{key.name}.key_secret"
            if isinstance(key.role, Client) and name in found:
                _write_private(folder / name, _content(tar, found[name]))
    return str(folder)


def _write_private(path: Path, content: bytes) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None
    return file.read()


def _inspected(filters: Sequence[str]) -> list[PartitionContainer]:
    idents = docker("ps", "--all", "--quiet", "--no-trunc", *filters).decode().split()
    if not idents:
        return []
    rows = msgspec.json.decode(docker("inspect", *idents), type=list[_Container])
    return [_partition(row) for row in rows]


def _partition(row: _Container) -> PartitionContainer:
    labels = row.config.labels
    name = labels.get(_SERVICE_LABEL, "")
    specs = {one.name: one for one in read_topology(labels[TOPOLOGY_LABEL])}
    if name not in specs:
        raise KernelError(
            errno.ENOENT,
            f"container {row.id[:12]} is no partition of {labels[TOPOLOGY_LABEL]}: {name!r}",
            f"name its service like a partition, one of {', '.join(specs)}",
        )
    port = (specs[name].console_listen or specs[name].console).rpartition(":")[2]
    bindings = row.network_settings.ports.get(f"{port}/tcp")
    console = f"tcp://{bindings[0].host_ip}:{bindings[0].host_port}" if bindings else ""
    environment = dict(entry.partition("=")[::2] for entry in row.config.env)
    return PartitionContainer(
        spec=specs[name],
        project=labels.get(_PROJECT_LABEL, ""),
        ident=row.id,
        state=row.state.status,
        pid=row.state.pid,
        console=console,
        keys=environment.get(KEYS_VARIABLE, ""),
    )
