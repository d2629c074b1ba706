"""Fault rules: what may happen to messages between partitions, as inert data.

A `Rule` says on which links (`scope`), to which messages (`match`), how often and how long
(`probability`, `times`, `after`, `for_ns`), and what (`verdict` with its parameters). Which
parameters a verdict takes is listed in SIGNATURES, which the grammar and the reference read. What
a verdict does is in `effects`; who counts and when it ends is in `interconnect`.

Every sender counts and draws for itself, from a stream that the harness makes of the run's seed,
the rule's name and the sender: so a rule does the same in a simulator that carries all messages
as in processes that each carry their own, and adding a rule never changes what another one does.
Probability 0 draws nothing and does nothing.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple, Protocol

from xpmem_emu.xpc.frame import KIND
from xpmem_emu.xpc.messages import MESSAGE_NAMES

NAMES_A_SEGMENT = frozenset({"segid", "apid", "entries"})
"""Fields of messages by which the segment is known that they are about."""
ABOUT_SEGMENTS = frozenset(
    name for kind, name in KIND.items() if NAMES_A_SEGMENT.intersection(kind.__struct_fields__)
)


class RandomSource(Protocol):
    """A seeded source of randomness, such as Random."""

    def random(self) -> float:
        """In [0, 1)."""

    def randrange(self, start: int, stop: int, /) -> int:
        """In [start, stop)."""

    def expovariate(self, lambd: float, /) -> float:
        """Exponentially distributed, with mean 1 / lambd."""

    def paretovariate(self, alpha: float, /) -> float:
        """Pareto distributed, at least 1."""


class Fate(Enum):
    """What becomes of a message that a rule hits."""

    DROP = "drop"
    DELAY = "delay"
    DUPLICATE = "duplicate"
    REORDER = "reorder"
    CORRUPT = "corrupt"
    HOLD = "hold"
    REPLAY = "replay"
    LATENCY = "latency"
    LOSS = "loss"
    BANDWIDTH = "bandwidth"
    CAPACITY = "capacity"
    CUT = "cut"
    CLOG = "clog"
    FLAP = "flap"


class Distribution(Enum):
    """How jitter is distributed. All have about the given size as their mean or maximum."""

    UNIFORM = "uniform"
    EXPONENTIAL = "exponential"
    PARETO = "pareto"


class Signature(NamedTuple):
    """The parameters of a verdict, which are fields of Rule: first by position, then by option."""

    gist: str
    position: str = ""
    options: tuple[str, ...] = ()


SIGNATURES: dict[Fate, Signature] = {
    Fate.DROP: Signature("the message is lost"),
    Fate.DELAY: Signature(
        "the message takes longer; others may overtake it",
        "delay_ns",
        ("jitter_ns", "distribution"),
    ),
    Fate.DUPLICATE: Signature("the message arrives twice"),
    Fate.REORDER: Signature("the message arrives after COUNT later ones of its link", "count"),
    Fate.CORRUPT: Signature("one byte of the message's header frame changes"),
    Fate.HOLD: Signature("the message waits until it is released or the fault ends"),
    Fate.REPLAY: Signature(
        "the message arrives, and once more after its receiver has a new incarnation"
    ),
    Fate.LATENCY: Signature(
        "every message of the link takes longer, none overtakes another",
        "delay_ns",
        ("jitter_ns", "distribution"),
    ),
    Fate.LOSS: Signature(
        "messages are lost in bursts (Gilbert-Elliott): SHARE of them in all, BURST messages long "
        "on average, DEPTH of those inside a burst",
        "share",
        ("burst", "depth"),
    ),
    Fate.BANDWIDTH: Signature("the link carries SIZE bytes per second", "rate"),
    Fate.CAPACITY: Signature(
        "more than COUNT messages under way do not fit, the rest is lost", "count"
    ),
    Fate.CUT: Signature("nothing passes, in this direction"),
    Fate.CLOG: Signature("nothing passes; when the fault ends everything arrives in order"),
    Fate.FLAP: Signature(
        "the link is cut for TIME, works for --up TIME, and so on", "down_ns", ("up_ns",)
    ),
}


@dataclass(frozen=True, slots=True)
class Match:
    """Which messages a rule sees; None matches all. `kind` is a wire name such as FAULT_REPLY.

    `nth` is the nth message that fits the rest, counted from 1 by its sender. `segid` fits
    messages that name the segment, or a permit whose GET was seen while the rule was in force.
    """

    kind: str | None = None
    src: int | None = None
    dst: int | None = None
    number: int | None = None
    nth: int | None = None
    segid: int | None = None

    def __post_init__(self) -> None:
        if self.kind is not None and self.kind not in MESSAGE_NAMES:
            known = ", ".join(MESSAGE_NAMES)
            raise ValueError(f"no message is called {self.kind!r}; one of {known}")
        if self.segid is not None and self.kind not in (None, *ABOUT_SEGMENTS):
            known = ", ".join(sorted(ABOUT_SEGMENTS))
            raise ValueError(
                f"{self.kind} names no segment; match it by number, nth or receiver, or match the "
                f"segid of one of {known}"
            )

    def __call__(self, src: int, dst: int, kind: str, number: int) -> bool:
        """Whether the message fits, `nth` and `segid` aside."""
        return (
            self.kind in (None, kind)
            and self.src in (None, src)
            and self.dst in (None, dst)
            and self.number in (None, number)
        )


Partids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Link:
    """All ways from one of `senders` to one of `receivers`, None is any; `both`: and back."""

    senders: Partids | None = None
    receivers: Partids | None = None
    both: bool = False

    def covers(self, src: int, dst: int) -> bool:
        """Whether that way is one of them."""
        return self._one_way(src, dst) or (self.both and self._one_way(dst, src))

    def _one_way(self, src: int, dst: int) -> bool:
        return (self.senders is None or src in self.senders) and (
            self.receivers is None or dst in self.receivers
        )

    @property
    def who_sends(self) -> Partids | None:
        """The partitions that may send on these ways, None: any."""
        if self.both:
            if self.senders is None or self.receivers is None:
                return None
            return tuple(sorted({*self.senders, *self.receivers}))
        return self.senders


class Membership(Enum):
    """Who still reaches whom. Partitions that are not named reach everybody."""

    SPLIT = "split"
    ISOLATE = "isolate"
    BRIDGE = "bridge"
    ASYMMETRIC = "asymmetric"


MEMBERSHIPS: dict[Membership, str] = {
    Membership.SPLIT: "the sides do not reach each other: p0,p1|p2",
    Membership.ISOLATE: "the named partitions reach nobody, and not each other: p2",
    Membership.BRIDGE: "the first and the last side reach the middle one only: p0|p1|p2",
    Membership.ASYMMETRIC: "the first side does not reach the second, which reaches it: p0|p1",
}


@dataclass(frozen=True, slots=True)
class Sides:
    """A cut through the membership: the ways that it covers are those that are cut."""

    membership: Membership
    sides: tuple[Partids, ...]

    def __post_init__(self) -> None:
        named = [partid for side in self.sides for partid in side]
        if len(set(named)) < len(named):
            raise ValueError("a partition can be on one side only")
        wanted = {Membership.ISOLATE: 1, Membership.BRIDGE: 3, Membership.ASYMMETRIC: 2}
        count = wanted.get(self.membership)
        if not all(self.sides) or (count or max(2, len(self.sides))) != len(self.sides):
            raise ValueError(
                f"{self.membership.value} takes {count or 'two or more'} sides, as in "
                f"{MEMBERSHIPS[self.membership].rpartition(': ')[2]}"
            )

    def covers(self, src: int, dst: int) -> bool:
        """Whether the way from `src` to `dst` is cut."""
        mine, other = self._side(src), self._side(dst)
        match self.membership:
            case Membership.ISOLATE:
                return mine is not None or other is not None
            case Membership.ASYMMETRIC:
                return (mine, other) == (0, 1)
            case Membership.BRIDGE:
                return {mine, other} == {0, 2}
        return mine is not None and other is not None and mine != other

    def _side(self, partid: int) -> int | None:
        return next((n for n, side in enumerate(self.sides) if partid in side), None)

    @property
    def who_sends(self) -> Partids | None:
        """The partitions whose messages it may cut, None: any."""
        if self.membership is Membership.ISOLATE:
            return None
        return tuple(sorted(partid for side in self.sides for partid in side))


Scope = Link | Sides
ALL_LINKS = Link()


@dataclass(slots=True)
class Rule:
    """One named fault of messages. `after` matching messages pass first, then at most `times` are
    hit, each with `probability`; it ends by itself after `for_ns`. Which of the parameters count
    is told by SIGNATURES."""

    name: str
    verdict: Fate
    match: Match = field(default_factory=Match)
    probability: float = 1.0
    times: int | None = None
    after: int = 0
    delay_ns: int = 0
    jitter_ns: int = 0
    scope: Scope = ALL_LINKS
    for_ns: int | None = None
    distribution: Distribution = Distribution.UNIFORM
    count: int = 1
    rate: int = 0
    """Bytes per second."""
    share: float = 0.0
    burst: int = 1
    depth: float = 1.0
    down_ns: int = 0
    up_ns: int = 0
    """0: as long as it is down."""
    hits: int = field(default=0, compare=False)
    """How many messages it has hit."""

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1 or not 0 <= self.share <= 1 or not 0 < self.depth <= 1:
            raise ValueError("a probability is between 0 and 1")
        if self.verdict is Fate.BANDWIDTH and self.rate <= 0:
            raise ValueError("a bandwidth is more than 0 bytes per second")
        if self.verdict is Fate.FLAP and self.down_ns <= 0:
            raise ValueError("a link that flaps is down for some time")

    @property
    def inert(self) -> bool:
        """Whether it can never do anything."""
        return self.probability <= 0

    def covers(self, src: int, dst: int) -> bool:
        """Whether messages of that way may be hit."""
        match = self.match
        return match.src in (None, src) and match.dst in (None, dst) and self.scope.covers(src, dst)

    @property
    def who_sends(self) -> Partids | None:
        """The partitions whose messages may be hit, None: any."""
        return self.scope.who_sends if self.match.src is None else (self.match.src,)
