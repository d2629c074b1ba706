"""The bytes of one page, as far as they are known.

A cell holds what the last stores left, and fog over the bytes that nobody can be sure of. A store
counts from its begin to its end; two that overlap in time and place leave fog, and so does one that
may have happened or not. A store that may still land, however late, never ends.
"""

from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from xpmem_emu.units import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE

LOG_MAX = 24
"""A log that is longer drops what nobody can overlap any more."""


class Order:
    """The order of begins and ends."""

    def __init__(self) -> None:
        self.now = 0
        self.oldest = 0
        """When the oldest call that goes on began."""


class StoreFate(Enum):
    """What became of a store."""

    DONE = "done"
    MAYBE = "maybe"
    LOOSE = "it may land at any time"
    NOTHING = "nothing was stored"


@dataclass(eq=False, slots=True)
class Span:
    """Something that goes on from `begin` to `end` (None: it still does) in [low, high)."""

    begin: int
    low: int
    high: int
    end: int | None = None
    along: list["Span"] = field(default_factory=list)
    """What goes on elsewhere for as long."""
    first: "Span | None" = None
    """What this goes along with, at the beginning of that chain. None: it is the beginning."""

    def close(self, now: int) -> None:
        """It has ended."""
        self.end = now
        for span in self.along:
            span.close(now)

    def covers(self, low: int, high: int) -> bool:
        """Whether it is all over [low, high)."""
        return self.low <= low and high <= self.high

    def crosses(self, begin: int, low: int, high: int) -> bool:
        """Whether it was going on at `begin` or later, and somewhere there."""
        late = self.end is None or self.end > begin
        return late and self.low < high and low < self.high


class Log:
    """What goes on, and what has ended that something still going on may have crossed."""

    __slots__ = ("_spans",)

    def __init__(self) -> None:
        self._spans: list[Span] = []

    def begin(self, now: int, low: int, high: int, oldest: int) -> Span:
        """Something begins; nothing that began before `oldest` still goes on."""
        if len(self._spans) > LOG_MAX:
            self._spans = [s for s in self._spans if s.end is None or s.end >= oldest]
        span = Span(now, low, high)
        self._spans.append(span)
        return span

    def follow(self, claim: Span, now: int, low: int, high: int, oldest: int) -> None:
        """From now on `claim` goes on here as well. Once: what moves to and fro would double with
        every turn, and a judge would never come to its end."""
        first = claim.first or claim
        there = next(
            (s for s in self._spans if first in (s, s.first) and s.covers(low, high)), None
        )
        if there is None:
            there = self.begin(now, low, high, oldest)
            there.first = first
            claim.along.append(there)
        if claim.end is not None:
            there.close(now)

    def drop(self, span: Span) -> None:
        """It never was."""
        self._spans.remove(span)

    def crossing(self, begin: int, low: int, high: int, but: Span | None = None) -> list[Span]:
        """What was going on there since `begin`."""
        return [s for s in self._spans if s is not but and s.crosses(begin, low, high)]


class Cell:
    """A page of zeros, until somebody stores."""

    __slots__ = ("data", "fog", "shared", "writes")

    def __init__(self) -> None:
        self.data: bytearray | None = None
        """None: all zeros."""
        self.fog: bytearray | None = None
        """1 where the byte is unknown. None: all are known."""
        self.writes = Log()
        self.shared = False
        """Two pages look at it since a fork: whoever stores takes a copy."""

    def finish(self, write: Span, now: int, data: bytes | memoryview, fate: StoreFate) -> None:
        """A store has ended."""
        low, high = write.low, write.high
        if fate is StoreFate.NOTHING:
            self.writes.drop(write)
            return
        if fate is not StoreFate.LOOSE:
            write.end = now
        if fate is StoreFate.DONE and not self.writes.crossing(write.begin, low, high, but=write):
            self.put(low, data)
        else:
            self.blur(low, high)

    def put(self, low: int, data: bytes | memoryview) -> None:
        """These bytes are there now."""
        if self.data is None:
            self.data = bytearray(PAGE_SIZE)
        self.data[low : low + len(data)] = data
        if self.fog is not None:
            self.fog[low : low + len(data)] = bytes(len(data))

    def blur(self, low: int, high: int) -> None:
        """Nobody knows what is there."""
        if self.fog is None:
            self.fog = bytearray(PAGE_SIZE)
        self.fog[low:high] = b"\1" * (high - low)

    def wipe(self, low: int, since: int) -> None:
        """All is zero from `low` on, but for stores that cross."""
        self.put(low, bytes(PAGE_SIZE - low))
        for span in self.writes.crossing(since, low, PAGE_SIZE):
            self.blur(max(low, span.low), span.high)

    def copy(self, since: int) -> "Cell":
        """What a copy that was made at some time since `since` holds."""
        twin = Cell()
        twin.data = None if self.data is None else bytearray(self.data)
        twin.fog = None if self.fog is None else bytearray(self.fog)
        for span in self.writes.crossing(since, 0, PAGE_SIZE):
            twin.blur(span.low, span.high)
        return twin

    def differs(self, low: int, seen: bytes | memoryview, since: int) -> str:
        """What is wrong with bytes that were read at some time since `since`; empty: nothing."""
        high = low + len(seen)
        known = bytes(len(seen)) if self.data is None else bytes(self.data[low:high])
        if known == seen:
            return ""
        wrong = np.frombuffer(known, np.uint8) != np.frombuffer(seen, np.uint8)
        if self.fog is not None:
            wrong &= np.frombuffer(self.fog, np.uint8)[low:high] == 0
        for span in self.writes.crossing(since, low, high):
            wrong[max(span.low, low) - low : min(span.high, high) - low] = False
        if not wrong.any():
            return ""
        at = int(wrong.argmax())
        return (
            f"byte {low + at:#x} of the page and on: {bytes(seen[at : at + 8]).hex()},"
            f" stored was {known[at : at + 8].hex()}"
        )


NOTHING_STORED = Cell()
"""A cell that is only read."""


def cut_pages(address: int, size: int) -> list[tuple[int, int, int, int]]:
    """A range by pages: (page, first byte in it, last byte in it + 1, place in the range)."""
    parts = []
    done = 0
    while done < size:
        low = (address + done) & PAGE_MASK
        high = min(PAGE_SIZE, low + size - done)
        parts.append(((address + done) >> PAGE_SHIFT, low, high, done))
        done += high - low
    return parts
