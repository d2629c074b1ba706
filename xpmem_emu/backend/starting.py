"""From a description of a cluster to its processes: a configuration for each partition, a file that
holds it, a process that reads it. Waits for nobody.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from xpmem_emu import health
from xpmem_emu.backend.partition_process import start_process
from xpmem_emu.cluster.liveness import start_ticks
from xpmem_emu.cluster.paths import arena_folder, socket_endpoint
from xpmem_emu.cluster.state import ClusterState, PartitionRecord, write_state
from xpmem_emu.cluster.topology import ClusterSpec, PartitionSpec, load_image
from xpmem_emu.image import Image, require_partid
from xpmem_emu.live.config import PartitionConfig
from xpmem_emu.live.zygote import CONFIG_SUFFIX, forked, log_of
from xpmem_emu.xpc.peers import Neighbourhood

_OWN_COMMAND = (sys.executable, "-m", "xpmem_emu.live.partition")


class Progress(Protocol):
    """Hears how far a command is."""

    def __call__(self, done: int, total: int, what: str) -> None:
        """`done` of `total` steps are done; `what` is the last one, for people."""


def no_progress(done: int, total: int, what: str) -> None:
    """A Progress that tells nobody."""


def configs_of(spec: ClusterSpec, folder: Path) -> list[PartitionConfig]:
    """The configuration of each partition. Raises KernelError for anything that is wrong with
    `spec` before a process exists."""
    where = {one.partid: one.endpoint or _socket(folder, one, "xpc") for one in spec.partitions}
    images = {one.partid: _image(spec, one) for one in spec.partitions}
    machine = Neighbourhood(images)
    return [_config(spec, folder, one, where, machine) for one in spec.partitions]


def _image(spec: ClusterSpec, one: PartitionSpec) -> Image:
    image = load_image(one.image or spec.image, domain=one.domain, memory=spec.memory)
    require_partid(image, one.partid)
    return image


def _config(
    spec: ClusterSpec,
    folder: Path,
    one: PartitionSpec,
    where: dict[int, str],
    machine: Neighbourhood,
) -> PartitionConfig:
    peers = machine.peers_of(one.partid)
    return PartitionConfig(
        cluster=spec.name,
        name=one.name,
        partid=one.partid,
        image=one.image or spec.image,
        domain=one.domain,
        memory=spec.memory,
        listen=one.listen or where[one.partid],
        console=one.console or _socket(folder, one, "console"),
        console_listen=one.console_listen,
        peers={partid: peer for partid, peer in where.items() if partid != one.partid},
        standing=list(peers.standing),
        crowd=peers.crowd,
        arena_folder=str(arena_folder(spec.name)),
        event_log=str(folder / f"{one.name}.events.jsonl") if spec.event_log else "",
        lease_s=spec.lease_s,
        keys=spec.keys,
        insecure=spec.insecure,
        health=_socket(folder, one, health.PURPOSE).removeprefix("ipc://"),
    )


def _socket(folder: Path, partition: PartitionSpec, purpose: str) -> str:
    return socket_endpoint(folder / f"{partition.name}.{purpose}")


def empty_state(spec: ClusterSpec, folder: Path) -> ClusterState:
    """The state of a cluster of which nothing runs yet."""
    return ClusterState(
        name=spec.name,
        run_folder=str(folder),
        arena_folder=str(arena_folder(spec.name)),
        command=list(spec.command or _OWN_COMMAND),
        partitions=[],
        keys=spec.keys,
    )


def start_all(
    state: ClusterState, configs: Sequence[PartitionConfig], progress: Progress
) -> ClusterState:
    """Start everybody. The state names each before it does anything: if we die here, `down` still
    finds them all. A command that is not ours need not know how to be a zygote."""
    total = 2 * len(configs)
    if len(configs) > 1 and tuple(state.command) == _OWN_COMMAND:
        paths = [_write_config(state, config) for config in configs]
        with forked(state.command, paths) as pids:
            for config, path, pid in zip(configs, paths, pids, strict=True):
                state = state.including(described(config, pid, path, log_of(path)))
            write_state(state)
        progress(len(configs), total, f"{len(configs)} partitions started")
        return state
    for done, config in enumerate(configs, start=1):
        state = state.including(start(state, config))
        write_state(state)
        progress(done, total, f"{config.name} started")
    return state


def start(state: ClusterState, config: PartitionConfig) -> PartitionRecord:
    """Start one. The state does not name it yet."""
    path = _write_config(state, config)
    pid = start_process([*state.command, "--config", str(path)], log_of(path))
    return described(config, pid, path, log_of(path))


def _write_config(state: ClusterState, config: PartitionConfig) -> Path:
    path = Path(state.run_folder) / (config.name + CONFIG_SUFFIX)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(config)))
    return path


def described(config: PartitionConfig, pid: int, path: Path, log: Path) -> PartitionRecord:
    """What the state says of the process `pid`, which is that partition."""
    return PartitionRecord(
        name=config.name,
        partid=config.partid,
        image=config.image,
        pid=pid,
        domain=load_image(config.image, domain=config.domain).domain,
        started=start_ticks(pid),
        console=config.console,
        endpoint=config.listen,
        config=str(path),
        log=str(log),
    )
