"""Messages that a malicious partition makes up: any well-formed message with any field.

A body is drawn field by field from the type that its receiver checks it against, so whatever is
drawn passes; numbers come from the edges of what the type allows. A field that names something
mostly names something that exists: texts `@segment:5` and `@permit:7` stand for ids that are known
only when the run is under way.
"""

import re
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any

import msgspec
from msgspec import inspect

from xpmem_emu.sim.plan import Forgery, Op, Operation
from xpmem_emu.xpc.frame import FIRST_DATA_CODE, REPLY_CODES
from xpmem_emu.xpc.messages import MESSAGE_NAMES

_SESSION = tuple(name for name, kind in MESSAGE_NAMES.items() if kind.code < FIRST_DATA_CODE)
"""Messages that may end the session in which they are sent."""
_MEMORY = (
    *(name for name in MESSAGE_NAMES if name not in _SESSION),
    "GET",
    "ATTACH",
    "EVICT",
    "EVICT",
    "DETACH",
    "RELEASE",
    "FAULT",
    "FAULT_REPLY",
    "FAULT_REPLY",
    "INVALIDATE",
    "INVALIDATE",
    "INVALIDATE_ACK",
    "COPY",
    "AMO",
    "ACK",
    "PENDING",
    "HEARTBEAT",
    "RSVD_PAGE_READ",
)
_FLOODS = ("GET", "ATTACH", "FAULT", "FIND_NAME", "RSVD_PAGE_READ", "HEARTBEAT")
_WIDE = (1 << 63) - 1
_EDGES = (0, 1, 2, 3, 16, 4095, 4096, 1 << 20, 1 << 31, 1 << 32, 1 << 36, 1 << 38, 1 << 47)
_REFERENCE = re.compile(r"@(segment|permit):(\d+)")


def draw_forgeries(
    random: Random, operations: Sequence[Operation], partitions: int, begin: int, end: int
) -> Iterator[Forgery]:
    """What one malicious partition sends between two times."""
    src = random.randrange(partitions)
    others = [partid for partid in range(partitions) if partid != src]
    names = {
        "segid": [f"@segment:{each.made}" for each in operations if each.op is Op.MAKE],
        "apid": [f"@permit:{each.made}" for each in operations if each.op is Op.GET],
    }
    loud = random.random() < 0.4
    for _ in range(random.randint(10, 80)):
        flood = random.random() < 0.1
        kind = random.choice(_FLOODS if flood else (*_MEMORY, *_SESSION) if loud else _MEMORY)
        yield Forgery(
            random.randrange(begin, end),
            src,
            random.choice(others),
            kind,
            _struct(random, MESSAGE_NAMES[kind], names),
            number=random.choice((0, 0, 0, 0, 1, 7, 1 << 20, 1 << 40)),
            times=random.randint(50, 300) if flood else 1,
            newer=random.choice((1, 1 << 16, 1 << 40)) if loud and random.random() < 0.05 else 0,
        )


def references(forgery: Forgery) -> Iterator[tuple[str, int]]:
    """(segment or permit, number) of what a forgery names."""
    for value in forgery.body:
        if isinstance(value, str) and (found := _REFERENCE.fullmatch(value)):
            yield found[1], int(found[2])


def situation(forgery: Forgery) -> str:
    """What a forgery tries."""
    if forgery.newer:
        return "forged_claim"
    if forgery.times > 1:
        return "forged_flood"
    if forgery.kind == "HEARTBEAT" and forgery.body[0] >= 1 << 62:
        return "forged_heartbeat"
    if forgery.kind in ("EVICT", "DETACH", "RELEASE"):
        return "forged_give_back"
    answer = MESSAGE_NAMES[forgery.kind].code in REPLY_CODES
    return "forged_answer" if answer else "forged_request"


# -- bodies ------------------------------------------------------------------------------------

_Names = dict[str, list[str]]


def _struct(random: Random, kind: type[msgspec.Struct], names: _Names) -> list[Any]:
    kinds = inspect.type_info(kind)
    assert isinstance(kinds, inspect.StructType)
    return [_field(random, field.name, field.type, names) for field in kinds.fields]


def _field(random: Random, name: str, kind: inspect.Type, names: _Names) -> Any:
    if name == "boot":  # counts from its own: beyond all bounds nobody could ever boot again
        return random.choice((0, 0, 1, 1 << 20))
    if names.get(name) and random.random() < 0.8:
        return random.choice(names[name])
    return _value(random, kind, names)


def _value(random: Random, kind: inspect.Type, names: _Names) -> Any:
    match kind:
        case inspect.BoolType():
            return random.random() < 0.5
        case inspect.IntType():
            return _number(random, kind)
        case inspect.StrType():
            return "x" * random.choice((0, 1, kind.max_length or 240))
        case inspect.ListType():
            most = min(kind.max_length or 8, random.choice((0, 1, 1, 2, 3, 40)))
            return [_value(random, kind.item_type, names) for _ in range(random.randint(0, most))]
        case inspect.TupleType():
            return [_value(random, each, names) for each in kind.item_types]
        case inspect.StructType():
            return _struct(random, kind.cls, names)
    raise AssertionError(f"a message with a {kind}")


def _number(random: Random, kind: inspect.IntType) -> int:
    low = kind.ge if kind.ge is not None else kind.gt + 1 if kind.gt is not None else -_WIDE
    high = kind.le if kind.le is not None else kind.lt - 1 if kind.lt is not None else _WIDE
    edges = [edge for edge in (low, high, high - 1, *_EDGES) if low <= edge <= high]
    return int(random.choice(edges))
