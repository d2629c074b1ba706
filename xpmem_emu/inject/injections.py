"""Faults that are not of messages: clocks, pace, failpoints and the kernel's own bounds.

Inert data like `Rule`, with a name and perhaps an end. How each is carried out: a clock fault in
`clock`, a pace fault in `throttle`; a kernel fault is told to the kernel as a call, whose name and
fields it knows itself, so that no harness needs a table of them.
"""

from dataclasses import dataclass
from enum import Enum

from xpmem_emu.failpoints.terms import parse_chain
from xpmem_emu.inject.rules import Partids, Rule

Fields = dict[str, str | int]


class ClockEffect(Enum):
    """What a clock does."""

    JUMP = "jump"
    SKEW = "skew"
    FREEZE = "freeze"


class PaceEffect(Enum):
    """What happens to a partition's speed."""

    THROTTLE = "throttle"
    STALL = "stall"


class Bound(Enum):
    """What of a kernel can be brought near its bound."""

    PIN_LIMIT = "pin_limit"
    SEQUENCE = "sequence"
    NUMBER = "number"


OTHER_GISTS = {
    "clock P jump TIME": "the clock of P is TIME ahead of what it was; healing does not undo it",
    "clock P skew SHARE": "the clock of P runs that much faster, or slower when negative",
    "clock P freeze": "the clock of P stands still",
    "throttle P TIME": "P takes an event at most every TIME",
    "stall P": "P takes no event until the fault ends, then all of them in order",
    "P:POINT=TERMS": "a failpoint: TERMS in the grammar of fail(9)",
    "poison P FRAME": "frame FRAME of P gives a machine check to whoever reads or writes it",
    "strain P pin_limit N": "importers may have at most N pages of a task of P pinned",
    "strain P sequence N": "segments of P count their invalidations from N on",
    "strain P number N": "requests of P are numbered from N on, heartbeats too",
}
"""The forms of these faults, for the reference."""


@dataclass(frozen=True, slots=True)
class ClockInjection:
    """`amount`: nanoseconds of a jump. `share`: how much faster a skewed clock runs."""

    name: str
    partids: Partids
    trouble: ClockEffect
    amount: int = 0
    share: float = 0.0
    for_ns: int | None = None

    def __post_init__(self) -> None:
        if not -1 < self.share <= 100:
            raise ValueError("a clock runs forward: the share is more than -1, at most 100")


@dataclass(frozen=True, slots=True)
class PaceInjection:
    """`delay_ns`: the least time between two events of a throttled partition."""

    name: str
    partids: Partids
    trouble: PaceEffect
    delay_ns: int = 0
    for_ns: int | None = None


@dataclass(frozen=True, slots=True)
class PointInjection:
    """A failpoint of some partitions, with its terms as text."""

    name: str
    partids: Partids
    point: str
    terms: str
    for_ns: int | None = None

    def __post_init__(self) -> None:
        parse_chain(self.terms)

    def begin(self, seed: int) -> Fields:
        """The call that sets it."""
        return {"op": "failpoint_set", "point": self.point, "terms": self.terms, "seed": seed}

    def end(self) -> Fields:
        """The call that heals it."""
        return {"op": "failpoint_clear", "point": self.point}


@dataclass(frozen=True, slots=True)
class PoisonInjection:
    """A frame of the one partition named that has gone bad; every partition must be told."""

    name: str
    partids: Partids
    frame: int
    for_ns: int | None = None

    def begin(self, seed: int) -> Fields:
        """The call that says so to a kernel."""
        return {"op": "poison", "home": self.partids[0], "frame": self.frame}

    def end(self) -> Fields:
        """The call that heals it."""
        return {"op": "unpoison", "home": self.partids[0], "frame": self.frame}


@dataclass(frozen=True, slots=True)
class StrainInjection:
    """A kernel near one of its bounds."""

    name: str
    partids: Partids
    bound: Bound
    value: int
    for_ns: int | None = None

    def begin(self, seed: int) -> Fields:
        """The call that brings it there."""
        return {"op": "strain", "bound": self.bound.value, "value": self.value}

    def end(self) -> Fields:
        """The call that heals it: numbers never go back, a limit is lifted."""
        return {"op": "strain", "bound": self.bound.value, "value": 0}


KernelInjection = PointInjection | PoisonInjection | StrainInjection
Injection = Rule | ClockInjection | PaceInjection | KernelInjection


def concerns(fault: Injection) -> Partids | None:
    """The partitions whose harness must know of `fault`, None: all."""
    if isinstance(fault, Rule):
        return fault.who_sends
    return None if isinstance(fault, PoisonInjection) else fault.partids
