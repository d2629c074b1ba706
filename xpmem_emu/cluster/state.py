"""What a running cluster is made of, as one file in its run folder, and the lock around changes.

`cluster.json` names every process with its pid and start time, because pids are reused: a process
is ours only when both match. It is written by renaming, so a reader sees the old state or the
new. `locked` keeps two launchers apart; it locks the run folder itself, so nothing is left behind.
"""

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from xpmem_emu.cluster.liveness import start_ticks
from xpmem_emu.cluster.paths import make_own_folder, run_folder
from xpmem_emu.errors import KernelError

if TYPE_CHECKING:
    import psutil

STATE_FILE = "cluster.json"
_LOCK_PATIENCE_S = 10.0


class PartitionRecord(Struct, frozen=True):
    """One partition process. `started` as in `life.start_ticks`; `config`, `log` are paths."""

    name: str
    partid: int
    domain: str
    image: str
    pid: int
    started: int
    console: str
    endpoint: str
    config: str
    log: str


class ClusterState(Struct, frozen=True):
    """A cluster that `up` started."""

    name: str
    run_folder: str
    arena_folder: str
    command: list[str]
    partitions: list[PartitionRecord]
    keys: str = ""
    """The folder of the keys that guard tcp endpoints."""

    def partition(self, name: str) -> PartitionRecord:
        """The partition called `name`. Raises KernelError ENOENT, which lists those there are."""
        for partition in self.partitions:
            if partition.name == name:
                return partition
        names = ", ".join(partition.name for partition in self.partitions)
        raise KernelError(
            errno.ENOENT, f"cluster {self.name} has no partition {name}", f"one of {names}"
        )

    def including(self, changed: PartitionRecord) -> "ClusterState":
        """This state with one partition's process added, or replaced."""
        partitions = {one.name: one for one in self.partitions} | {changed.name: changed}
        return msgspec.structs.replace(self, partitions=list(partitions.values()))


def read_state(cluster: str) -> ClusterState:
    """The state of `cluster`. Raises KernelError ENOENT when nothing was started."""
    path = run_folder(cluster) / STATE_FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=ClusterState)
    except FileNotFoundError:
        raise KernelError(
            errno.ENOENT, f"there is no cluster {cluster}", f"xpmem-emu --cluster {cluster} up"
        ) from None
    except msgspec.DecodeError as error:
        raise KernelError(errno.EIO, f"{path}: {error}", "xpmem-emu down") from None


def write_state(state: ClusterState) -> None:
    """Make `state` the one that readers see."""
    path = Path(state.run_folder) / STATE_FILE
    draft = path.with_suffix(".new")
    draft.write_bytes(msgspec.json.format(msgspec.json.encode(state)))
    draft.replace(path)


def process_of(pid: int, started: int) -> "psutil.Process | None":
    """The process, when it is still that one and runs; a zombie does not."""
    import psutil

    if start_ticks(pid) != started:
        return None
    try:
        process = psutil.Process(pid)
        return None if is_zombie(process) else process
    except psutil.NoSuchProcess:
        return None


def is_zombie(process: "psutil.Process") -> bool:
    """Whether it has ended, and waits for somebody to ask how. While another of its threads is on
    the way out its files are still open, and its locks held. Raises psutil.NoSuchProcess."""
    import psutil

    if process.status() != psutil.STATUS_ZOMBIE:
        return False
    try:
        return len(os.listdir(f"/proc/{process.pid}/task")) <= 1
    except OSError:
        return True


@contextmanager
def locked(cluster: str) -> Iterator[Path]:
    """Hold the right to change `cluster`: its run folder, made if need be. Raises KernelError
    EBUSY when somebody else has it for long."""
    folder = run_folder(cluster)
    deadline = time.monotonic() + _LOCK_PATIENCE_S
    while (fd := _try_lock(folder)) is None:
        if time.monotonic() > deadline:
            raise KernelError(
                errno.EBUSY, f"another command is changing cluster {cluster}", "wait for its end"
            )
        time.sleep(0.02)
    try:
        yield folder
    finally:
        os.close(fd)


def _try_lock(folder: Path) -> int | None:
    # `down` removes the folder while it holds the lock: one that we see, or have, may be gone.
    make_own_folder(folder)
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if folder.stat().st_ino == os.fstat(fd).st_ino:
            return fd
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(fd)
    return None
