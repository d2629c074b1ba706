"""Trace events of failpoints."""

from xpmem_emu.trace import Event


class PointSet(Event, frozen=True, tag="failpoint:set"):
    """From now on the point does this."""

    point: str
    terms: str


class PointCleared(Event, frozen=True, tag="failpoint:clear"):
    """The point does nothing any more. `hits` counts what it did."""

    point: str
    hits: int


class PointHit(Event, frozen=True, tag="failpoint:hit"):
    """A term of the point acted."""

    point: str
    action: str
