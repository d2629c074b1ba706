"""The memory of simulated partitions: plain buffers that peers of the domain see as well."""

import errno
import mmap

from xpmem_emu.errors import KernelError


def zeroed(size: int) -> memoryview:
    """A buffer of zeros, whose pages the system hands out as they are touched: most worlds touch
    few of theirs."""
    return memoryview(mmap.mmap(-1, size)) if size else memoryview(b"")


class SimMemory:
    """All arenas, by partition and boot; a reboot never reuses one."""

    def __init__(self) -> None:
        self._arenas: dict[tuple[int, int], memoryview] = {}

    def partition(self, partid: int, boot: int, size: int) -> "PartitionMemory":
        """A fresh zeroed arena of `size` bytes."""
        arena = self._arenas[partid, boot] = zeroed(size)
        return PartitionMemory(self, boot, arena)

    def find(self, partid: int, boot: int) -> memoryview:
        """The arena of that boot. Raises KernelError ENOENT."""
        arena = self._arenas.get((partid, boot))
        if arena is None:
            raise KernelError(errno.ENOENT, f"p{partid} has no arena of boot {boot}")
        return arena


class PartitionMemory:
    """PeerMemory of one simulated kernel."""

    def __init__(self, world: SimMemory, boot: int, arena: memoryview) -> None:
        self.arena = arena
        self._world = world
        self._boot = boot

    def describe(self) -> str:
        """What the reserved page says of our arena."""
        return f"sim:{self._boot}"

    def map(self, partid: int, boot: int, descriptor: str) -> memoryview:
        """The arena of a peer."""
        return self._world.find(partid, boot)

    def unmap(self, partid: int) -> None:
        """Nothing to undo: the buffer is shared."""
