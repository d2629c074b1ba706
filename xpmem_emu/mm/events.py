"""Trace events of the memory layer. Frames are local frame numbers, addresses are bytes."""

from xpmem_emu.trace import Event

Extents = list[tuple[int, int]]
"""(first frame, count), ascending."""


class FramesFree(Event, frozen=True, tag="mm:frames_free"):
    """These frames returned to the allocator: nobody holds them any more (sources T15)."""

    count: int
    extents: Extents


class PageFault(Event, frozen=True, tag="mm:fault"):
    """Entries were installed. `kind`: anonymous, file, private, swap_in or reuse."""

    pid: int
    address: int
    pages: int
    kind: str


class Cow(Event, frozen=True, tag="mm:cow"):
    """Copy on write: the pages from `address` on now have frames of their own."""

    pid: int
    address: int
    pages: int


class Unmap(Event, frozen=True, tag="mm:unmap"):
    """The entries of [start, end) were cleared. `why` names the operation."""

    pid: int
    start: int
    end: int
    why: str


class Forked(Event, frozen=True, tag="mm:fork"):
    """The address space of `pid` was copied for `child`; `pages` entries are shared."""

    pid: int
    child: int
    pages: int


class Mprotected(Event, frozen=True, tag="mm:mprotect"):
    """The protection of [start, end) changed."""

    pid: int
    start: int
    end: int
    prot: int


class SwapOut(Event, frozen=True, tag="mm:swap_out"):
    """Anonymous pages were written to swap."""

    pages: int


class Reclaimed(Event, frozen=True, tag="mm:reclaim"):
    """try_to_unmap ran over `tried` frames; `freed` of them were given up."""

    tried: int
    freed: int


class Migrated(Event, frozen=True, tag="mm:migrate"):
    """`moved` of `tried` pages have new frames."""

    tried: int
    moved: int


class Mkclean(Event, frozen=True, tag="mm:mkclean"):
    """Dirty pages of a file were write-protected before they are written back."""

    file: str
    pages: int


class Truncated(Event, frozen=True, tag="mm:truncate"):
    """A file has a new size, in bytes; `pages` cached pages were dropped."""

    file: str
    size: int
    pages: int
