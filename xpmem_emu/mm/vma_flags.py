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
    MSPEC = 1 << 8
    """Fetch-and-op pages of the mspec driver: nobody but the area's own task fills a hole, and a
    page stays where it is."""


MSPEC_AREA = (
    VmaFlags.SHARED
    | VmaFlags.UNCACHED
    | VmaFlags.PFNMAP
    | VmaFlags.IO
    | VmaFlags.DONTEXPAND
    | VmaFlags.MSPEC
)
"""What an area of the mspec driver is (sources T5, T6)."""
