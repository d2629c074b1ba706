"""The way of every message: which rules it meets, and when and how often it arrives.

The first rule whose verdict is not PASS decides. With no rule at all the path is one `if`.
Nothing here sends; the harness carries the deliveries out.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from xpmem_emu.fabric.rules import Rule, Stream, Verdict

Buffer = bytes | bytearray | memoryview


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


class Delivery(NamedTuple):
    """A message on its way: when it may arrive, where, and what it is."""

    at_ns: int
    dst: int
    frames: list[Buffer]


class Interconnect:
    """The rules between all partitions of one run."""

    def __init__(self, stream_of: Callable[[str], Stream]) -> None:
        """`stream_of` makes the random stream that belongs to a rule's name."""
        self._stream_of = stream_of
        self._rules: dict[str, tuple[Rule, Stream]] = {}
        self._held: dict[str, list[Delivery]] = {}

    @property
    def rules(self) -> Sequence[Rule]:
        """The rules in force, in the order in which they were added."""
        return [rule for rule, _ in self._rules.values()]

    def add(self, rule: Rule) -> None:
        """Put a rule in force, behind the others. Raises ValueError when the name is taken."""
        if rule.name in self._rules:
            raise ValueError(f"there is a rule named {rule.name!r} already")
        self._rules[rule.name] = (rule, self._stream_of(rule.name))

    def remove(self, name: str, now_ns: int) -> list[Delivery]:
        """Heal one rule; what it held goes on its way. Raises KeyError."""
        del self._rules[name]
        return self.release(name, now_ns)

    def reset(self, now_ns: int) -> list[Delivery]:
        """Heal everything."""
        return [held for name in list(self._rules) for held in self.remove(name, now_ns)]

    def release(self, name: str, now_ns: int) -> list[Delivery]:
        """The messages that a HOLD rule collected, oldest first, due now."""
        return [held._replace(at_ns=now_ns) for held in self._held.pop(name, [])]

    def held(self, name: str) -> int:
        """How many messages a HOLD rule keeps."""
        return len(self._held.get(name, ()))

    def route(self, now_ns: int, src: int, message: Outgoing) -> list[Delivery]:
        """The deliveries that become of a message of partition `src`."""
        delivery = Delivery(now_ns, message.partid, message.frames)
        if not self._rules:
            return [delivery]
        for rule, stream in self._rules.values():
            verdict = rule.judge(stream, src, message.partid, message.kind, message.number)
            if verdict is not Verdict.PASS:
                return self._apply(rule, stream, verdict, delivery)
        return [delivery]

    def _apply(
        self, rule: Rule, stream: Stream, verdict: Verdict, delivery: Delivery
    ) -> list[Delivery]:
        match verdict:
            case Verdict.DROP:
                return []
            case Verdict.DUPLICATE:
                return [delivery, delivery]
            case Verdict.DELAY:
                return [delivery._replace(at_ns=delivery.at_ns + rule.draw_delay(stream))]
            case Verdict.HOLD:
                self._held.setdefault(rule.name, []).append(delivery)
                return []
            case Verdict.CORRUPT:
                return [delivery._replace(frames=_corrupt(stream, delivery.frames))]
        return [delivery]


def _corrupt(stream: Stream, frames: list[Buffer]) -> list[Buffer]:
    """One byte of the first frame, which is never empty, becomes another one."""
    damaged = bytearray(frames[0])
    damaged[stream.randrange(0, len(damaged))] ^= stream.randrange(1, 256)
    return [bytes(damaged), *frames[1:]]
