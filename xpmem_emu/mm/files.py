"""The files of one partition by name, and the simulated disk's budget of bytes."""

import errno
from typing import TYPE_CHECKING

from xpmem_emu.errors import KernelError
from xpmem_emu.failpoints.points import DISK_CHARGE
from xpmem_emu.mm.gather import Gather
from xpmem_emu.mm.inode import Inode
from xpmem_emu.units import page_align_up

if TYPE_CHECKING:
    from xpmem_emu.mm.manager import MemoryManager


class FileTable:
    """Names to inodes. Blocks are charged in whole pages, deleted but mapped files included."""

    def __init__(self, manager: "MemoryManager", capacity: int, limit: int) -> None:
        self.capacity = capacity
        self.used = 0
        """Bytes of disk in use."""
        self.by_name: dict[str, Inode] = {}
        self._manager = manager
        self._limit = limit

    def charge(self, size: int) -> None:
        """Take (or, negative, give back) bytes of disk. Raises EFBIG, ENOSPC."""
        if size > 0 and self._manager.failpoints.armed:
            self._manager.failpoints.check(DISK_CHARGE)
        if size > self.capacity:
            raise KernelError(errno.EFBIG, f"{size} bytes, the disk has {self.capacity}")
        if self.used + size > self.capacity:
            raise KernelError(
                errno.ENOSPC,
                f"{self.used} of {self.capacity} bytes of disk are used",
                "unlink a file, or raise memory.files of the image",
            )
        self.used += size

    def create(self, name: str, size: int) -> Inode:
        """A new file of `size` zero bytes. Raises EEXIST, ENFILE, EFBIG, ENOSPC."""
        if name in self.by_name:
            raise KernelError(errno.EEXIST, f"file {name} exists")
        if len(self.by_name) >= self._limit:
            raise KernelError(
                errno.ENFILE, f"{self._limit} files exist", "raise limits.files of the image"
            )
        self.charge(page_align_up(size))
        inode = self.by_name[name] = Inode(self._manager, name, size)
        return inode

    def create_unnamed(self, size: int) -> Inode:
        """The object behind shared anonymous memory. Raises EFBIG, ENOSPC."""
        self.charge(page_align_up(size))
        return Inode(self._manager, "", size)

    def lookup(self, name: str) -> Inode:
        """The file of that name. Raises ENOENT."""
        if name not in self.by_name:
            raise KernelError(errno.ENOENT, f"no file {name}")
        return self.by_name[name]

    async def unlink(self, name: str) -> None:
        """Remove a name; the inode lives until its last mapping is gone. Raises ENOENT."""
        inode = self.lookup(name)
        del self.by_name[name]
        inode.linked = False
        async with Gather(self._manager) as gather:
            inode.destroy_if_unused(gather)
