"""Physical memory as the processor sees it: windows of the global frame number space.

The own arena is one window; a coherence domain adds the arenas of other partitions. A frame
without a window is not reachable by loads and stores, and saying so is all this module does:
whether the home of a window is alive is judged elsewhere (`VmaOps.check`).
"""

import errno

from xpmem_emu.errors import KernelBug, KernelError
from xpmem_emu.mm.pte import LOCAL_MASK, PARTID_SHIFT
from xpmem_emu.units import PAGE_SHIFT


class MachineCheck(KernelError):
    """A frame answered a load or store with an uncorrectable error (sources T17)."""

    def __init__(self, gpfn: int) -> None:
        home, frame = gpfn >> PARTID_SHIFT, gpfn & LOCAL_MASK
        super().__init__(
            errno.EIO,
            f"machine check: frame {frame:#x} of p{home} is poisoned",
            "`xpmem-emu fault ls` shows it; the data of that page is lost",
        )


class PhysicalMemory:
    """Buffers by the high bits of the global frame number (partid)."""

    def __init__(self, partid: int, arena: memoryview) -> None:
        self._windows = {partid: arena}
        """One goes when its partition is lost, in one step with the entries that lead there."""
        self.poisoned: set[int] = set()
        """Global numbers of frames that give a machine check."""

    def add_window(self, partid: int, buffer: memoryview) -> None:
        """Make the frames of `partid` reachable. KernelBug when they already are."""
        if partid in self._windows:
            raise KernelBug(f"window of p{partid} is already open")
        self._windows[partid] = buffer

    def remove_window(self, partid: int) -> None:
        """The frames of `partid` are gone. Harmless when they were not reachable."""
        self._windows.pop(partid, None)
        if self.poisoned:
            self.poisoned = {gpfn for gpfn in self.poisoned if gpfn >> PARTID_SHIFT != partid}

    def has_window(self, partid: int) -> bool:
        """Whether the frames of `partid` are reachable."""
        return partid in self._windows

    def require_frame(self, partid: int, frame: int) -> None:
        """Raise KernelError EINVAL when `partid` has no such frame: where its memory is reachable
        its size says so, elsewhere the frame number must at least be one."""
        window = self._windows.get(partid)
        end = LOCAL_MASK + 1 if window is None else len(window) >> PAGE_SHIFT
        if not 0 < frame < end:  # frame 0 is reserved
            raise KernelError(errno.EINVAL, f"p{partid} has no frame {frame:#x}")

    def view(self, gpfn: int, count: int) -> memoryview:
        """The bytes of `count` frames from `gpfn` on. Raises KernelError EFAULT, MachineCheck."""
        if self.poisoned:
            self._check(gpfn, count)
        window = self._windows.get(gpfn >> PARTID_SHIFT)
        start = (gpfn & LOCAL_MASK) << PAGE_SHIFT
        end = start + (count << PAGE_SHIFT)
        if window is None:
            raise KernelError(errno.EFAULT, f"no window on the memory of p{gpfn >> PARTID_SHIFT}")
        if end > len(window):
            raise KernelError(errno.EFAULT, f"frame {gpfn:#x} is beyond the end of its memory")
        return window[start:end]

    def _check(self, gpfn: int, count: int) -> None:
        for bad in sorted(self.poisoned):
            if gpfn <= bad < gpfn + count:
                raise MachineCheck(bad)
