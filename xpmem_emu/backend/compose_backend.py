"""Containers as a ground: a docker-compose project of its own, up for one run.

Calls, faults and judging are those of processes: partitions are reached through their published
consoles, and their event logs are read in folders that this host shares with them, so the engine
must be on this host. Failures from outside are Docker's: kill, pause, restart, and the network of
the partitions taken away from one.
"""

import errno
import secrets
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from xpmem_emu.backend import containers
from xpmem_emu.backend.compose_project import write_project
from xpmem_emu.backend.interface import BackendSpec, Unanswered, peer_state
from xpmem_emu.backend.live_backend import LiveBackend
from xpmem_emu.client.blocking import connect
from xpmem_emu.client.failures import XpmemError
from xpmem_emu.cluster.docker import COMPOSE_CLUSTER, docker_compose
from xpmem_emu.errors import KernelError
from xpmem_emu.image import image_text
from xpmem_emu.polling import wait_until

_UP_TIMEOUT_S = 60.0
_POLL_S = 0.05


class ComposeBackend(LiveBackend):
    """A Backend whose partitions are containers; all else is as for processes."""

    name = "compose"
    launcher = containers

    def __init__(self, wanted: BackendSpec, seed: int) -> None:
        super().__init__(wanted, seed)
        self._project = f"run-{secrets.token_hex(4)}"
        self.cluster = f"{COMPOSE_CLUSTER}-{self._project}"
        self._file: Path | None = None
        self._cut: set[str] = set()

    def up(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="xpmem-emu-run-"))
        memory = len(self.partitions) * self._image.memory.size
        self._file = write_project(self._folder, self.partitions, image_text(self._image), memory)
        docker_compose(self._project, self._file, "up", "--detach")
        if not wait_until(lambda: all(map(self._joined, self.partitions)), _UP_TIMEOUT_S, _POLL_S):
            raise KernelError(errno.ETIMEDOUT, f"{self.cluster} is not up", "docker logs")

    def down(self) -> None:
        if self._folder is None:
            return
        self.records()
        for client in self._clients.values():
            client.close()
        if self._file is not None:
            docker_compose(self._project, self._file, "down", "--volumes", "--timeout", "2")
        shutil.rmtree(self._folder)
        self._folder = None

    def heal(self, name: str = "") -> None:
        super().heal(name)
        if not name:
            for each in sorted(self._cut):
                self.mend(each)

    def cut(self, partition: str) -> None:
        containers.cut(self.cluster, partition)
        self._cut.add(partition)

    def mend(self, partition: str) -> None:
        containers.mend(self.cluster, partition)
        self._cut.discard(partition)

    def _event_log(self, name: str) -> Path:
        assert self._folder is not None
        return self._folder / "runs" / name / "xpmem-emu" / "default" / f"{name}.events.jsonl"

    def _joined(self, name: str) -> bool:
        """Whether the partition is active with all others."""
        with suppress(XpmemError, Unanswered):
            if name not in self._clients:
                self._clients[name] = connect(name, self.cluster)
            others = self.partitions.keys() - {name}
            return all(peer_state(self, name, other) == "ACTIVE" for other in others)
        return False
