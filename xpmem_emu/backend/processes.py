"""The launcher: partitions of a cluster as processes, started, watched and ended.

    up      folders, configurations, processes; returns when every partition is active with all
    down    ends what `up` started and removes what it made; nothing else
    boot    starts one partition of a running cluster again; `crash`, `hang`, `resume` break it

A cluster is a folder and nothing more: no daemon watches it. All changes hold the cluster's lock.
What a crash left behind (dead pids, sockets, arenas) is cleaned by the next `up`; what lives, with
or without a name, is never started a second time.
"""

import errno
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import psutil

from xpmem_emu.backend.partition_process import (
    PartitionProcess,
    cont,
    end,
    end_now,
    log_tail,
    process_row,
    require_running,
    stop,
)
from xpmem_emu.backend.starting import (
    Progress,
    configs_of,
    described,
    empty_state,
    no_progress,
    start,
    start_all,
)
from xpmem_emu.backend.strays import listed, strays_of
from xpmem_emu.client.blocking import Partition
from xpmem_emu.client.dial import credentials
from xpmem_emu.client.failures import XpmemError
from xpmem_emu.cluster.liveness import living, require_dead
from xpmem_emu.cluster.paths import arena_folder, make_own_folder, remove_own_folder, run_folder
from xpmem_emu.cluster.state import (
    STATE_FILE,
    ClusterState,
    PartitionRecord,
    locked,
    process_of,
    read_state,
    write_state,
)
from xpmem_emu.cluster.topology import ClusterSpec
from xpmem_emu.errors import KernelError
from xpmem_emu.live.config import PartitionConfig, require_guarded

if TYPE_CHECKING:
    from xpmem_emu.live.partition import KernelFactory

UP_TIMEOUT_S = 60.0
_STATUS_TIMEOUT_S = 5.0
_POLL_S = 0.02


# -- up ---------------------------------------------------------------------------------------


def up(
    spec: ClusterSpec, progress: Progress = no_progress, timeout_s: float = UP_TIMEOUT_S
) -> ClusterState:
    """Start every partition of `spec` and wait until all are active with their standing peers.

    Raises KernelError: EEXIST when the cluster runs already, ECHILD with the end of its log when
    a partition died, ETIMEDOUT when they do not become active; what was started is ended again.
    Logs that say why stay until the next `up` or `down`.
    """
    with locked(spec.name) as folder:
        _refuse_running(spec.name)
        _clean(spec.name)
        try:
            configs = configs_of(spec, folder)
            for config in configs:
                require_guarded(config)
                # Now, because without a key we could not tell when it is up.
                credentials(config.name, config.console, spec.keys)
            make_own_folder(arena_folder(spec.name))
            state = empty_state(spec, folder)
            state = start_all(state, configs, progress)
            standing = {config.name: set(config.standing) for config in configs}
            _wait_active(state, standing, progress, time.monotonic() + timeout_s)
        except BaseException as error:
            _take_down(spec.name, no_progress, keep_logs=isinstance(error, KernelError))
            raise
        return state


def _living(cluster: str) -> list[str]:
    """Who of it lives, also those that no state names: their launcher died too early, or the run
    folder was taken away."""
    try:
        state = read_state(cluster).partitions
    except KernelError:
        state = []
    alive = [one.name for one in state if process_of(one.pid, one.started)]
    strays = strays_of(cluster)
    unnamed = f"{listed(strays)}, which nothing in {run_folder(cluster)} names"
    return [*alive, *([unnamed] if strays else [])]


def _refuse_running(cluster: str) -> None:
    """Raises KernelError EEXIST when any partition of it lives."""
    if alive := _living(cluster):
        raise KernelError(
            errno.EEXIST,
            f"cluster {cluster} runs already ({', '.join(alive)})",
            f"xpmem-emu --cluster {cluster} down, or another --cluster",
        )


# -- waiting for partitions -------------------------------------------------------------------


def _wait_active(
    state: ClusterState, standing: dict[str, set[int]], progress: Progress, deadline: float
) -> None:
    total = len(state.partitions)
    for done, partition in enumerate(state.partitions, start=total + 1):
        _wait_active_with(state, partition, standing[partition.name], deadline)
        progress(done, 2 * total, f"{partition.name} active")


def _wait_active_with(
    state: ClusterState, partition: PartitionRecord, peers: set[int], deadline: float
) -> None:
    """Raises KernelError ECHILD when any partition died, ETIMEDOUT at `deadline`."""
    why = "it does not answer"
    while time.monotonic() < deadline:
        _require_all_alive(state)
        try:
            with Partition(
                partition.name, partition.console, keys=state.keys, timeout=_STATUS_TIMEOUT_S
            ) as client:
                while (peers := peers - _active_peers(client.status())) and (
                    time.monotonic() < deadline
                ):
                    _require_all_alive(state)
                    time.sleep(_POLL_S)
        except XpmemError as error:
            why = error.cause
        else:
            if not peers:
                return
            why = f"it is not active with p{', p'.join(str(partid) for partid in sorted(peers))}"
        time.sleep(_POLL_S)
    raise KernelError(
        errno.ETIMEDOUT,
        f"{partition.name} is not up: {why}:\n{log_tail(partition)}",
        f"xpmem-emu logs {partition.name}, or xpmem-emu up --timeout 5m",
    )


def _require_all_alive(state: ClusterState) -> None:
    """Raises KernelError ECHILD: one that died is why the others do not become active."""
    for one in state.partitions:
        require_running(one)


def _active_peers(status: dict[str, Any]) -> set[int]:
    peers: dict[int | str, dict[str, object]] = status["peers"]
    return {int(partid) for partid, peer in peers.items() if peer["state"] == "ACTIVE"}


# -- down -------------------------------------------------------------------------------------


def down(cluster: str, progress: Progress = no_progress) -> None:
    """End every process of `cluster`, then remove its sockets, arenas, logs and folders. Raises
    KernelError ENOENT when there is no such cluster."""
    if not run_folder(cluster).is_dir() and not strays_of(cluster):
        read_state(cluster)
    with locked(cluster):
        _take_down(cluster, progress)


def clean(cluster: str) -> list[str]:
    """Remove what the partitions of `cluster` left on this host, unless some live here. Result:
    who does. Raises KernelError EEXIST when one lives in another container."""
    with locked(cluster):
        alive = _living(cluster)
        if not alive:
            _take_down(cluster, no_progress)
        return alive


def _take_down(cluster: str, progress: Progress, keep_logs: bool = False) -> None:
    try:
        partitions = read_state(cluster).partitions
    except KernelError:
        partitions = []
    strays = strays_of(cluster)
    names = {one.pid: one.name for one in partitions}
    names |= {one.life.pid: f"partition {one.partid}" for one in strays}
    total = len(names)

    def ended(pid: int) -> None:
        progress(total - len(names) + 1, total, f"{names.pop(pid)} ended")

    end([*partitions, *(one.life for one in strays)], ended)
    if keep_logs and partitions:
        for path in run_folder(cluster).glob("*"):
            if path.suffix != ".log" and path.name != STATE_FILE:
                path.unlink()
        remove_own_folder(arena_folder(cluster))
        return
    _clean(cluster)
    # We hold the lock: who waits for it sees that its folder is gone and makes a new one.
    remove_own_folder(arena_folder(cluster))
    remove_own_folder(run_folder(cluster))


def _clean(cluster: str) -> None:
    """Remove all files of a cluster without processes. Raises KernelError EEXIST when one has its
    life file: it lives where we cannot see it, in another container, and that is not ours to take.
    """
    arenas = arena_folder(cluster)
    for path in arenas.glob("*.life"):
        if living(path):
            raise KernelError(
                errno.EEXIST,
                f"{path} belongs to a partition of another container",
                "another --cluster, or set XPMEM_EMU_ARENAS to another folder",
            )
    for folder in (arenas, run_folder(cluster)):
        for path in folder.glob("*"):
            path.unlink()


# -- looking ----------------------------------------------------------------------------------


def ps(cluster: str) -> list[PartitionProcess]:
    """The processes of `cluster`. Raises KernelError ENOENT."""
    return [process_row(one) for one in read_state(cluster).partitions]


# -- single partitions ------------------------------------------------------------------------


def boot(cluster: str, name: str, timeout_s: float = UP_TIMEOUT_S) -> PartitionRecord:
    """Start the process of a partition that has none; returns when it answers. Raises
    KernelError: EEXIST when it runs, ENOENT, ECHILD, ETIMEDOUT."""
    with locked(cluster):
        state = read_state(cluster)
        old = state.partition(name)
        if process_of(old.pid, old.started) is not None:
            raise KernelError(
                errno.EEXIST, f"{name} runs (pid {old.pid})", f"xpmem-emu reboot {name}"
            )
        require_dead(Path(state.arena_folder), old.partid)
        config = msgspec.json.decode(Path(old.config).read_bytes(), type=PartitionConfig)
        new = start(state, config)
        write_state(state.including(new))
        alone = msgspec.structs.replace(state, partitions=[new])
        _wait_active_with(alone, new, set(), time.monotonic() + timeout_s)
        return new


def reboot(cluster: str, name: str, timeout_s: float = UP_TIMEOUT_S) -> PartitionRecord:
    """Shut a partition down in order, then boot it. Raises KernelError as `boot` does."""
    end([read_state(cluster).partition(name)], lambda _pid: None)
    return boot(cluster, name, timeout_s)


def crash(cluster: str, name: str) -> None:
    """SIGKILL: the partition is gone without a word. Raises KernelError ENOENT, ESRCH."""
    end_now([_running(cluster, name)])


def hang(cluster: str, name: str) -> None:
    """SIGSTOP: the partition stands still, maybe inside a store. Raises KernelError."""
    stop(_running(cluster, name))


def resume(cluster: str, name: str) -> None:
    """SIGCONT: the partition goes on as if nothing had been. Raises KernelError."""
    cont(_running(cluster, name))


def _running(cluster: str, name: str) -> psutil.Process:
    one = read_state(cluster).partition(name)
    process = process_of(one.pid, one.started)
    if process is None:
        raise KernelError(errno.ESRCH, f"{name} has no process", f"xpmem-emu reboot {name}")
    return process


def boot_one(spec: ClusterSpec, name: str, boot_kernel: "KernelFactory") -> int:
    """Be partition `name` of `spec` in this process, until it stops: what a container runs. Its
    log goes to stderr. Clients and `ps` of this host find it. Result: the exit code. Raises
    KernelError."""
    with locked(spec.name) as folder:
        config = {one.name: one for one in configs_of(spec, folder)}.get(name)
        if config is None:
            names = ", ".join(one.name for one in spec.partitions)
            raise KernelError(
                errno.ENOENT, f"the topology has no partition {name}", f"one of {names}"
            )
        require_guarded(config)
        # Before anything is recorded: if another process is this partition, it stays recorded.
        require_dead(arena_folder(spec.name), config.partid)
        try:
            state = read_state(spec.name)
        except KernelError:
            state = empty_state(spec, folder)
        path = folder / f"{name}.config.json"
        path.write_bytes(msgspec.json.encode(config))
        here = described(config, os.getpid(), path, Path("/dev/stderr"))
        write_state(msgspec.structs.replace(state.including(here), keys=spec.keys))
    from xpmem_emu.live import partition

    return partition.run_partition(config, boot_kernel)
