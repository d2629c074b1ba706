"""Faults as text: one grammar for the live command, for scenario files and for failpoints.

    link p0->p2 delay 20ms --jitter 5ms --for 30s --name slow
    link p0<->p1,p2 loss 5% --burst 4          hold --match type=FAULT_REPLY
    split p0,p1|p2                             p1:xpmem.fault.before_reply=2%3*return(ENOMEM)
    clock p1 skew 0.1                          throttle p1 5ms

`parse_injection` and `format_injection` are each other's inverse: what is formatted reads back
as an equal fault, times to the nanosecond. Options may stand anywhere. What a verdict takes
comes from SIGNATURES; nothing here knows what a fault does. Partitions are numbers here;
who knows names for them says how they are read (`who`) and written (`called`).
"""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields, replace
from typing import Any

from xpmem_emu.inject.grammar_values import (
    FIELDS,
    Caller,
    Reader,
    one_partid,
    partids,
    partids_text,
)
from xpmem_emu.inject.injections import (
    Bound,
    ClockEffect,
    ClockInjection,
    Injection,
    PaceEffect,
    PaceInjection,
    PointInjection,
    PoisonInjection,
    StrainInjection,
)
from xpmem_emu.inject.rules import (
    ALL_LINKS,
    SIGNATURES,
    Fate,
    Link,
    Match,
    Membership,
    Rule,
    Scope,
    Sides,
)
from xpmem_emu.text import numbered

_COMMON = {"name": "name", "for": "for_ns"}
_RULES = {"prob": "probability", "times": "times", "after": "after"}
_MATCH = {
    "type": "kind",
    "sender": "src",
    "receiver": "dst",
    "number": "number",
    "nth": "nth",
    "segid": "segid",
}
_ENDS = ("src", "dst")
_DEFAULTS = {
    one.name: one.default_factory() if one.default_factory is not MISSING else one.default
    for one in fields(Rule)
}
Options = dict[str, str]


def parse_injection(text: str, who: Reader = partids) -> Injection:
    """The fault that `text` describes. Raises ValueError, which says what is wrong."""
    words, options = _split(text)
    if not words:
        raise ValueError("an empty text is no fault; write it like `link p0->p1 drop`")
    head, rest = words[0], words[1:]
    if ":" in head and "=" in head:
        return _point(head, rest, options, who)
    reader = _READERS.get(head)
    return _rule(words, options, who) if reader is None else reader(rest, options, who)


def format_injection(fault: Injection, called: Caller = numbered) -> str:
    """The text that `parse_injection` reads back."""
    if isinstance(fault, Rule):
        return format_rule(fault, called)
    where = partids_text(fault.partids, called)
    match fault:
        case ClockInjection(trouble=ClockEffect.JUMP):
            text = f"clock {where} jump {FIELDS['amount'].write(fault.amount)}"
        case ClockInjection(trouble=ClockEffect.SKEW):
            text = f"clock {where} skew {fault.share!r}"
        case ClockInjection():
            text = f"clock {where} freeze"
        case PaceInjection(trouble=PaceEffect.THROTTLE):
            text = f"throttle {where} {FIELDS['delay_ns'].write(fault.delay_ns)}"
        case PaceInjection():
            text = f"stall {where}"
        case PointInjection():
            text = f"{where}:{fault.point}={fault.terms}"
        case PoisonInjection():
            text = f"poison {where} {fault.frame:#x}"
        case StrainInjection():
            text = f"strain {where} {fault.bound.value} {fault.value}"
    return text + _common_text(fault)


def format_rule(rule: Rule, called: Caller = numbered) -> str:
    """As `format_injection`, for a rule."""
    signature = SIGNATURES[rule.verdict]
    if isinstance(rule.scope, Sides):
        sides = "|".join(partids_text(side, called) for side in rule.scope.sides)
        words = [rule.scope.membership.value, sides]
    else:
        words = [*_link_words(rule.scope, called), rule.verdict.value]
        if signature.position:
            words.append(FIELDS[signature.position].write(getattr(rule, signature.position)))
        for name in signature.options:
            if getattr(rule, name) != _DEFAULTS[name]:
                words += [f"--{FIELDS[name].option}", FIELDS[name].write(getattr(rule, name))]
    match = [
        f"{key}={called(value) if name in _ENDS else FIELDS[name].write(value)}"
        for key, name in _MATCH.items()
        if (value := getattr(rule.match, name)) is not None
    ]
    words += ["--match", ",".join(match)] if match else []
    for option, name in _RULES.items():
        if getattr(rule, name) != _DEFAULTS[name]:
            words += [f"--{option}", FIELDS[name].write(getattr(rule, name))]
    return " ".join(words) + _common_text(rule)


def renamed(fault: Injection, name: str) -> Injection:
    """The same fault under another name."""
    return replace(fault, name=name)


def stem(fault: Injection) -> str:
    """What a fault without a name is called, before a number is added."""
    match fault:
        case Rule(scope=Sides() as sides):
            return sides.membership.value
        case Rule():
            return fault.verdict.value
        case ClockInjection() | PaceInjection():
            return str(fault.trouble.value)
        case PointInjection():
            return "failpoint"
        case PoisonInjection():
            return "poison"
    return "strain"


# -- reading ----------------------------------------------------------------------------------


def _split(text: str) -> tuple[list[str], Options]:
    """Words and options; an option given twice is joined by a comma."""
    words: list[str] = []
    options: Options = {}
    tokens = iter(shlex.split(text))
    for token in tokens:
        if not token.startswith("--"):
            words.append(token)
            continue
        option = token.removeprefix("--")
        value = next(tokens, None)
        if value is None:
            raise ValueError(f"--{option} needs a value")
        options[option] = f"{options[option]},{value}" if option in options else value
    return words, options


def _take(options: Options, known: dict[str, str], *taken: str) -> dict[str, Any]:
    """The values of all options; those of `taken` somebody else has taken before. Raises ValueError
    for one that does not belong here."""
    for option in options:
        if option not in known:
            allowed = ", ".join(f"--{each}" for each in (*taken, *known))
            raise ValueError(f"--{option} does not belong here; {allowed} do")
    return {known[option]: FIELDS[known[option]].read(value) for option, value in options.items()}


def _rule(words: list[str], options: Options, who: Reader) -> Rule:
    scope: Scope = ALL_LINKS
    if words[0] == "link":
        if len(words) < 3:
            raise ValueError("a link fault is written like `link p0->p1 drop`")
        scope, words = _link(words[1], who), words[2:]
    try:
        verdict = Fate(words[0])
        signature = SIGNATURES[verdict]
    except (ValueError, KeyError):
        kinds = [verdict.value for verdict in SIGNATURES]
        known = ", ".join([*kinds, *_READERS])
        raise ValueError(f"no fault is called {words[0]!r}; one of {known}") from None
    values = _position(words, signature.position)
    return _built(verdict, scope, values, options, signature.options, who)


def _position(words: list[str], name: str) -> dict[str, Any]:
    if len(words) != (2 if name else 1):
        form = f"{words[0]} {FIELDS[name].shown}" if name else words[0]
        raise ValueError(f"write it like `{form}`, not `{' '.join(words)}`")
    return {name: FIELDS[name].read(words[1])} if name else {}


def _built(
    verdict: Fate,
    scope: Scope,
    values: dict[str, Any],
    options: Options,
    own: Sequence[str],
    who: Reader,
) -> Rule:
    known = _COMMON | _RULES | {FIELDS[name].option: name for name in own}
    match = options.pop("match", "")
    values |= _take(options, known, "match")
    return Rule(values.pop("name", ""), verdict, _match(match, who), scope=scope, **values)


def _match(text: str, who: Reader) -> Match:
    values: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        key, _, value = part.partition("=")
        if key not in _MATCH:
            raise ValueError(f"messages are not matched by {key!r}; by {', '.join(_MATCH)}")
        field = _MATCH[key]
        values[field] = one_partid(value, who) if field in _ENDS else FIELDS[field].read(value)
    return Match(**values)


def _link(text: str, who: Reader) -> Link:
    both = "<->" in text
    left, arrow, right = text.partition("<->" if both else "->")
    if not arrow:
        raise ValueError(f"{text!r} is not a link; write it like p0->p1, p0<->p1,p2 or *->p2")
    ends = [None if end == "*" else who(end) for end in (left, right)]
    return Link(ends[0], ends[1], both)


def _membership(kind: Membership) -> Callable[[list[str], Options, Reader], Injection]:
    def read(words: list[str], options: Options, who: Reader) -> Injection:
        if len(words) != 1:
            raise ValueError(f"write it like `{kind.value} SIDE|SIDE`, sides like p0,p1")
        sides = Sides(kind, tuple(who(side) for side in words[0].split("|")))
        return _built(Fate.CUT, sides, {}, options, (), who)

    return read


def _clock(words: list[str], options: Options, who: Reader) -> Injection:
    values = _take(options, _COMMON)
    name = values.pop("name", "")
    match words:
        case [where, "jump", time]:
            amount = FIELDS["amount"].read(time)
            return ClockInjection(name, who(where), ClockEffect.JUMP, amount=amount, **values)
        case [where, "skew", share]:
            how = _signed_share(share)
            return ClockInjection(name, who(where), ClockEffect.SKEW, share=how, **values)
        case [where, "freeze"]:
            return ClockInjection(name, who(where), ClockEffect.FREEZE, **values)
    raise ValueError("write it like `clock p1 jump 10s`, `clock p1 skew 0.1` or `clock p1 freeze`")


def _signed_share(text: str) -> float:
    try:
        return float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a share; write it like 0.1 or -5%") from None


def _throttle(words: list[str], options: Options, who: Reader) -> Injection:
    if len(words) != 2:
        raise ValueError("write it like `throttle p1 5ms`")
    values = _take(options, _COMMON)
    delay_ns = FIELDS["delay_ns"].read(words[1])
    name = values.pop("name", "")
    return PaceInjection(name, who(words[0]), PaceEffect.THROTTLE, delay_ns, **values)


def _stall(words: list[str], options: Options, who: Reader) -> Injection:
    if len(words) != 1:
        raise ValueError("write it like `stall p1 --for 2s`")
    values = _take(options, _COMMON)
    return PaceInjection(values.pop("name", ""), who(words[0]), PaceEffect.STALL, **values)


def _point(head: str, rest: list[str], options: Options, who: Reader) -> Injection:
    if rest:
        raise ValueError(f"{rest[0]!r} does not belong behind a failpoint's terms")
    place, _, terms = head.partition("=")
    where, _, point = place.partition(":")
    values = _take(options, _COMMON)
    return PointInjection(values.pop("name", ""), who(where), point, terms, **values)


def _poison(words: list[str], options: Options, who: Reader) -> Injection:
    if len(words) != 2:
        raise ValueError("write it like `poison p0 0x12`: a partition and one of its frames")
    where = who(words[0])
    if len(where) != 1:
        raise ValueError("a frame belongs to one partition")
    values = _take(options, _COMMON)
    frame = FIELDS["number"].read(words[1])
    return PoisonInjection(values.pop("name", ""), where, frame, **values)


def _strain(words: list[str], options: Options, who: Reader) -> Injection:
    bounds = {bound.value: bound for bound in Bound}
    if len(words) != 3 or words[1] not in bounds:
        raise ValueError(f"write it like `strain p0 pin_limit 100`; one of {', '.join(bounds)}")
    values = _take(options, _COMMON)
    number = FIELDS["number"].read(words[2])
    name = values.pop("name", "")
    return StrainInjection(name, who(words[0]), bounds[words[1]], number, **values)


_READERS: dict[str, Callable[[list[str], Options, Reader], Injection]] = {
    "clock": _clock,
    "throttle": _throttle,
    "stall": _stall,
    "poison": _poison,
    "strain": _strain,
    **{kind.value: _membership(kind) for kind in Membership},
}


# -- writing ----------------------------------------------------------------------------------


def _link_words(scope: Scope, called: Caller) -> list[str]:
    if scope == ALL_LINKS or not isinstance(scope, Link):
        return []
    ends = [
        "*" if end is None else partids_text(end, called)
        for end in (scope.senders, scope.receivers)
    ]
    return ["link", ("<->" if scope.both else "->").join(ends)]


def _common_text(fault: Injection) -> str:
    text = ""
    if fault.for_ns is not None:
        text += f" --for {FIELDS['for_ns'].write(fault.for_ns)}"
    return text + (f" --name {fault.name}" if fault.name else "")
