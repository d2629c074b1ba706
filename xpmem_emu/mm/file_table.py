"""The files of one partition by name, and the simulated disk's budget of bytes."""

import errno

from xpmem_emu.errors import KernelError
from xpmem_emu.failpoints import Failpoints
from xpmem_emu.failpoints.points import DISK_CHARGE
from xpmem_emu.mm.inode import Inode


class FileTable:
    """Names to inodes. Blocks are charged in whole pages, deleted but mapped files included."""

    def __init__(self, failpoints: Failpoints, capacity: int, limit: int) -> None:
        self.capacity = capacity
        self.used = 0
        """Bytes of disk in use."""
        self.by_name: dict[str, Inode] = {}
        self.inodes: dict[int, Inode] = {}
        """By Inode.id: every one that a name, an area or a call keeps alive."""
        self.fixed: set[int] = set()
        """The ids of those whose pages stay where they are."""
        self._failpoints = failpoints
        self._limit = limit

    def charge(self, size: int) -> None:
        """Take (or, negative, give back) bytes of disk. Raises EFBIG, ENOSPC."""
        if size > 0 and self._failpoints.armed:
            self._failpoints.check(DISK_CHARGE)
        if size > self.capacity:
            raise KernelError(errno.EFBIG, f"{size} bytes, the disk has {self.capacity}")
        if self.used + size > self.capacity:
            raise KernelError(
                errno.ENOSPC,
                f"{self.used} of {self.capacity} bytes of disk are used",
                "unlink a file, or raise memory.files of the image",
            )
        self.used += size

    def require_room(self, name: str) -> None:
        """Raise EEXIST or ENFILE unless there can be a file of that name."""
        if name in self.by_name:
            raise KernelError(errno.EEXIST, f"file {name} exists")
        if len(self.by_name) >= self._limit:
            raise KernelError(
                errno.ENFILE, f"{self._limit} files exist", "raise limits.files of the image"
            )

    def lookup(self, name: str) -> Inode:
        """The file of that name. Raises ENOENT."""
        if name not in self.by_name:
            raise KernelError(errno.ENOENT, f"no file {name}")
        return self.by_name[name]

    def require_alive(self, inode: Inode) -> None:
        """Raise ENOENT when the inode was destroyed; who held on to it slept too long."""
        if inode.id not in self.inodes:
            raise KernelError(errno.ENOENT, f"{inode.title} was deleted")
