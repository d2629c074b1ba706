"""Fault rules: what may happen to a message between two partitions.

A rule sees a message's way and name and answers with a verdict. It draws from a random stream of
its own, which the harness makes from the run's seed and the rule's name, so adding a rule never
changes what another one does; probability 0 draws nothing and does nothing. A rule never looks
into a message.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from xpmem_emu.xpc.messages import MESSAGE_NAMES


class Stream(Protocol):
    """A seeded source of randomness, such as Stream."""

    def random(self) -> float:
        """In [0, 1)."""

    def randrange(self, start: int, stop: int, /) -> int:
        """In [start, stop)."""


class Verdict(Enum):
    """What becomes of a message."""

    PASS = "pass"
    DROP = "drop"
    DELAY = "delay"
    DUPLICATE = "duplicate"
    CORRUPT = "corrupt"
    HOLD = "hold"


@dataclass(frozen=True, slots=True)
class Match:
    """Which messages a rule sees; None matches all. `kind` is a wire name such as FAULT_REPLY."""

    kind: str | None = None
    src: int | None = None
    dst: int | None = None
    number: int | None = None

    def __post_init__(self) -> None:
        if self.kind is not None and self.kind not in MESSAGE_NAMES:
            known = ", ".join(MESSAGE_NAMES)
            raise ValueError(f"no message is called {self.kind!r}; one of {known}")

    def __call__(self, src: int, dst: int, kind: str, number: int) -> bool:
        """Whether the message is one of them."""
        return (
            self.kind in (None, kind)
            and self.src in (None, src)
            and self.dst in (None, dst)
            and self.number in (None, number)
        )


@dataclass(slots=True)
class Rule:
    """One named fault. `after` matching messages pass first, then at most `times` are hit, each
    with `probability`; DELAY adds `delay_ns` and up to `jitter_ns` more."""

    name: str
    verdict: Verdict
    match: Match = field(default_factory=Match)
    probability: float = 1.0
    times: int | None = None
    after: int = 0
    delay_ns: int = 0
    jitter_ns: int = 0
    hits: int = 0
    """How many messages it has hit."""
    seen: int = 0
    """How many messages it has matched."""

    def judge(self, stream: Stream, src: int, dst: int, kind: str, number: int) -> Verdict:
        """The verdict on one message; PASS when the rule does not apply."""
        if not self.match(src, dst, kind, number):
            return Verdict.PASS
        self.seen += 1
        if self.seen <= self.after or (self.times is not None and self.hits >= self.times):
            return Verdict.PASS
        if self.probability <= 0 or (self.probability < 1 and stream.random() >= self.probability):
            return Verdict.PASS
        self.hits += 1
        return self.verdict

    def draw_delay(self, stream: Stream) -> int:
        """Nanoseconds that a delayed message takes longer."""
        return self.delay_ns + (stream.randrange(0, self.jitter_ns) if self.jitter_ns else 0)
