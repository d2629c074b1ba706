"""Trace events of faults and of time lost. The harness emits them, not a kernel.

Their records have sequence 0: they are no part of the gapless numbering of a partition's boot.
"""

from xpmem_emu.trace import Event


class InjectionBegin(Event, frozen=True, tag="fabric:begin"):
    """A fault is in force. `fault` is its text."""

    name: str
    fault: str


class InjectionHit(Event, frozen=True, tag="fabric:hit"):
    """A rule hit a message."""

    name: str
    verdict: str
    kind: str
    src: int
    dst: int
    number: int


class InjectionEnd(Event, frozen=True, tag="fabric:end"):
    """A fault is healed, or ended by itself. `hits` counts what it did."""

    name: str
    hits: int


class StoodStill(Event, frozen=True, tag="fabric:still"):
    """The partition was due to act `late_ns` of its own time before it did: its process was
    stopped or starved, a fault held its events back, or its clock jumped."""

    late_ns: int
