"""What each verdict does to a message, and what a rule remembers between messages.

    carry(rule, progress, delivery) -> deliveries    the message was hit
    passing(rule, progress, delivery) -> deliveries  it was not, but is on the rule's way

A `Progress` belongs to one rule and one sender; everything it holds for a link is bounded. An
effect never looks at a clock: a delivery says when it would arrive, and the result says when it
will. Which messages are hit is decided elsewhere.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from xpmem_emu.codec import BadMessage, Buffer
from xpmem_emu.inject.rules import Distribution, Fate, RandomSource, Rule
from xpmem_emu.units import SECOND
from xpmem_emu.xpc.frame import Header, decode_frame
from xpmem_emu.xpc.messages import Message

REPLAYED_MAX = 64
"""Messages of a link that a replay keeps."""
HELD_MAX = 4096
"""Messages that a rule holds for one sender; what comes on top is lost, as in a full queue."""


class Delivery(NamedTuple):
    """A message on its way: when it may arrive, where, and what it is. Who only sends needs no
    more; rules look at where it came from and what it is called."""

    at_ns: int
    dst: int
    frames: list[Buffer]
    src: int = -1
    kind: str = ""
    number: int = 0


@dataclass(slots=True)
class LinkState:
    """What a rule remembers of one receiver."""

    last_ns: int = 0
    """The latest arrival so far."""
    free_ns: int = 0
    """When the last byte sent so far is through."""
    bad: bool = False
    """Inside a burst of loss."""
    arrivals: list[int] = field(default_factory=list)
    waiting: list[tuple[int, Delivery]] = field(default_factory=list)
    """Reordered messages, with how many must still overtake each."""
    sent: deque[Delivery] = field(default_factory=lambda: deque(maxlen=REPLAYED_MAX))
    incarnation: int = 0


@dataclass(slots=True)
class RuleProgress:
    """What a rule remembers of one sender."""

    stream: RandomSource
    started_ns: int
    now_ns: int = 0
    """When the message that is looked at was sent."""
    seen: int = 0
    hits: int = 0
    held: list[Delivery] = field(default_factory=list)
    links: dict[int, LinkState] = field(default_factory=dict)
    permits: set[int] = field(default_factory=set)
    """Permits of the segment that the rule is about."""

    def link(self, dst: int) -> LinkState:
        """What is remembered of a receiver."""
        return self.links.setdefault(dst, LinkState())

    def release(self) -> list[Delivery]:
        """Everything held back, oldest first."""
        held, self.held = self.held, []
        for link in self.links.values():
            held += [delivery for _, delivery in link.waiting]
            link.waiting.clear()
        return held


RuleEffect = Callable[[Rule, RuleProgress, Delivery], list[Delivery]]


def carry(rule: Rule, progress: RuleProgress, delivery: Delivery) -> list[Delivery]:
    """What becomes of a message that the rule hits."""
    return _EFFECTS[rule.verdict](rule, progress, delivery)


def passing(rule: Rule, progress: RuleProgress, delivery: Delivery) -> list[Delivery]:
    """What becomes of a message on the rule's way that it does not hit."""
    if rule.verdict is Fate.REORDER:
        return [delivery, *_overtaken(progress.link(delivery.dst), delivery.at_ns)]
    if rule.verdict is Fate.REPLAY:
        return [delivery, *_replayed(progress.link(delivery.dst), delivery)]
    return [delivery]


def read_frames(frames: list[Buffer]) -> tuple[Header, Message] | None:
    """Header and message of frames; None when they are damaged."""
    try:
        header, message, _ = decode_frame(frames)
    except BadMessage:
        return None
    return header, message


# -- messages ---------------------------------------------------------------------------------


def _drop(rule: Rule, progress: RuleProgress, delivery: Delivery) -> list[Delivery]:
    return []


def _duplicate(rule: Rule, progress: RuleProgress, delivery: Delivery) -> list[Delivery]:
    return [delivery, delivery]


def _delay(rule: Rule, progress: RuleProgress, delivery: Delivery) -> list[Delivery]:
    return [delivery._replace(at_ns=delivery.at_ns + _drawn(rule, progress.stream))]


def _hold(rule: Rule, progress: RuleProgress, delivery: Delivery) -> list[Delivery]:
    if len(progress.held) < HELD_MAX:
        progress.held.append(delivery)
    return []


def _reorder(rule: Rule, progress: RuleProgress, delivery: Delivery) -> list[Delivery]:
    link = progress.link(delivery.dst)
    released = _overtaken(link, delivery.at_ns)
    link.waiting.append((rule.count, delivery))
    return released


def _overtaken(link: LinkState, now_ns: int) -> list[Delivery]:
    """One more message passes: who has been overtaken often enough follows it."""
    counted = [(count - 1, delivery) for count, delivery in link.waiting]
    link.waiting = [entry for entry in counted if entry[0] > 0]
    return [delivery._replace(at_ns=now_ns) for count, delivery in counted if count <= 0]


def _corrupt(rule: Rule, progress: RuleProgress, delivery: Delivery) -> list[Delivery]:
    """One byte of the first frame, which is never empty, becomes another one."""
    damaged = bytearray(delivery.frames[0])
    place = progress.stream.randrange(0, len(damaged))
    damaged[place] ^= progress.stream.randrange(1, 256)
    return [delivery._replace(frames=[bytes(damaged), *delivery.frames[1:]])]


def _replay(rule: Rule, progress: RuleProgress, delivery: Delivery) -> list[Delivery]:
    link = progress.link(delivery.dst)
    replayed = _replayed(link, delivery)
    link.sent.append(delivery._replace(frames=[bytes(frame) for frame in delivery.frames]))
    return [delivery, *replayed]


def _replayed(link: LinkState, delivery: Delivery) -> list[Delivery]:
    """The messages to the receiver's last incarnation, once something is sent to a newer one."""
    known = read_frames(delivery.frames)
    incarnation = known[0].dst_incarnation if known else 0
    if incarnation <= link.incarnation:
        return []
    link.incarnation = incarnation
    replayed = [old._replace(at_ns=delivery.at_ns) for old in link.sent]
    link.sent.clear()
    return replayed


def _drawn(rule: Rule, stream: RandomSource) -> int:
    """Nanoseconds that a message takes longer."""
    if not rule.jitter_ns:
        return rule.delay_ns
    match rule.distribution:
        case Distribution.EXPONENTIAL:
            return rule.delay_ns + int(stream.expovariate(1 / rule.jitter_ns))
        case Distribution.PARETO:
            return rule.delay_ns + int((stream.paretovariate(1.5) - 1) * rule.jitter_ns)
    return rule.delay_ns + stream.randrange(0, rule.jitter_ns)


# -- links ------------------------------------------------------------------------------------


def _latency(rule: Rule, progress: RuleProgress, delivery: Delivery) -> list[Delivery]:
    link = progress.link(delivery.dst)
    link.last_ns = max(link.last_ns, delivery.at_ns + _drawn(rule, progress.stream))
    return [delivery._replace(at_ns=link.last_ns)]


def _loss(rule: Rule, progress: RuleProgress, delivery: Delivery) -> list[Delivery]:
    """Two states; a burst ends with 1 / `burst` per message and begins so often that `share` of
    all messages is lost."""
    link, stream = progress.link(delivery.dst), progress.stream
    inside = min(rule.share / rule.depth, 1.0)
    leave = 1 / rule.burst if inside < 1 else 0.0
    enter = min(1.0, inside * leave / (1 - inside)) if inside < 1 else 1.0
    turn = stream.random()
    link.bad = turn >= leave if link.bad else turn < enter
    return [] if link.bad and stream.random() < rule.depth else [delivery]


def _bandwidth(rule: Rule, progress: RuleProgress, delivery: Delivery) -> list[Delivery]:
    link = progress.link(delivery.dst)
    size = sum(len(frame) for frame in delivery.frames)
    begin = max(link.free_ns, delivery.at_ns)
    link.free_ns = begin + size * SECOND // rule.rate
    return [delivery._replace(at_ns=link.free_ns)]


def _capacity(rule: Rule, progress: RuleProgress, delivery: Delivery) -> list[Delivery]:
    """Counts what earlier rules made late: put it behind them."""
    link = progress.link(delivery.dst)
    link.arrivals = [at_ns for at_ns in link.arrivals if at_ns > progress.now_ns]
    if len(link.arrivals) >= rule.count:
        return []
    link.arrivals.append(delivery.at_ns)
    return [delivery]


def _flap(rule: Rule, progress: RuleProgress, delivery: Delivery) -> list[Delivery]:
    period = rule.down_ns + (rule.up_ns or rule.down_ns)
    down = (progress.now_ns - progress.started_ns) % period < rule.down_ns
    return [] if down else [delivery]


_EFFECTS: dict[Fate, RuleEffect] = {
    Fate.DROP: _drop,
    Fate.DELAY: _delay,
    Fate.DUPLICATE: _duplicate,
    Fate.REORDER: _reorder,
    Fate.CORRUPT: _corrupt,
    Fate.HOLD: _hold,
    Fate.REPLAY: _replay,
    Fate.LATENCY: _latency,
    Fate.LOSS: _loss,
    Fate.BANDWIDTH: _bandwidth,
    Fate.CAPACITY: _capacity,
    Fate.CUT: _drop,
    Fate.CLOG: _hold,
    Fate.FLAP: _flap,
}
