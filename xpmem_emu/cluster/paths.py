"""Where a cluster lives on this machine, and whose folders those are.

    <run root>/<cluster>/    sockets, logs, configurations, cluster.json
    <arena root>/<cluster>/  arenas and life files, in a tmpfs if one is large enough

The run root is `$XDG_RUNTIME_DIR/xpmem-emu`, else `/tmp/xpmem-emu-<uid>`; the arena root is
`$XPMEM_EMU_ARENAS`, else `/dev/shm/xpmem-emu-<uid>`, else, where that is as small as in a container
that nobody gave more, `/tmp/xpmem-emu-arenas-<uid>`. Sizes decide and not what is free, so that
everybody finds the same place at any time. Every folder is ours alone (0700): whoever
may write there may write to simulated memory, so one that belongs to somebody else is refused.
A root goes with the last cluster in it, but for `$XPMEM_EMU_ARENAS`: its name is not ours.
"""

import errno
import os
import re
import stat
from contextlib import suppress
from pathlib import Path

from xpmem_emu.errors import KernelError

DEFAULT_CLUSTER = "default"
CLUSTER_VARIABLE = "XPMEM_EMU_CLUSTER"
ARENAS_VARIABLE = "XPMEM_EMU_ARENAS"
KEYS_VARIABLE = "XPMEM_EMU_KEYS"
KEY_VARIABLE = "XPMEM_EMU_KEY"
SOCKET_PATH_MAX = 107
"""Bytes of a unix socket's path: sun_path without its terminating NUL."""

_TMPFS = Path("/dev/shm")
_TMPFS_ENOUGH = 768 << 20
"""Three partitions of the default image."""
_DISK = Path("/tmp")
_TRIES = 100
"""How often a folder is made again that others removed meanwhile."""
_CLUSTER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def run_root() -> Path:
    """The folder of all run folders of this user."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime) / "xpmem-emu" if runtime else Path(f"/tmp/xpmem-emu-{os.geteuid()}")


def run_folder(cluster: str) -> Path:
    """The run folder of `cluster`, which need not exist. Raises KernelError for a bad name."""
    return run_root() / _checked(cluster)


def arena_folder(cluster: str) -> Path:
    """The arena folder of `cluster`, which need not exist. Raises KernelError for a bad name."""
    named = os.environ.get(ARENAS_VARIABLE)
    place = arena_place()
    purpose = "" if place == _TMPFS else "-arenas"
    root = Path(named) if named else place / f"xpmem-emu{purpose}-{os.geteuid()}"
    return root / _checked(cluster)


def arena_place() -> Path:
    """Where arena roots are made when nobody names one: `/dev/shm`, or `/tmp` if that one is too
    small."""
    return _TMPFS if _size(_TMPFS) >= min(_TMPFS_ENOUGH, _size(_DISK)) else _DISK


def arena_note() -> str:
    """One line about a place of arenas that nobody would expect; empty: it is the usual one."""
    if os.environ.get(ARENAS_VARIABLE) or arena_place() == _TMPFS:
        return ""
    from xpmem_emu.units import format_size

    size = format_size(_size(_TMPFS))
    return f"memory is kept in {_DISK}: {_TMPFS} has only {size} (docker: --shm-size 1g)"


def arena_room(cluster: str) -> tuple[Path, int]:
    """The folder that arenas of `cluster` go to, or its first parent there is, and its free
    bytes."""
    folder = arena_folder(cluster)
    while not folder.exists():
        folder = folder.parent
    facts = os.statvfs(folder)
    return folder, facts.f_bavail * facts.f_frsize


def _size(folder: Path) -> int:
    """Bytes of the file system, in use or not; 0: there is no such folder."""
    try:
        facts = os.statvfs(folder)
    except OSError:
        return 0
    return facts.f_blocks * facts.f_frsize


def make_own_folder(path: Path) -> None:
    """Make `path` and its parent as folders of our own. Raises KernelError EPERM when one of
    them is not ours, or another errno when it cannot be made."""
    for left in reversed(range(_TRIES)):
        try:
            path.parent.parent.mkdir(parents=True, exist_ok=True)
            _make_own(path.parent)
            _make_own(path)
            path.chmod(0o700)
            return
        except OSError as error:
            if isinstance(error, FileNotFoundError) and left:
                continue  # it was empty until now, and who left it last has removed it
            raise KernelError(
                error.errno or errno.EIO,
                f"{path} cannot be made: {error.strerror}",
                "set XDG_RUNTIME_DIR or XPMEM_EMU_ARENAS to a folder of yours",
            ) from None


def remove_own_folder(path: Path) -> None:
    """Undo `make_own_folder`: `path` goes with all that is in it, and its parent if it is empty
    then. What cannot be removed stays."""
    import shutil  # loads compressors, for which no command shall wait that removes nothing

    shutil.rmtree(path, ignore_errors=True)
    if path.parent != Path(os.environ.get(ARENAS_VARIABLE, "")):
        with suppress(OSError):
            path.parent.rmdir()


def socket_endpoint(path: Path) -> str:
    """The ZeroMQ endpoint of a unix socket. Raises KernelError ENAMETOOLONG."""
    length = len(os.fsencode(path))
    if length > SOCKET_PATH_MAX:
        raise KernelError(
            errno.ENAMETOOLONG,
            f"socket path {path} has {length} bytes, the system takes {SOCKET_PATH_MAX}",
            "a shorter cluster name, or set XDG_RUNTIME_DIR to a shorter path",
        )
    return f"ipc://{path}"


def _checked(cluster: str) -> str:
    if not _CLUSTER_NAME.fullmatch(cluster):
        raise KernelError(
            errno.EINVAL,
            f"{cluster!r} is no cluster name",
            "letters, digits, dots, dashes and underscores, at most 64",
        )
    return cluster


def _make_own(folder: Path) -> None:
    # pathlib's exist_ok looks whether it is a folder, and takes one that is just gone for a file.
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    facts = folder.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid():
        raise KernelError(
            errno.EPERM,
            f"{folder} is not a folder of this user (owner uid {facts.st_uid})",
            "remove it, or set XDG_RUNTIME_DIR or XPMEM_EMU_ARENAS",
        )


def is_tcp(endpoint: str) -> bool:
    """Whether others than this user of this host can reach an endpoint."""
    return endpoint.startswith("tcp://")
