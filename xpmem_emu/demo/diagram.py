"""Messages between partitions as text: one column per partition, time downwards, an arrow each.

            p0                      p1                      p2
    0.00 ms o--- INVALIDATE 12 ---->|                       |
    0.41 ms |<-- INVALIDATE_ACK 12 -o                       |

An arrow stands on the line of its sending and tells how long it travelled; notes are what a
partition did by itself. Drawn from the event stream alone: a message that was sent and never
received ends in an x.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xpmem_emu.units import format_time

EventRow = Mapping[str, Any]
"""An event as partitions write it."""
LANE = 30
"""Columns from one partition's line to the next."""
_MARGIN = 12


@dataclass(frozen=True, slots=True)
class DrawnMessage:
    """A message. `received_ns` None: it never arrived."""

    sent_ns: int
    source: int
    target: int
    label: str
    received_ns: int | None = None

    @property
    def when_ns(self) -> int:
        """Its place on the time line."""
        return self.sent_ns


@dataclass(frozen=True, slots=True)
class Note:
    """Something that one partition did."""

    when_ns: int
    partid: int
    text: str


def drawn_messages(events: Iterable[EventRow], kinds: Sequence[str]) -> list[DrawnMessage]:
    """The messages of these kinds, in the order of sending."""
    sent: dict[tuple[object, ...], EventRow] = {}
    received: dict[tuple[object, ...], int] = {}
    for event in events:
        if event["event"] == "xpc:send" and event["kind"] in kinds:
            sent.setdefault(_key(event, event["partid"], event["peer"]), event)
        elif event["event"] == "xpc:receive":
            key = _key(event, event["peer"], event["partid"])
            received.setdefault(key, event["time_ns"])
    found = [
        DrawnMessage(
            event["time_ns"],
            event["partid"],
            event["peer"],
            f"{event['kind']} {event['number']}",
            received.get(key),
        )
        for key, event in sent.items()
    ]
    return sorted(found, key=lambda arrow: arrow.sent_ns)


def _key(event: EventRow, source: object, target: object) -> tuple[object, ...]:
    return source, target, event["kind"], event["number"]


def draw_demo_diagram(names: Sequence[str], things: Iterable[DrawnMessage | Note]) -> str:
    """The diagram of `things` between partitions 0, 1, ... called `names`."""
    # What a partition did comes before what it then sent at the same instant.
    ordered = sorted(things, key=lambda thing: (thing.when_ns, isinstance(thing, DrawnMessage)))
    head = " " * _MARGIN + "".join(name.ljust(LANE) for name in names)
    lines = [head.rstrip()]
    for thing in ordered:
        since = format_time(thing.when_ns - ordered[0].when_ns)
        lanes = [*("|".ljust(LANE) * len(names)).rstrip()]
        lanes += " " * LANE
        body = _arrow(lanes, thing) if isinstance(thing, DrawnMessage) else _note(lanes, thing)
        lines.append(f"{since:>{_MARGIN - 2}}  {body}".rstrip())
    return "\n".join(lines)


def _note(lanes: list[str], note: Note) -> str:
    start = note.partid * LANE
    text = f"* {note.text}"
    lanes[start : start + len(text)] = text
    return "".join(lanes)


def _arrow(lanes: list[str], arrow: DrawnMessage) -> str:
    left, right = sorted((arrow.source * LANE, arrow.target * LANE))
    forward = arrow.target > arrow.source
    lanes[left : right + 1] = "-" * (right + 1 - left)
    lanes[arrow.source * LANE] = "o"
    lost = arrow.received_ns is None
    tip = right - 1 if forward else left + 1
    lanes[tip] = "x" if lost else (">" if forward else "<")
    lanes[arrow.target * LANE] = "|"
    label = f" {arrow.label} "
    middle = (left + right - len(label)) // 2 + 1
    lanes[middle : middle + len(label)] = label
    travelled = (
        "lost"
        if arrow.received_ns is None
        else (f"+{format_time(max(0, arrow.received_ns - arrow.sent_ns))}")
    )
    return "".join(lanes).rstrip() + f"  {travelled}"
