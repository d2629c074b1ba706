"""The steps of a story: what one line says.

    memory = exporter mmap 8p                   a call, and a name for what it gave
    importer load at 5 => "hello"               a call, and what it must come to
    late = begin importer load at+1p 5          a call that is not waited for
    crowd = begin 50 x importer load at 8       fifty of them
    await late within 2s => SIGBUS "removed"    its end
    wait event xpmem:recall_begin on p0         until something happened, or is so
    check pins on p0 == 8                       it must be so now
    fault hold --match type=FAULT_REPLY --name slow      docs/faults.md has the grammar
    heal slow                                   or `heal`: all faults
    release-held slow                           its messages go, it stays
    random sharing 80                           operations of a workload, drawn by the seed
    crash p1                                    also panic, hang, resume, boot, reboot, cut, mend

A step is data; the runner carries it out.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from xpmem_emu.backend.interface import OUTSIDE_VERBS
from xpmem_emu.inject.grammar import parse_injection
from xpmem_emu.kernel.calls import Call
from xpmem_emu.scenario.call_syntax import (
    Invocation,
    read_invocation,
    takes_partition,
    takes_task,
    values_of,
)
from xpmem_emu.scenario.conditions import Condition, read_condition
from xpmem_emu.scenario.expectation import OK, Expectation, read_expectation
from xpmem_emu.scenario.lexer import ScenarioError, Token, is_name, near, split, used_names
from xpmem_emu.sim.workloads import WORKLOADS
from xpmem_emu.units import parse_time

OPERATIONS_MAX = 10_000

_BRACES = re.compile(r"\{(\w+)\}")
_OWN = (
    "begin",
    "await",
    "wait",
    "check",
    "fault",
    "heal",
    "release-held",
    "random",
    *OUTSIDE_VERBS,
)


@dataclass(frozen=True, slots=True)
class Do:
    """A call. `times` 0: it is made once and waited for; else begun so often, and not."""

    invocation: Invocation
    name: str = ""
    expectation: Expectation = OK
    times: int = 0


@dataclass(frozen=True, slots=True)
class Await:
    """The end of calls that were begun. `within_ns` None: the story's patience."""

    name: str
    expectation: Expectation = OK
    within_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """Until a condition holds."""

    condition: Condition
    within_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """A condition must hold now."""

    condition: Condition


@dataclass(frozen=True, slots=True)
class PutUp:
    """A fault; `{name}` in its text is a number that a step made."""

    text: str


@dataclass(frozen=True, slots=True)
class Heal:
    """The end of one fault, or of all."""

    fault: str = ""


@dataclass(frozen=True, slots=True)
class ReleaseHeld:
    """Held messages go on."""

    fault: str


@dataclass(frozen=True, slots=True)
class FromOutside:
    """Something is done to a partition from outside."""

    verb: str
    partition: str


@dataclass(frozen=True, slots=True)
class AtRandom:
    """About `budget` operations of a workload."""

    workload: str
    budget: int


Action = Do | Await | Wait | Check | PutUp | Heal | ReleaseHeld | AtRandom | FromOutside


@dataclass(frozen=True, slots=True)
class Step:
    """A line of a phase, and which line of the file it is."""

    phase: str
    line: int
    text: str
    action: Action

    def __str__(self) -> str:
        return f"line {self.line}, {self.phase}: {self.text}"


def read_action(text: str, partitions: Collection[str]) -> Action:
    """What a line says. Raises Wrong."""
    if text.split()[0] == "fault":
        return _put_up(text.removeprefix("fault").strip())
    words = split(text)
    match [word.text for word in words]:
        case ["await", name, *_]:
            rest, expectation = _expected(words[2:])
            return Await(name, expectation, _within(rest))
        case ["wait", *_]:
            rest, within_ns = _without_within(words[1:])
            return Wait(read_condition(rest), within_ns)
        case ["check", *_]:
            return Check(read_condition(words[1:]))
        case ["heal"]:
            return Heal()
        case ["heal", fault]:
            return Heal(fault)
        case ["release-held", fault]:
            return ReleaseHeld(fault)
        case ["random", workload, budget]:
            return _random(workload, budget)
        case [verb, partition] if verb in OUTSIDE_VERBS:
            return FromOutside(verb, partition)
    return _do(words, partitions)


def names_used(action: Action) -> Sequence[str]:
    """The names that earlier steps must have made."""
    match action:
        case Do(invocation=invocation):
            subject = [invocation.subject] if takes_task(invocation.kind) else []
            values = [name for text in values_of(invocation) for name in used_names(text)]
            return [*subject, *values, *_expected_names(action.expectation)]
        case Await(name=name, expectation=expectation):
            return [name, *_expected_names(expectation)]
        case Wait(condition=condition) | Check(condition=condition):
            return condition.names_used()
        case PutUp(text=text):
            return _BRACES.findall(text)
    return []


def partitions_used(action: Action) -> Sequence[str]:
    """The partitions that must exist."""
    match action:
        case Wait(condition=condition) | Check(condition=condition):
            return condition.partitions()
        case FromOutside(partition=partition):
            return [partition]
        case Do(invocation=invocation) if not takes_task(invocation.kind):
            return [invocation.subject]
    return []


def injection_text(text: str, names: Mapping[str, object]) -> str:
    """The text of a fault with its numbers filled in."""
    return _BRACES.sub(lambda match: str(names[match[1]]), text)


def _do(words: list[Token], partitions: Collection[str]) -> Action:
    name = ""
    if len(words) > 1 and words[1] == Token("="):
        name = words[0].text
        if not is_name(name) or name in partitions:
            raise ScenarioError(
                f"{name!r} cannot be a name", "letters, digits and _, and no constant"
            )
        words = words[2:]
    times = 0
    match [word.text for word in words[:3]]:
        case ["begin", count, "x"] if count.isdigit() and int(count) > 0:
            times, words = int(count), words[3:]
        case ["begin", *_]:
            times, words = 1, words[1:]
    rest, expectation = _expected(words)
    if times and (not name or expectation is not OK):
        raise ScenarioError(
            "a call that is begun has a name, and is expected to something by `await`",
            "late = begin importer load at 8, later: await late => ok",
        )
    if len(rest) < 2:
        shown = rest[0].text if rest else "this"
        raise ScenarioError(
            f"{shown!r} is no step", near(shown, [*_OWN, "task or partition and a call"])
        )
    subject, verb = rest[0].text, rest[1].text
    invocation = read_invocation(subject, verb, rest[2:])
    _require_subject(invocation.kind, verb, subject in partitions)
    return Do(invocation, name, expectation, times)


def _require_subject(kind: type[Call], verb: str, partition: bool) -> None:
    if partition and not takes_partition(kind):
        raise ScenarioError(f"{verb} is done by a task", f"TASK {verb}")
    if not partition and not takes_task(kind):
        raise ScenarioError(f"{verb} is done by a partition", f"p0 {verb}")


def _expected(words: Sequence[Token]) -> tuple[list[Token], Expectation]:
    """The words before `=>`, and what stands behind it."""
    for at, word in enumerate(words):
        if word == Token("=>"):
            return list(words[:at]), read_expectation(words[at + 1 :])
    return list(words), OK


def _without_within(words: Sequence[Token]) -> tuple[list[Token], int | None]:
    if len(words) > 1 and words[-2] == Token("within"):
        return list(words[:-2]), _time(words[-1].text)
    return list(words), None


def _within(words: list[Token]) -> int | None:
    rest, within_ns = _without_within(words)
    if rest:
        raise ScenarioError(f"{rest[0].text!r} does not belong here", "await CALL within 2s => ok")
    return within_ns


def _time(text: str) -> int:
    try:
        return parse_time(text)
    except ValueError as error:
        raise ScenarioError(str(error)) from None


def _random(workload: str, budget: str) -> AtRandom:
    if workload not in WORKLOADS:
        raise ScenarioError(f"no workload is called {workload!r}", near(workload, WORKLOADS))
    if not budget.isdigit() or not 0 < int(budget) <= OPERATIONS_MAX:
        raise ScenarioError(f"{budget!r} operations", f"1 to {OPERATIONS_MAX}")
    return AtRandom(workload, int(budget))


def _put_up(text: str) -> PutUp:
    try:
        parse_injection(_BRACES.sub("0", text))
    except ValueError as error:
        raise ScenarioError(str(error), "docs/faults.md shows every form") from None
    return PutUp(text)


def _expected_names(expectation: Expectation) -> list[str]:
    texts = [
        each.detail.text
        for each in expectation
        if each.detail is not None and each.what in ("word", "value")
    ]
    return [name for text in texts for name in used_names(text)]
