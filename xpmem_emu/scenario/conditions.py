"""What can be waited for and checked, on every ground.

    pins on p0 == 8                         a count of the audit
    event xpmem:fault_begin on p1 pages=8 == 1     events since the setup was over
    held late, hits late >= 2               messages of a fault
    p0 sees p1 not ACTIVE                   a peer; `all active`: everybody with everybody
    ended CALL, waiting CALL                a call that was begun
    alive TASK, gone TASK

A condition says whether it holds and, in words, how it is now. Counts compare with ==, !=, <, <=,
> and >=; without a comparison at least one is meant.
"""

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import msgspec

from xpmem_emu.backend.interface import Backend, PendingCall, peer_state
from xpmem_emu.judge.records import EVENTS
from xpmem_emu.kernel import calls
from xpmem_emu.scenario.expectation import outcome_text
from xpmem_emu.scenario.lexer import (
    Bindings,
    ScenarioError,
    TaskName,
    Token,
    near,
    require_value,
    to_number,
    used_names,
)
from xpmem_emu.trace import Record
from xpmem_emu.xpc.activation import ActState

_COMPARE: Mapping[str, Callable[[int, int], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_FORMS = "COUNT on P == N, event KIND on P, held FAULT, p0 sees p1 ACTIVE, all active, ended CALL"


class Seen(NamedTuple):
    """Whether a condition holds, and how things are."""

    holds: bool
    state: str


class Stand(Protocol):
    """What a condition looks at."""

    @property
    def ground(self) -> Backend:
        """The partitions."""

    @property
    def names(self) -> Bindings:
        """What steps made."""

    def calls_named(self, name: str) -> Sequence[PendingCall]:
        """The calls that were begun under a name."""

    def new_records(self) -> Sequence[Record]:
        """Events since the setup was over."""


class Condition(ABC):
    """Base of all of them."""

    __slots__ = ()

    @abstractmethod
    def look(self, stand: Stand) -> Seen:
        """How it is now. Raises Unanswered, Wrong."""

    def names_used(self) -> Sequence[str]:
        """What must have been made by earlier steps."""
        return []

    def partitions(self) -> Sequence[str]:
        """The partitions that it names."""
        return []


@dataclass(frozen=True, slots=True)
class Measure:
    """A comparison of a number with a value."""

    sign: str = ">="
    value: str = "1"

    def seen(self, found: int, what: str, names: Bindings) -> Seen:
        """Whether `found` is as it should be."""
        return Seen(_COMPARE[self.sign](found, to_number(self.value, names)), f"{what} is {found}")


@dataclass(frozen=True, slots=True)
class Count(Condition):
    """A count of a partition's audit."""

    what: str
    partition: str
    measure: Measure

    def look(self, stand: Stand) -> Seen:
        audit: dict[str, int] = dict(stand.ground.ask(self.partition, calls.Audit()))
        if self.what not in audit:
            raise ScenarioError(f"nothing counted is called {self.what}", near(self.what, audit))
        return self.measure.seen(audit[self.what], f"{self.what} on {self.partition}", stand.names)

    def names_used(self) -> Sequence[str]:
        return used_names(self.measure.value)

    def partitions(self) -> Sequence[str]:
        return [self.partition]


@dataclass(frozen=True, slots=True)
class Happened(Condition):
    """How often an event of a kind was seen; `fields` must be as said."""

    kind: str
    partition: str
    measure: Measure
    fields: Mapping[str, Token] = field(default_factory=dict)

    def look(self, stand: Stand) -> Seen:
        partid = stand.ground.partitions[self.partition]
        found = sum(
            record.partid == partid and record.name == self.kind and self._fits(record, stand.names)
            for record in stand.new_records()
        )
        return self.measure.seen(found, f"{self.kind} on {self.partition}", stand.names)

    def _fits(self, record: Record, names: Bindings) -> bool:
        for name, word in self.fields.items():
            value = getattr(record.event, name)
            if isinstance(value, str):
                if word.text != value and not (word.quoted and word.text in value):
                    return False
            elif str(value).replace(" ", "") != word.text and value != _maybe(word.text, names):
                return False
        return True

    def names_used(self) -> Sequence[str]:
        return used_names(self.measure.value)

    def partitions(self) -> Sequence[str]:
        return [self.partition]


@dataclass(frozen=True, slots=True)
class Messages(Condition):
    """How many messages a fault holds, or hit."""

    what: str
    fault: str
    measure: Measure

    def look(self, stand: Stand) -> Seen:
        counts = stand.ground.fault(self.fault)
        found = counts.held if self.what == "held" else counts.hits
        return self.measure.seen(found, f"{self.what} of {self.fault}", stand.names)

    def names_used(self) -> Sequence[str]:
        return used_names(self.measure.value)


@dataclass(frozen=True, slots=True)
class Sees(Condition):
    """How a partition sees a peer."""

    partition: str
    peer: str
    state: str
    wanted: bool

    def look(self, stand: Stand) -> Seen:
        state = peer_state(stand.ground, self.partition, self.peer)
        return Seen(
            (state == self.state) == self.wanted, f"{self.partition} sees {self.peer} {state}"
        )

    def partitions(self) -> Sequence[str]:
        return [self.partition, self.peer]


@dataclass(frozen=True, slots=True)
class AllActive(Condition):
    """Every partition that runs is active with every other one."""

    def look(self, stand: Stand) -> Seen:
        running = stand.ground.running
        apart = [
            f"{one} sees {peer} {state}"
            for one in running
            for peer in running
            if one != peer and (state := peer_state(stand.ground, one, peer)) != "ACTIVE"
        ]
        return Seen(not apart, ", ".join(apart) or "all are active")


@dataclass(frozen=True, slots=True)
class Ended(Condition):
    """Whether calls that were begun are over."""

    call: str
    wanted: bool

    def look(self, stand: Stand) -> Seen:
        calls_ = stand.calls_named(self.call)
        over = [outcome_text(each.outcome) for each in calls_ if each.ended]
        state = f"{self.call} still waits" if len(over) < len(calls_) else f"{self.call}: {over[0]}"
        return Seen((len(over) == len(calls_)) == self.wanted, state)

    def names_used(self) -> Sequence[str]:
        return [self.call]


@dataclass(frozen=True, slots=True)
class Alive(Condition):
    """Whether a task exists."""

    task: str
    wanted: bool

    def look(self, stand: Stand) -> Seen:
        actor = stand.names[self.task]
        if not isinstance(actor, TaskName):
            raise ScenarioError(f"{self.task} is no task")
        rows = stand.ground.ask(actor.partition, calls.Look("tasks"))
        there = any(row["pid"] == actor.pid for row in rows)
        return Seen(there == self.wanted, f"{self.task} {'exists' if there else 'is gone'}")

    def names_used(self) -> Sequence[str]:
        return [self.task]


# -- reading ----------------------------------------------------------------------------------


def read_condition(words: Sequence[Token]) -> Condition:
    """The condition that these words are. Raises Wrong."""
    match [word.text for word in words]:
        case ["all", "active"]:
            return AllActive()
        case ["event", kind, "on", partition, *_]:
            return _happened(kind, partition, words[4:])
        case [("held" | "hits") as what, fault, *_]:
            return Messages(what, fault, _measure(words[2:]))
        case [("ended" | "waiting") as what, call]:
            return Ended(call, what == "ended")
        case [("alive" | "gone") as what, task]:
            return Alive(task, what == "alive")
        case [partition, "sees", peer, state]:
            return Sees(partition, peer, _state(state), True)
        case [partition, "sees", peer, "not", state]:
            return Sees(partition, peer, _state(state), False)
        case [what, "on", partition, *_]:
            return Count(what, partition, _measure(words[3:]))
    shown = " ".join(word.text for word in words)
    raise ScenarioError(f"{shown!r} is no condition", _FORMS)


def _happened(kind: str, partition: str, words: Sequence[Token]) -> Happened:
    if kind not in EVENTS:
        raise ScenarioError(f"no event is called {kind!r}", near(kind, EVENTS))
    fields = {each.name for each in msgspec.structs.fields(EVENTS[kind])}
    keyed = {word.key: word for word in words if word.key}
    for name in keyed:
        if name not in fields:
            raise ScenarioError(f"{kind} has no {name}", near(name, fields))
    return Happened(kind, partition, _measure([word for word in words if not word.key]), keyed)


def _measure(words: Sequence[Token]) -> Measure:
    match [word.text for word in words]:
        case []:
            return Measure()
        case [sign, value] if sign in _COMPARE:
            require_value(value)
            return Measure(sign, value)
    shown = " ".join(word.text for word in words)
    raise ScenarioError(f"{shown!r} is no comparison", "== 8, or one of " + ", ".join(_COMPARE))


def _state(text: str) -> str:
    if text not in ActState.__members__:
        raise ScenarioError(f"no state is called {text!r}", near(text, ActState.__members__))
    return text


def _maybe(text: str, names: Bindings) -> int | None:
    try:
        return to_number(text, names)
    except ScenarioError:
        return None
