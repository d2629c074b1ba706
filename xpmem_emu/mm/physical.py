"""Physical memory as the processor sees it: windows of the global frame number space.

The own arena is one window; a coherence domain adds the arenas of other partitions. A frame
without a window is not reachable by loads and stores, and saying so is all this module does:
whether the home of a window is alive is judged elsewhere (`VmaOps.check`).
"""

import errno

from xpmem_emu.errors import KernelBug, KernelError
from xpmem_emu.mm.pte import LOCAL_MASK, PARTID_SHIFT
from xpmem_emu.units import PAGE_SHIFT


class PhysicalMemory:
    """Buffers by the high bits of the global frame number (partid)."""

    def __init__(self, partid: int, arena: memoryview) -> None:
        self._windows = {partid: arena}

    def add_window(self, partid: int, buffer: memoryview) -> None:
        """Make the frames of `partid` reachable. KernelBug when they already are."""
        if partid in self._windows:
            raise KernelBug(f"window of p{partid} is already open")
        self._windows[partid] = buffer

    def remove_window(self, partid: int) -> None:
        """The frames of `partid` are gone. Harmless when they were not reachable."""
        self._windows.pop(partid, None)

    def has_window(self, partid: int) -> bool:
        """Whether the frames of `partid` are reachable."""
        return partid in self._windows

    def view(self, gpfn: int, count: int) -> memoryview:
        """The bytes of `count` frames from `gpfn` on. Raises KernelError EFAULT."""
        window = self._windows.get(gpfn >> PARTID_SHIFT)
        start = (gpfn & LOCAL_MASK) << PAGE_SHIFT
        end = start + (count << PAGE_SHIFT)
        if window is None:
            raise KernelError(
                errno.EFAULT, f"no window on the memory of p{gpfn >> PARTID_SHIFT}"
            )
        if end > len(window):
            raise KernelError(errno.EFAULT, f"frame {gpfn:#x} is beyond the end of its memory")
        return window[start:end]
