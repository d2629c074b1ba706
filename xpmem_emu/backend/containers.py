"""The launcher of a cluster of containers: the same verbs as `backend.processes`, done by Docker.

    crash   docker kill         hang, resume   docker pause, unpause
    reboot  docker restart      cut, mend      docker network disconnect, connect

A container keeps its name, its volumes and its place across all of these; a new boot inside it is
a new incarnation like any other. Starting and removing the cluster is docker-compose's business,
and refused here with the command to type.

Only the network called `fabric` is cut: consoles are on another one, so a partition that lost its
peers still answers its clients.
"""

import errno
import subprocess
from typing import NoReturn

import psutil

from xpmem_emu.backend.partition_process import PartitionProcess
from xpmem_emu.client.blocking import Partition
from xpmem_emu.client.failures import XpmemError
from xpmem_emu.cluster import docker
from xpmem_emu.cluster.docker import PartitionContainer, container, containers
from xpmem_emu.cluster.topology import load_image
from xpmem_emu.errors import KernelError
from xpmem_emu.polling import wait_until

FABRIC_NETWORK = "fabric"
_RUNNING = "running"
_PAUSED = "paused"
_BOOT_TIMEOUT_S = 60.0
_POLL_S = 0.1


def up(*_: object) -> NoReturn:
    """Raises KernelError: containers are started by docker-compose."""
    raise _refused("docker-compose starts it", docker.START_REMEDY)


def down(*_: object) -> NoReturn:
    """Raises KernelError: containers are removed by docker-compose."""
    raise _refused("docker-compose ends it", "docker-compose down --volumes")


def clean(*_: object) -> NoReturn:
    """Raises KernelError: what containers leave is removed by docker-compose."""
    raise _refused("docker-compose removes what it left", "docker-compose down --volumes")


def ps(cluster: str) -> list[PartitionProcess]:
    """The processes of `cluster`, as far as this machine sees them. Raises KernelError."""
    return [_row(one) for one in containers(cluster)]


def crash(cluster: str, name: str) -> None:
    """Kill the container: the partition is gone without a word. One that is paused goes on for
    the instant before. Raises KernelError ESRCH when it does not run."""
    one = _alive(cluster, name)
    _unpause(one)
    docker.docker("kill", one.ident)
    docker.docker("wait", one.ident)


def hang(cluster: str, name: str) -> None:
    """Freeze the container, maybe inside a store. Raises KernelError ESRCH."""
    one = _alive(cluster, name)
    if one.state != _PAUSED:
        docker.docker("pause", one.ident)


def resume(cluster: str, name: str) -> None:
    """Let the container go on as if nothing had been. Raises KernelError ESRCH."""
    _unpause(_alive(cluster, name))


def reboot(cluster: str, name: str) -> None:
    """Shut the partition down in order, if it runs, and boot it in the same container; returns
    when it answers. Raises KernelError."""
    one = container(cluster, name)
    _unpause(one)
    docker.docker("restart", one.ident)
    if not wait_until(lambda: _answers(container(cluster, name)), _BOOT_TIMEOUT_S, _POLL_S):
        raise KernelError(errno.ETIMEDOUT, f"{name} does not answer", f"xpmem-emu logs {name}")


boot = reboot
"""Docker starts a container that has ended by the same command."""


def cut(cluster: str, name: str) -> None:
    """Take the partition off the network of the partitions. Raises KernelError."""
    one = container(cluster, name)
    docker.docker("network", "disconnect", _fabric(one), one.ident)


def mend(cluster: str, name: str) -> None:
    """Put it on that network again, under its old name. Raises KernelError."""
    one = container(cluster, name)
    alias = one.spec.endpoint.removeprefix("tcp://").rpartition(":")[0]
    docker.docker("network", "connect", "--alias", alias, _fabric(one), one.ident)


def show_log(cluster: str, name: str, *options: str) -> None:
    """Print what the partition logged to our stdout; with "--follow", as it comes."""
    command = ["docker", "logs", *options, container(cluster, name).ident]
    subprocess.run(command, stderr=subprocess.STDOUT, check=False)


def _refused(why: str, remedy: str) -> KernelError:
    return KernelError(errno.EOPNOTSUPP, f"this cluster is one of containers: {why}", remedy)


def _alive(cluster: str, name: str) -> PartitionContainer:
    one = container(cluster, name)
    if one.state not in (_RUNNING, _PAUSED):
        raise KernelError(
            errno.ESRCH,
            f"{name} does not run: its container is {one.state}",
            f"xpmem-emu --cluster {cluster} reboot {name}",
        )
    return one


def _unpause(one: PartitionContainer) -> None:
    if one.state == _PAUSED:
        docker.docker("unpause", one.ident)


def _fabric(one: PartitionContainer) -> str:
    return f"{one.project}_{FABRIC_NETWORK}"


def _answers(one: PartitionContainer) -> bool:
    if one.state not in (_RUNNING, _PAUSED):
        raise KernelError(
            errno.ECHILD, f"{one.spec.name} ended again", f"xpmem-emu logs {one.spec.name}"
        )
    try:
        with Partition(one.spec.name, one.console, keys=docker.keys_of(one)):
            return True
    except XpmemError:
        return False


def _row(one: PartitionContainer) -> PartitionProcess:
    resident, cpu_s = 0, 0.0
    try:
        if one.pid:
            process = psutil.Process(one.pid)
            times = process.cpu_times()
            resident, cpu_s = process.memory_info().rss, times.user + times.system
    except psutil.Error:
        pass
    image = one.spec.image or "laptop"
    return PartitionProcess(
        name=one.spec.name,
        partid=one.spec.partid,
        pid=one.pid,
        state={_RUNNING: "running", _PAUSED: "stopped"}.get(one.state, "dead"),
        domain=one.spec.domain or load_image(image).domain,
        image=image,
        resident=resident,
        cpu_s=cpu_s,
        console=one.console,
        log=f"docker logs {one.ident[:12]}",
    )
