"""Who ends, stops and boots the partitions of a cluster: the launcher that its home asks for."""

import errno
from typing import Protocol

from xpmem_emu.backend import containers, processes
from xpmem_emu.backend.partition_process import PartitionProcess
from xpmem_emu.backend.starting import Progress
from xpmem_emu.cluster.locator import TOPOLOGY_VARIABLE, Home, home_of
from xpmem_emu.cluster.topology import ClusterSpec
from xpmem_emu.errors import KernelError


class Launcher(Protocol):
    """What can be done to the processes of a cluster, as `processes` does it to those of this host.
    All raise KernelError."""

    def up(self, spec: ClusterSpec, progress: Progress, timeout_s: float) -> object:
        """Start it, and wait until its partitions are active with each other."""

    def down(self, cluster: str, progress: Progress) -> None:
        """End it and remove what it left."""

    def clean(self, cluster: str) -> list[str]:
        """Remove what it left here, unless some of it lives here, who is the result."""

    def ps(self, cluster: str) -> list[PartitionProcess]:
        """Its processes."""

    def crash(self, cluster: str, name: str) -> None:
        """A partition is gone without a word."""

    def hang(self, cluster: str, name: str) -> None:
        """A partition stands still."""

    def resume(self, cluster: str, name: str) -> None:
        """A partition goes on."""

    def boot(self, cluster: str, name: str) -> object:
        """A partition without a process gets one."""

    def reboot(self, cluster: str, name: str) -> object:
        """A partition boots again."""


def launcher_of(cluster: str) -> Launcher:
    """The launcher of `cluster`. Raises KernelError EOPNOTSUPP when it is not of this machine."""
    match home_of(cluster):
        case Home.CONTAINERS:
            return containers
        case Home.ELSEWHERE:
            raise KernelError(
                errno.EOPNOTSUPP,
                f"${TOPOLOGY_VARIABLE} says where the partitions are, not who started them",
                "what started them, such as docker-compose restart p1",
            )
    return processes
