"""What the model knows of: partitions with tasks and files, pages, segments and permits."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from xpmem_emu.judge.shadow.cells import NOTHING_STORED, Cell, Log
from xpmem_emu.units import PAGE_MASK, PAGE_SHIFT

WILD_PAGES = 4096
"""A task with a larger range than this is not modelled."""


class Backing(Enum):
    """What is behind a page."""

    PRIVATE = "private"
    SHARED = "shared"
    ATTACHED = "attached"
    UNKNOWN = "unknown"


@dataclass(eq=False)
class File:
    """A file, or shared memory without a name. `size`: None when nobody knows."""

    size: int | None
    cells: dict[int, Cell] = field(default_factory=dict)
    sizes: Log = field(default_factory=Log)
    """Changes of the size."""

    def cell(self, index: int) -> Cell:
        """A page, to be stored into."""
        return self.cells.setdefault(index, Cell())


@dataclass(eq=False)
class ShadowSegment:
    """What make gave. `owner`: uid and gid of who opened the device, None when unknown."""

    home: int
    pid: int
    first_vpn: int
    pages: int
    size: int
    mode: int
    owner: tuple[int, int] | None
    leaving: int | None = None
    """When somebody began to remove it."""
    gone: int | None = None
    """When it was removed for certain."""


def exported(segments: Iterable[ShadowSegment], partid: int, pid: int, vpn: int) -> bool:
    """Whether a page of a task is, or was, in a segment."""
    return any(
        (each.home, each.pid) == (partid, pid) and 0 <= vpn - each.first_vpn < each.pages
        for each in segments
    )


@dataclass(eq=False)
class ShadowPermit:
    """What get gave."""

    pid: int
    segid: int
    readonly: bool
    leaving: int | None = None
    gone: int | None = None


@dataclass(eq=False)
class Attached:
    """An attachment. `since`: the step of the cluster in which it was asked for."""

    apid: int
    segment: ShadowSegment
    since: int


@dataclass(slots=True, eq=False)
class ShadowPage:
    """One page of a task. Private: `cell`, or what `file` has until it is stored into."""

    kind: Backing
    prot: int = 0
    file: File | None = None
    index: int = 0
    uncached: bool = False
    hole: bool = False
    """A page of mspec that its task has not touched yet: nobody else reaches it."""
    cell: Cell | None = None
    copied: bool = False
    """A private page of a file has its own copy for certain."""
    attached: Attached | None = None
    vpn: int = 0
    """Of the exporter's page, for an attachment."""
    perhaps: tuple["ShadowPage", ...] = ()
    """Of an unknown page: which memory that others see as well it may be."""

    @property
    def known(self) -> bool:
        """Whether it is memory that the model follows."""
        return self.kind in (Backing.PRIVATE, Backing.SHARED)

    @property
    def fresh(self) -> bool:
        """A private page of a file that nobody has stored into."""
        return self.kind is Backing.PRIVATE and self.cell is None and self.file is not None

    @property
    def candidates(self) -> tuple["ShadowPage", ...]:
        """Itself, and all that it may be."""
        return (self, *self.perhaps)

    def seen(self) -> Cell:
        """What a load sees."""
        if self.kind is Backing.PRIVATE and self.cell is not None:
            return self.cell
        if self.file is not None:
            return self.file.cells.get(self.index, NOTHING_STORED)
        return NOTHING_STORED

    def own(self, now: int) -> Cell:
        """What a store goes to."""
        if self.kind is Backing.SHARED:
            assert self.file is not None
            return self.file.cell(self.index)
        if self.cell is None:
            self.cell = self.seen().copy(now)
        elif self.cell.shared:
            self.cell = self.cell.copy(now)
        return self.cell


def doubt(*pages: ShadowPage | None) -> ShadowPage:
    """Nobody knows which of these it is, if any."""
    known = [page for page in pages if page is not None]
    seen = {id(each): each for page in known for each in page.candidates}
    others = [
        each
        for each in seen.values()
        if each.attached is not None or (each.kind is Backing.SHARED and each.file is not None)
    ]
    return ShadowPage(Backing.UNKNOWN, perhaps=tuple(others))


@dataclass(eq=False)
class Creds:
    """Who a task is. None: nobody knows."""

    uid: int
    gids: tuple[int, ...]
    capable: bool


@dataclass(eq=False)
class ShadowTask:
    """One task. `wild` ones are not judged."""

    partid: int
    pid: int
    creds: Creds | None
    pages: dict[int, ShadowPage] = field(default_factory=dict)
    wild: bool = False
    dying: bool = False
    opened: Creds | None = None
    """Who it was when it opened the device."""
    areas: Log = field(default_factory=Log)
    """Changes of its pages, by page number."""
    stores: Log = field(default_factory=Log)
    """Stores into its pages, by page number, its own and those of importers."""
    identity: Log = field(default_factory=Log)
    """Changes of who it is and of its device."""

    def touch(self, address: int, size: int) -> None:
        """It may have filled what holes of mspec there are."""
        low, high = address >> PAGE_SHIFT, (address + size + PAGE_MASK) >> PAGE_SHIFT
        for vpn in range(low, high) if size < 1 << 20 else list(self.pages):
            page = self.pages.get(vpn)
            if page is not None and page.hole:
                page.hole = not low <= vpn < high

    def forget(self, low: int, high: int) -> None:
        """Nobody knows what is mapped there."""
        for vpn in range(low, high):
            self.pages[vpn] = doubt(self.pages.get(vpn))

    def put(self, vpn: int, page: ShadowPage | None) -> None:
        """Something else is mapped there now."""
        if page is None:
            self.pages.pop(vpn, None)
        else:
            self.pages[vpn] = page


@dataclass(eq=False)
class ShadowPartition:
    """One partition, from boot to crash."""

    partid: int
    tasks: dict[int, ShadowTask] = field(default_factory=dict)
    files: dict[str, File] = field(default_factory=dict)
    names: Log = field(default_factory=Log)
    """Changes of directory entries."""
    permits: dict[int, ShadowPermit] = field(default_factory=dict)
    poisoned: bool = False
    """Frames of it went bad: what was on them is lost."""
