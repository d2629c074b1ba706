"""Who and what exists in a run, by the numbers that the plan gave them.

Filled as calls succeed. Nothing is ever removed: a call on something that is gone is a good test.
"""

from dataclasses import dataclass, field

from xpmem_emu.sim.plan import Kind
from xpmem_emu.units import PAGE_SIZE

WORD_OFFSETS = (0, 8, PAGE_SIZE - 8)
"""Where the tracked words of a page are: the first two and the last."""


@dataclass(frozen=True, slots=True)
class Actor:
    """A task: its partition, which boot of it, and its pid there."""

    partid: int
    boot: int
    pid: int


@dataclass(frozen=True, slots=True)
class Region:
    """Memory of an exporter."""

    number: int
    task: int
    actor: Actor
    address: int
    pages: int
    kind: Kind
    file: str


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment: some pages of a region."""

    segid: int
    region: int
    page: int
    pages: int


@dataclass(frozen=True, slots=True)
class Permit:
    """A permit of a task, got at step `since`."""

    apid: int
    actor: Actor
    segment: Segment
    since: int


@dataclass(frozen=True, slots=True)
class View:
    """An attachment: `pages` of `region` from `page` on, at `address` of its task."""

    actor: Actor
    address: int
    region: int
    page: int
    pages: int
    since: int


@dataclass
class Cast:
    """All of them."""

    tasks: dict[int, Actor] = field(default_factory=dict)
    regions: dict[int, Region] = field(default_factory=dict)
    segments: dict[int, Segment] = field(default_factory=dict)
    permits: dict[int, Permit] = field(default_factory=dict)
    views: dict[int, View] = field(default_factory=dict)
