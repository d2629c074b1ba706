"""Which partitions a cluster has: inert data, read from a topology file or counted out.

A topology is a TOML file with one `[[partition]]` table per partition. It says names, partids,
images, domains and, for clusters that span hosts, endpoints. It starts nothing.
"""

import errno
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from xpmem_emu import toml
from xpmem_emu.errors import KernelError
from xpmem_emu.fields import PARTID_MAX, Partid, ShortText, misfit_named
from xpmem_emu.image import Bytes, Image, ImageError, read_image
from xpmem_emu.shipped import find_toml
from xpmem_emu.units import format_size

DOMAIN_NODES = 128
"""Nodes that are coherent on the 3700 series, 512 processors (sources T22)."""
PartitionName = Annotated[str, Meta(pattern=r"^[A-Za-z][A-Za-z0-9-]{0,31}\Z")]
Endpoint = Annotated[str, Meta(pattern=r"^$|^(ipc|tcp)://.+")]


class PartitionSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """One partition. Empty text means the default of the cluster."""

    name: PartitionName
    partid: Partid
    image: str = ""
    """A shipped image, or the path of a `.toml` file."""
    domain: ShortText = ""
    """Coherence domain; empty: the image's."""
    endpoint: Endpoint = ""
    """Where its peers reach it; empty: a unix socket in the run folder."""
    listen: Endpoint = ""
    """Where it listens when that is not `endpoint` itself, such as `tcp://0.0.0.0:7000`."""
    console: Endpoint = ""
    """Where clients reach it; empty: a unix socket in the run folder."""
    console_listen: Endpoint = ""
    """Where it listens for clients when that is not `console` itself."""


class MachineSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """A machine that need not be written out: p0, p1, ... of so many nodes each, as many to a
    coherence domain as its nodes allow."""

    partitions: Annotated[int, Meta(ge=1, le=PARTID_MAX + 1)]
    nodes: Annotated[int, Meta(ge=1, le=DOMAIN_NODES)]
    image: str = ""

    def written_out(self) -> list[PartitionSpec]:
        """Its partitions."""
        together = DOMAIN_NODES // self.nodes
        return [
            PartitionSpec(f"p{number}", number, self.image, f"D{number // together}")
            for number in range(self.partitions)
        ]


class _Topology(Struct, frozen=True, forbid_unknown_fields=True):
    partition: Annotated[list[PartitionSpec], Meta(max_length=PARTID_MAX + 1)] = []
    machine: MachineSpec | None = None


@dataclass(frozen=True, slots=True)
class ClusterSpec:
    """What `up` starts. `memory` in bytes overrides that of every image."""

    name: str
    partitions: tuple[PartitionSpec, ...]
    image: str = "laptop"
    memory: int | None = None
    event_log: bool = False
    """Whether each partition writes its event stream to `<name>.events.jsonl`."""
    lease_s: float = 5.0
    """A client that is silent for so many seconds loses the tasks that it spawned."""
    command: tuple[str, ...] = ()
    """The program that runs one partition; empty: this package's own."""
    keys: str = ""
    """The folder of the keys that guard its tcp endpoints."""
    insecure: bool = False
    """Whether its tcp endpoints may be without keys."""


def numbered_partitions(count: int) -> tuple[PartitionSpec, ...]:
    """Partitions p0, p1, ... of one domain. Raises KernelError when `count` is not 1..256."""
    if not 1 <= count <= 256:
        raise KernelError(errno.EINVAL, f"{count} partitions: it takes 1 to 256", "-n 3")
    return tuple(PartitionSpec(name=f"p{number}", partid=number) for number in range(count))


def read_topology(name: str) -> tuple[PartitionSpec, ...]:
    """The partitions of a shipped topology or of a `.toml` file. Raises KernelError, which names
    the key that is wrong."""
    path = find_toml("topologies", name)
    try:
        topology = msgspec.convert(toml.parse(toml.read_text(path)), _Topology)
    except toml.TomlError as error:
        raise _refused(path, str(error)) from None
    except msgspec.ValidationError as error:
        raise _refused(path, misfit_named(str(error))) from None
    if topology.machine is None and not topology.partition:
        raise _refused(path, "it has neither partition nor machine")
    machine = topology.machine.written_out() if topology.machine else []
    partitions = [*machine, *topology.partition]
    _require_distinct(path, partitions)
    return tuple(_anchored(partition, path.parent) for partition in partitions)


def load_image(name: str, *, domain: str = "", memory: int | None = None) -> Image:
    """The image called `name`, with the overrides of a partition. Raises KernelError."""
    path = find_toml("images", name)
    try:
        image = read_image(toml.read_text(path))
        if domain:
            image = msgspec.structs.replace(image, domain=domain)
    except ImageError as error:
        raise KernelError(error.errno, f"{path}: {error.cause}", error.remedy) from None
    except toml.TomlError as error:
        raise KernelError(errno.EINVAL, f"{path}: {error}", "see docs/images.md") from None
    return image if memory is None else _resized(image, memory)


def _resized(image: Image, size: int) -> Image:
    """Raises KernelError, which blames the size and not the image."""
    try:
        # Text again, so that the one reader of images judges the override too.
        read_image(f'[memory]\nsize = "{format_size(size)}"')
    except ImageError as error:
        raise KernelError(
            error.errno,
            f"--memory {size}: {error.cause}",
            "--memory 64M; whole pages of 4K, at least 16",
        ) from None
    memory = msgspec.structs.replace(image.memory, size=Bytes(size))
    return msgspec.structs.replace(image, memory=memory)


def _anchored(partition: PartitionSpec, folder: Path) -> PartitionSpec:
    if not partition.image.endswith(".toml"):
        return partition
    return msgspec.structs.replace(partition, image=str((folder / partition.image).resolve()))


def _require_distinct(path: Path, partitions: list[PartitionSpec]) -> None:
    # Not where they listen: on hosts of their own, all may listen at the same port.
    for key in ("name", "partid", "endpoint", "console"):
        seen: dict[object, int] = {}
        for index, partition in enumerate(partitions):
            value = getattr(partition, key)
            if value != "" and value in seen:
                where = f"partition[{index}].{key}"
                raise _refused(path, f"{where}: {value!r} is partition[{seen[value]}]'s already")
            seen[value] = index


def _refused(path: Path, cause: str) -> KernelError:
    return KernelError(errno.EINVAL, f"{path}: {cause}", "see docs/topologies.md for every key")
