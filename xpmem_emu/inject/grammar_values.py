"""The values in a fault's text: how each field is called, read, written and shown.

Every pair of read and write is exact: what is written reads back as the same value.
"""

import re
from collections.abc import Callable
from enum import Enum
from typing import Any, NamedTuple

from xpmem_emu.failpoints.terms import exact_time
from xpmem_emu.fields import PARTID_MAX
from xpmem_emu.inject.rules import Distribution, Partids
from xpmem_emu.text import numbered
from xpmem_emu.units import format_size, parse_size, parse_time

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_PARTITION = re.compile(r"p?(\d{1,4})")
_SPAN = re.compile(r"p?(\d{1,4})-p?(\d{1,4})")

Reader = Callable[[str], Partids]
"""Partitions as they are written. Raises ValueError."""
Caller = Callable[[int], str]
"""What a partition is called."""


class Field(NamedTuple):
    """A field of a fault: its option, its form, and the two ways."""

    option: str
    shown: str
    read: Callable[[str], Any]
    write: Callable[[Any], str]


def partids(text: str) -> Partids:
    """Partitions, ascending and once each: p0-2,p5. Raises ValueError."""
    found: set[int] = set()
    for part in text.split(","):
        span, one = _SPAN.fullmatch(part), _PARTITION.fullmatch(part)
        if span is None and one is None:
            raise ValueError(f"{part!r} is not a partition; write it like p0, p0,p2 or p0-2")
        found |= set(range(int(span[1]), int(span[2]) + 1)) if span else {int(part.lstrip("p"))}
    if not found or max(found) > PARTID_MAX:
        raise ValueError(f"{text!r}: partitions are p0 to p{PARTID_MAX}")
    return tuple(sorted(found))


def partids_text(chosen: Partids, called: Caller = numbered) -> str:
    """The text that `partids` reads back."""
    return ",".join(map(called, chosen))


def share(text: str) -> float:
    """A probability: 0.05 or 5%. Raises ValueError."""
    try:
        value = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise ValueError(f"{text!r} is not a probability; write it like 0.05 or 5%")
    return value


def natural(text: str) -> int:
    """A number from 0 on, decimal or hex, that messages can carry. Raises ValueError."""
    try:
        value = int(text, 0)
    except ValueError:
        value = -1
    if not 0 <= value < 1 << 63:
        raise ValueError(f"{text!r} is not a number from 0 to 2^63-1")
    return value


def positive(text: str) -> int:
    """A number from 1 on. Raises ValueError."""
    value = natural(text)
    if not value:
        raise ValueError("the number must be at least 1")
    return value


def one_partid(text: str, who: Reader = partids) -> int:
    """A single partition. Raises ValueError."""
    found = who(text)
    if len(found) != 1:
        raise ValueError(f"{text!r} is more than one partition")
    return found[0]


def _name(text: str) -> str:
    if _NAME.fullmatch(text) is None:
        raise ValueError(f"{text!r} is not a name; letters, digits, '.', '_' and '-'")
    return text


def _distribution(text: str) -> Distribution:
    known = {each.value: each for each in Distribution}
    if text not in known:
        raise ValueError(f"{text!r} is not a distribution; one of {', '.join(known)}")
    return known[text]


def _time(option: str) -> Field:
    return Field(option, "TIME", parse_time, exact_time)


def _share(option: str) -> Field:
    return Field(option, "SHARE", share, repr)


def _value(value: Enum) -> str:
    return str(value.value)


FIELDS: dict[str, Field] = {
    "name": Field("name", "NAME", _name, str),
    "for_ns": _time("for"),
    "probability": _share("prob"),
    "times": Field("times", "COUNT", natural, str),
    "after": Field("after", "COUNT", natural, str),
    "delay_ns": _time("delay"),
    "jitter_ns": _time("jitter"),
    "distribution": Field("distribution", "NAME", _distribution, _value),
    "count": Field("count", "COUNT", positive, str),
    "rate": Field("rate", "SIZE", parse_size, format_size),
    "share": _share("share"),
    "burst": Field("burst", "COUNT", positive, str),
    "depth": _share("depth"),
    "down_ns": _time("down"),
    "up_ns": _time("up"),
    "amount": _time("amount"),
    "kind": Field("type", "TYPE", str, str),
    "src": Field("sender", "P", one_partid, numbered),
    "dst": Field("receiver", "P", one_partid, numbered),
    "number": Field("number", "NUMBER", natural, str),
    "nth": Field("nth", "COUNT", positive, str),
    "segid": Field("segid", "SEGID", positive, hex),
}
"""By the name of the field in Rule, Match or another fault."""
