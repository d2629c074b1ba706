"""The way of every message: which rules it meets, and when and how often it arrives.

A message passes the rules in the order in which they were added; what one rule makes of it, the
next one sees. With no rule at all the path is one `if`. Nothing here sends and nothing here knows
the time: the harness carries deliveries out, and asks for what has ended when it is time.

A rule of probability 0 is inert: it is listed, and that is all.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from xpmem_emu.codec import Buffer
from xpmem_emu.inject import events
from xpmem_emu.inject.effects import Delivery, RuleProgress, carry, passing, read_frames
from xpmem_emu.inject.grammar import format_rule
from xpmem_emu.inject.rules import RandomSource, Rule
from xpmem_emu.trace import Event
from xpmem_emu.xpc.messages import Get

__all__ = ["Delivery", "Interconnect", "Outgoing"]


class Outgoing(Protocol):
    """A message as it leaves a kernel."""

    @property
    def partid(self) -> int:
        """Where it goes."""

    @property
    def kind(self) -> str:
        """Its wire name."""

    @property
    def number(self) -> int:
        """Its number."""

    @property
    def frames(self) -> list[Buffer]:
        """Its bytes."""


@dataclass(slots=True)
class _Force:
    """A rule in force."""

    rule: Rule
    since_ns: int | None = None
    """When it was added, where that was said; else when it saw its first message."""
    senders: dict[int, RuleProgress] = field(default_factory=dict)
    left: set[int] = field(default_factory=set)
    """Senders whose process ended since, which healed the rule for them."""


def _unheard(event: Event) -> None:
    """Nobody listens."""


class Interconnect:
    """The rules between all partitions of one run, or of one partition's process."""

    def __init__(
        self, stream_of: Callable[[str], RandomSource], emit: Callable[[Event], None] = _unheard
    ) -> None:
        """`stream_of` makes the random stream that belongs to a name; `emit` hears of what begins,
        hits and ends."""
        self._stream_of = stream_of
        self._emit = emit
        self._forces: dict[str, _Force] = {}

    def listen(self, emit: Callable[[Event], None]) -> None:
        """Tell `emit` from now on."""
        self._emit = emit

    @property
    def idle(self) -> bool:
        """Whether there is no rule at all."""
        return not self._forces

    @property
    def rules(self) -> Sequence[Rule]:
        """The rules in force, in the order in which they were added."""
        return [force.rule for force in self._forces.values()]

    def add(self, rule: Rule, now_ns: int | None = None) -> None:
        """Put a rule in force, behind the others. Raises ValueError when the name is taken."""
        if rule.name in self._forces:
            raise ValueError(f"there is a rule named {rule.name!r} already")
        self._forces[rule.name] = _Force(rule, now_ns)
        if not rule.inert:
            self._emit(events.InjectionBegin(name=rule.name, fault=format_rule(rule)))

    def remove(self, name: str, now_ns: int) -> list[Delivery]:
        """Heal one rule; what it held goes on its way. Raises KeyError."""
        released = self.release(name, now_ns)
        rule = self._forces.pop(name).rule
        if not rule.inert:
            self._emit(events.InjectionEnd(name=name, hits=rule.hits))
        return released

    def leave(self, src: int) -> None:
        """The process of partition `src` ended: what the rules in force hold of it is lost, and
        its next boot has none of them."""
        for force in self._forces.values():
            force.senders.pop(src, None)
            force.left.add(src)

    def reset(self, now_ns: int) -> list[Delivery]:
        """Heal everything."""
        return [held for name in list(self._forces) for held in self.remove(name, now_ns)]

    def release(self, name: str, now_ns: int) -> list[Delivery]:
        """The messages that a rule holds back, oldest first of each sender, due now; the rule
        stays in force. Raises KeyError."""
        return [
            delivery._replace(at_ns=now_ns)
            for progress in self._forces[name].senders.values()
            for delivery in progress.release()
        ]

    def held(self, name: str) -> int:
        """How many messages a rule holds back. Raises KeyError."""
        return sum(
            len(progress.held) + sum(len(link.waiting) for link in progress.links.values())
            for progress in self._forces[name].senders.values()
        )

    def route(self, now_ns: int, src: int, message: Outgoing) -> list[Delivery]:
        """The deliveries that become of a message of partition `src`."""
        deliveries = [
            Delivery(now_ns, message.partid, message.frames, src, message.kind, message.number)
        ]
        if not self._forces:
            return deliveries
        for force in list(self._forces.values()):
            deliveries = [
                result for delivery in deliveries for result in self._pass(now_ns, force, delivery)
            ]
        return deliveries

    def _pass(self, now_ns: int, force: _Force, delivery: Delivery) -> list[Delivery]:
        rule = force.rule
        covered = rule.covers(delivery.src, delivery.dst) and delivery.src not in force.left
        if rule.inert or not covered or self._over(now_ns, force):
            return [delivery]
        progress = force.senders.get(delivery.src)
        if progress is None:
            progress = force.senders[delivery.src] = RuleProgress(
                self._stream_of(f"{rule.name}/p{delivery.src}"),
                now_ns if force.since_ns is None else force.since_ns,
            )
        progress.now_ns = now_ns
        if not _hits(rule, progress, delivery):
            return passing(rule, progress, delivery)
        rule.hits += 1
        self._emit(
            events.InjectionHit(
                name=rule.name,
                verdict=rule.verdict.value,
                kind=delivery.kind,
                src=delivery.src,
                dst=delivery.dst,
                number=delivery.number,
            )
        )
        return carry(rule, progress, delivery)

    def _over(self, now_ns: int, force: _Force) -> bool:
        """Whether its time is up; it stays listed until the harness removes it."""
        if force.since_ns is None:
            force.since_ns = now_ns
        return force.rule.for_ns is not None and now_ns >= force.since_ns + force.rule.for_ns


def _hits(rule: Rule, progress: RuleProgress, delivery: Delivery) -> bool:
    """Whether this message is one of those that the rule hits."""
    match = rule.match
    if match.segid is not None and not _concerns(match.segid, progress, delivery):
        return False
    if not match(delivery.src, delivery.dst, delivery.kind, delivery.number):
        return False
    progress.seen += 1
    if match.nth is not None and progress.seen != match.nth:
        return False
    if progress.seen <= rule.after or (rule.times is not None and progress.hits >= rule.times):
        return False
    if rule.probability < 1 and progress.stream.random() >= rule.probability:
        return False
    progress.hits += 1
    return True


def _concerns(segid: int, progress: RuleProgress, delivery: Delivery) -> bool:
    """Whether the message is about that segment: it names it, or a permit of it."""
    known = read_frames(delivery.frames)
    if known is None:
        return False
    message = known[1]
    named = getattr(message, "segid", 0)
    if isinstance(message, Get) and named == segid:
        progress.permits.add(message.apid)
    if named == segid or getattr(message, "apid", 0) in progress.permits:
        return True
    return any(entry.segid == segid for entry in getattr(message, "entries", ()))
