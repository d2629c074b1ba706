"""A docker-compose project for a story, made from the shipped docker-compose.yml.

    FOLDER/project.json    what docker-compose reads
    FOLDER/topology.toml, image.toml, keys/    what the containers read
    FOLDER/runs/NAME/      the run folder of each, where its event log grows

Every partition is a container like the shipped p0: same image, same rights, same networks, all in
one coherence domain. The folders belong to the user that the containers run as, so that neither
they nor this program need rights for it.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import yaml

from xpmem_emu.cluster.docker import TOPOLOGY_LABEL, docker
from xpmem_emu.cluster.keys import Capability, Client, KeyFolder, Peer
from xpmem_emu.errors import KernelError
from xpmem_emu.shipped import shipped_compose

IMAGE_USER = 10001
"""Whom the image runs as; it stands in where this program is root."""
_TEMPLATE = "p0"
_KEPT = (
    "image",
    "read_only",
    "cap_drop",
    "security_opt",
    "restart",
    "ports",
    "environment",
    "pids_limit",
    "cpus",
)
"""What the containers have in common with the shipped one."""
_PARTITION = """[[partition]]
name = "{name}"
partid = {partid}
endpoint = "tcp://{name}.fabric:7000"
listen = "tcp://0.0.0.0:7000"
console = "tcp://{name}:7100"
console_listen = "tcp://0.0.0.0:7100"
"""

Document = dict[str, object]


def write_project(folder: Path, partitions: Mapping[str, int], image: str, memory: int) -> Path:
    """Write all of it; `image` is the text of an image file, `memory` the bytes of all arenas
    together. Result: the file for docker-compose. Raises KernelError, OSError."""
    shipped = yaml.safe_load(shipped_compose().read_text())
    _require_image(shipped["services"][_TEMPLATE]["image"])
    (folder / "image.toml").write_text(image)
    topology = [_PARTITION.format(name=name, partid=partid) for name, partid in partitions.items()]
    (folder / "topology.toml").write_text("\n".join(topology))
    KeyFolder(folder / "keys").complete(
        {name: Peer(partid) for name, partid in partitions.items()}
        | {"operator": Client(0, [], Capability.OPERATE)}
    )
    for name in partitions:
        (folder / "runs" / name).mkdir(parents=True)
    user = _give(folder)
    project = folder / "project.json"
    document = _document(shipped, folder, list(partitions), memory, user)
    project.write_bytes(msgspec.json.format(msgspec.json.encode(document)))
    return project


def _document(
    shipped: Document, folder: Path, names: Sequence[str], memory: int, user: int
) -> Document:
    services = shipped["services"]
    assert isinstance(services, dict)
    template = services[_TEMPLATE]
    owner = f"uid={user},mode=0700"
    # Twice: peers may keep the arena of a boot when the next one begins.
    arenas = {"type": "tmpfs", "device": "tmpfs", "o": f"size={2 * memory + (16 << 20)},{owner}"}
    return {
        "services": {
            name: {key: template[key] for key in _KEPT}
            | {
                "user": f"{user}:{user}",
                "labels": {TOPOLOGY_LABEL: str(folder / "topology.toml")},
                "command": [
                    "boot",
                    name,
                    "--topology",
                    "/story/topology.toml",
                    "--image",
                    "/story/image.toml",
                    "--event-log",
                ],
                "volumes": [
                    "arenas:/arenas",
                    f"{folder}/keys:/keys:ro",
                    f"{folder}/topology.toml:/story/topology.toml:ro",
                    f"{folder}/image.toml:/story/image.toml:ro",
                    f"{folder}/runs/{name}:/run/xpmem-emu",
                ],
                "networks": {"consoles": {}, "fabric": {"aliases": [f"{name}.fabric"]}},
                "healthcheck": {"disable": True},
            }
            for name in names
        },
        "volumes": {"arenas": {"driver_opts": arenas}},
        "networks": shipped["networks"],
    }


def _give(folder: Path) -> int:
    """Let the containers' user own what is in `folder`; who that is."""
    user = os.getuid() or IMAGE_USER
    if user != os.getuid():
        for path in folder.rglob("*"):
            os.chown(path, user, user)
    return user


def _require_image(name: str) -> None:
    try:
        docker("image", "inspect", name)
    except KernelError as error:
        raise KernelError(error.errno, error.cause, "docker-compose build keys") from None
