"""Who and what exists in a run, by the numbers that the plan gave them.

Filled as calls succeed. Nothing is ever removed: a call on something that is gone is a good test.
"""

from dataclasses import dataclass, field

from xpmem_emu.sim.plan import Operation, RegionKind
from xpmem_emu.units import PAGE_SIZE

WORD_OFFSETS = (0, 8, PAGE_SIZE - 8)
"""Where the tracked words of a page are: the first two and the last."""
UNTRACKED = -1
"""The number of a region whose words are not in the history."""
GUEST_AT = 1 << 48
"""Where guests have their tasks' memory: so far above the task's own addresses."""
_PLACES, _PLACE_SIZE = 0x10_0000_0000, 1 << 24


@dataclass(frozen=True, slots=True)
class TaskKey:
    """A task: its partition, which boot of it, and its pid there."""

    partid: int
    boot: int
    pid: int


@dataclass(frozen=True, slots=True)
class Region:
    """Memory of an exporter."""

    number: int
    task: int
    actor: TaskKey
    address: int
    pages: int
    kind: RegionKind
    file: str


@dataclass(frozen=True, slots=True)
class KnownSegment:
    """A segment: some pages of a region."""

    segid: int
    region: int
    page: int


@dataclass(frozen=True, slots=True)
class KnownPermit:
    """A permit of a task, got at step `since`."""

    apid: int
    actor: TaskKey
    segment: KnownSegment
    since: int


@dataclass(frozen=True, slots=True)
class View:
    """An attachment: `pages` of `region` from `page` on, at `address` of its task."""

    actor: TaskKey
    address: int
    region: int
    page: int
    pages: int
    since: int


@dataclass
class Registry:
    """All of them."""

    tasks: dict[int, TaskKey] = field(default_factory=dict)
    regions: dict[int, Region] = field(default_factory=dict)
    segments: dict[int, KnownSegment] = field(default_factory=dict)
    permits: dict[int, KnownPermit] = field(default_factory=dict)
    views: dict[int, View] = field(default_factory=dict)
    covered: list[tuple[TaskKey, int, int]] = field(default_factory=list)
    """(who, first address, end): something else may have been mapped there by now."""
    twice: set[int] = field(default_factory=set)
    """Regions whose words are mapped elsewhere as well: they stay when one mapping goes."""
    _lengths: dict[str, int] = field(default_factory=dict)
    """Pages of each file that were never cut off."""
    _written: set[str] = field(default_factory=set)
    """Files that are written by call."""

    def cut(self, region: Region, page: int) -> bool:
        """Whether a region's file may be cut off at `page`: growing again would bring zeroes where
        there was nothing, so it never grows, and one that is written by call is never cut."""
        if region.number == UNTRACKED or region.file in self._written:
            return False
        if page > self._lengths.setdefault(region.file, region.pages):
            return False
        self._lengths[region.file] = page
        return True

    def write(self, region: Region) -> bool:
        """Whether a region's file may be written by call."""
        if region.kind is not RegionKind.FILE or region.file in self._lengths:
            return False
        self._written.add(region.file)
        return True

    def home(self, region: int) -> int:
        """The partition of a region, -1 of untracked ones."""
        return self.regions[region].actor.partid if region != UNTRACKED else -1

    def uncovered(self, actor: TaskKey, address: int, size: int) -> bool:
        """Whether these addresses can only be what they were when they got their number."""
        return all(
            actor != who or address >= end or address + size <= start
            for who, start, end in self.covered
        )


def planned_address(operation: Operation) -> int:
    """Where a region or attachment goes: nowhere twice, so that an address names one thing, but
    for what is put beside another."""
    place = operation.beside or operation.made
    return _PLACES + place * _PLACE_SIZE + operation.slot * PAGE_SIZE
