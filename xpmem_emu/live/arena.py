"""Physical memory as files: our own arena, and the arenas of peers in the same arena folder.

An arena is a file of the tmpfs arena folder, mapped shared; partitions that share the folder are
able to share memory directly. A boot never reuses an arena: new boot, new file. All of the file
is allocated at boot, so that a full tmpfs is an error then and not a SIGBUS of the emulator later.

A peer's descriptor is never parsed or used as a path: it must equal the one that we would write
for that partition and boot.

Names of files can be taken away by a cleaner while their owners live. So the arena of a peer that
was mapped once is kept until the peer's process is proven gone or another boot of it is mapped, and
rejoining takes no name; a peer met for the first time is found at the processes that hold its file.
"""

import errno
import mmap
import os
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from xpmem_emu.cluster.descriptors import lost_file
from xpmem_emu.errors import KernelError
from xpmem_emu.units import format_size


def arena_name(partid: int, boot: int) -> str:
    """File name of the arena of one boot."""
    return f"p{partid}.{boot}.arena"


class Arena:
    """Our own physical memory, from boot to orderly exit."""

    def __init__(self, folder: Path, partid: int, boot: int, size: int) -> None:
        """Makes the file; arenas of our earlier boots are removed. Raises KernelError, ENOSPC
        when the folder has no room for `size` bytes."""
        for stale in folder.glob(f"p{partid}.*.arena"):
            stale.unlink(missing_ok=True)
        self.path = folder / arena_name(partid, boot)
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.posix_fallocate(fd, 0, size)
            self.view = memoryview(mmap.mmap(fd, size))
        except OSError as error:
            self.path.unlink()
            raise KernelError(
                error.errno or errno.EIO,
                f"no room for an arena of {format_size(size)} in {folder}: {error.strerror}",
                "a smaller memory.size, fewer partitions, or a larger tmpfs",
            ) from None
        finally:
            os.close(fd)

    def remove(self) -> None:
        """Unlink the file; peers that map it keep their mapping."""
        self.path.unlink(missing_ok=True)


class ArenaMemory:
    """The kernel's PeerMemory over one arena folder."""

    def __init__(
        self, folder: Path, partid: int, boot: int, met: Callable[[int, int], None]
    ) -> None:
        """`met(partid, boot)` hears of each peer whose arena was mapped."""
        self._met = met
        self._folder = folder
        self._token, self._token_fd = _folder_token(folder)
        self._own = self._descriptor(partid, boot)
        self._kept: dict[int, tuple[int, memoryview]] = {}
        """Arenas of peers that may come back, with their boots."""

    def describe(self) -> str:
        """Descriptor of our own arena, for peers."""
        return self._own

    def map(self, partid: int, boot: int, descriptor: str) -> memoryview:
        """The arena of that boot of a peer, read-write. Raises KernelError: EXDEV when it is not
        in our folder, else the errno of the file system."""
        if descriptor != self._descriptor(partid, boot):
            raise KernelError(
                errno.EXDEV,
                f"the memory of p{partid} is not in our arena folder",
                "let both use one arena folder, or give them different domains",
            )
        kept, view = self._kept.get(partid, (0, memoryview(b"")))
        if kept != boot:
            view = _map_existing(self._folder / arena_name(partid, boot))
            self._kept[partid] = boot, view
        self._met(partid, boot)
        return view

    def unmap(self, partid: int) -> None:
        """No access reaches it from now on. The process may come back, so its arena is kept
        until `gone`."""

    def gone(self, partid: int, boot: int) -> None:
        """The process of that boot has ended; the mapping ends with the last view of it."""
        if self._kept.get(partid, (0, None))[0] == boot:
            del self._kept[partid]

    def close(self) -> None:
        """Hold the folder's token no longer."""
        os.close(self._token_fd)

    def _descriptor(self, partid: int, boot: int) -> str:
        return f"{self._token}/{arena_name(partid, boot)}"


def _map_existing(path: Path) -> memoryview:
    """Raises KernelError with the errno of the file system."""
    try:
        fd = _open_existing(path)
        try:
            if os.fstat(fd).st_uid != os.geteuid():
                raise PermissionError(errno.EPERM, "it belongs to another user")
            return memoryview(mmap.mmap(fd, 0))
        finally:
            os.close(fd)
    except OSError as error:
        raise KernelError(
            error.errno or errno.EIO,
            f"{path} cannot be mapped: {error.strerror}",
            "xpmem-emu doctor",
        ) from None


def _open_existing(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        held = lost_file(path)
        if held is None:
            raise
        return os.open(held, os.O_RDWR)


def _folder_token(folder: Path) -> tuple[str, int]:
    """A text that names this folder and no other, whatever path each container sees it at, and the
    descriptor of the file that has it. One whose names were taken away keeps it, through the
    processes that hold that file."""
    path = folder / "token"
    if not path.exists():
        held = lost_file(path)
        mine = folder / f"token.{uuid.uuid4().hex}"
        mine.write_text(held.read_text() if held else uuid.uuid4().hex)
        with suppress(FileExistsError):
            os.link(mine, path)
        mine.unlink()
    fd = os.open(path, os.O_RDONLY)
    return os.pread(fd, 64, 0).decode(), fd
