"""Protection and flags of areas, as calls give them and areas keep them."""

from enum import IntFlag


class Prot(IntFlag):
    """Allowed accesses; Linux numbers. WRITE implies READ, as on x86."""

    NONE = 0
    READ = 1
    WRITE = 2


class VmaFlags(IntFlag):
    """What an area is besides its protection."""

    NONE = 0
    SHARED = 1 << 0
    UNCACHED = 1 << 1
    """Fetch-and-op memory (sources T6)."""
    PFNMAP = 1 << 2
    """Frames without accounting: madvise(DONTNEED) refuses it (sources T5)."""
    IO = 1 << 3
    DONTCOPY = 1 << 4
    DONTEXPAND = 1 << 5
    DONTDUMP = 1 << 6
    READONLY = 1 << 7
    """mprotect must not make it writable: whoever gave the memory did not allow stores."""
