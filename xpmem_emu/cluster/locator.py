"""Where a client finds the partitions of a cluster.

The first that applies: the cluster runs on this machine, started by `up` or `boot`; or
`$XPMEM_EMU_TOPOLOGY` names a topology whose partitions somebody else started, on other machines
or in containers; or its name says that it is one of containers of this machine's engine.
"""

import errno
import os
from enum import Enum, auto

from msgspec import Struct

from xpmem_emu.cluster.paths import run_folder
from xpmem_emu.cluster.state import STATE_FILE, read_state
from xpmem_emu.errors import KernelError

TOPOLOGY_VARIABLE = "XPMEM_EMU_TOPOLOGY"


class Home(Enum):
    """Who has the processes of a cluster."""

    HERE = auto()
    ELSEWHERE = auto()
    CONTAINERS = auto()


class Location(Struct, frozen=True):
    """Where clients reach one partition; empty `console`: nowhere at the moment. `keys`: the
    folder of its keys on this machine, if that is known."""

    name: str
    partid: int
    console: str
    keys: str = ""


def home_of(cluster: str) -> Home:
    """Which of the three applies to `cluster`, which need not exist."""
    if (run_folder(cluster) / STATE_FILE).exists():
        return Home.HERE
    if os.environ.get(TOPOLOGY_VARIABLE):
        return Home.ELSEWHERE
    from xpmem_emu.cluster import docker

    return Home.CONTAINERS if docker.is_containers(cluster) else Home.HERE


def locations(cluster: str) -> dict[str, Location]:
    """Every partition of `cluster` by name. Raises KernelError ENOENT when there are none."""
    match home_of(cluster):
        case Home.HERE:
            state = read_state(cluster)
            found = [
                Location(one.name, one.partid, one.console, state.keys) for one in state.partitions
            ]
        case Home.ELSEWHERE:
            from xpmem_emu.cluster.topology import read_topology

            found = [
                Location(one.name, one.partid, one.console)
                for one in read_topology(os.environ[TOPOLOGY_VARIABLE])
            ]
        case Home.CONTAINERS:
            from xpmem_emu.cluster import docker

            containers = docker.containers(cluster)
            keys = docker.keys_of(containers[0])
            found = [
                Location(one.spec.name, one.spec.partid, one.console, keys) for one in containers
            ]
    return {one.name: one for one in found}


def location_of(cluster: str, name: str) -> Location:
    """The partition `name` of `cluster`. Raises KernelError ENOENT, which lists those there are."""
    found = locations(cluster)
    if name not in found:
        raise KernelError(
            errno.ENOENT, f"cluster {cluster} has no partition {name}", f"one of {', '.join(found)}"
        )
    return found[name]
