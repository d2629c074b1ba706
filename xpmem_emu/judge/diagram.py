"""A message diagram as SVG, Lamport style: one line for each partition, time runs downwards.

Time is not to scale, because most of it is empty: whatever has a label has a row of its own, so no
two labels meet; an arrival has half a row. Only MEM traffic and what matters for it is shown, with
the faults that were put up, the messages that they hit, and what was done to partitions from
outside; the last rows when there are too many. The font has one width, so that what fits is known.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby

from xpmem_emu.inject import events as fabric
from xpmem_emu.judge.arrows import Arrow, arrows
from xpmem_emu.kernel.events import KernelPanic
from xpmem_emu.trace import Record
from xpmem_emu.xpc.frame import FIRST_DATA_CODE, ChannelNumber
from xpmem_emu.xpc.messages import MESSAGE_NAMES
from xpmem_emu.xpmem import events

_COLUMN, _MARGIN, _TOP, _ROW, _ARRIVAL, _ROWS_MAX = 260, 130, 40, 18, 9, 800
_BESIDE = 6
"""From a partition's line to a label."""
LETTER = 7.3
"""Width of a letter."""
_NOTES = (
    events.PageInstall,
    events.FaultCollision,
    events.Invalidated,
    events.RecallBegin,
    events.RecallEnd,
    events.FenceBegin,
    events.FenceEnd,
    events.QuarantineEmpty,
    events.ImportLost,
    KernelPanic,
)


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that was done to a partition from outside."""

    time_ns: int
    partid: int
    text: str


@dataclass(frozen=True, slots=True)
class _Arrival:
    """The end of an arrow."""

    arrow: Arrow


_Thing = Arrow | _Arrival | Mark | Record


def message_diagram(
    trace: Sequence[Record], partitions: int, marks: Iterable[Mark] = (), begun_ns: int = 0
) -> str:
    """The SVG text. Times are those since `begun_ns`."""
    shown = [arrow for arrow in arrows(trace) if arrow.channel == ChannelNumber.MEM]
    things: list[_Thing] = [*shown, *map(_Arrival, shown), *marks, *filter(_is_note, trace)]
    things = sorted(things, key=_place)[-_ROWS_MAX:]
    rows: list[tuple[_Thing, int]] = []
    y = _TOP
    for thing in things:
        y += _ARRIVAL if isinstance(thing, _Arrival) else _ROW
        rows.append((thing, y))
    ends = {thing.arrow: y for thing, y in rows if isinstance(thing, _Arrival)}
    width = max([_x(partitions - 1) + _MARGIN, *(_right(thing) for thing in things)])
    parts = [_column(partid, y + _ROW) for partid in range(partitions)]
    parts += _times(rows, begun_ns)
    parts += [_arrow(thing, y, ends.get(thing, y)) for thing, y in rows if isinstance(thing, Arrow)]
    parts += [_label(thing, y, width) for thing, y in rows if not isinstance(thing, _Arrival)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{y + 2 * _ROW}">'
        + _STYLE
        + "".join(parts)
        + "</svg>\n"
    )


_STYLE = (
    "<style>text{font:12px monospace;paint-order:stroke;stroke:#fff;stroke-width:3px}"
    ".t{fill:#777}line{stroke:#246}.c{stroke:#bbb}.n{fill:#a40}.k{fill:#c00}"
    ".f{stroke:#a40;stroke-dasharray:2 4}.e{text-anchor:end}"
    '</style><defs><marker id="a" markerWidth="8" markerHeight="8" refX="7" refY="3" '
    'orient="auto"><path d="M0,0 L7,3 L0,6 z" fill="#246"/></marker></defs>'
)


# -- what is shown, and where ------------------------------------------------------------------


def _is_note(record: Record) -> bool:
    event = record.event
    if isinstance(event, fabric.InjectionHit):
        return MESSAGE_NAMES[event.kind].code >= FIRST_DATA_CODE
    return isinstance(event, (*_NOTES, fabric.InjectionBegin, fabric.InjectionEnd))


def _time_ns(thing: _Thing) -> int:
    match thing:
        case Arrow():
            return thing.sent_ns
        case _Arrival():
            return thing.arrow.received_ns
    return thing.time_ns


def _place(thing: _Thing) -> tuple[int, int]:
    """The order of things: of one instant, what arrives, what that does, and what is then sent."""
    match thing:
        case _Arrival(arrow):
            return arrow.received_ns, 3 if arrow.received_ns == arrow.sent_ns else 0
        case Arrow():
            return thing.sent_ns, 2
    return thing.time_ns, 1


def _x(partid: int) -> int:
    return _MARGIN + _COLUMN // 6 + _COLUMN * partid


def _text(thing: _Thing) -> str:
    match thing:
        case Arrow():
            return f"{thing.kind} {thing.number}"
        case Mark():
            return thing.text
        case Record(event=fabric.InjectionBegin() as event):
            return f"{event.name}: {event.fault}"
        case Record(event=fabric.InjectionEnd() as event):
            return f"{event.name} ends, {event.hits} hits"
        case Record(event=fabric.InjectionHit() as event):
            return f"{event.verdict} {event.kind} {event.number}"
        case Record():
            return thing.name.partition(":")[2]
    return ""


def _start(thing: _Thing) -> tuple[int, bool]:
    """Where the label of a thing begins, and whether it ends there instead: what goes to another
    partition has its label on that side."""
    match thing:
        case Arrow(src=src, dst=dst) | Record(event=fabric.InjectionHit(src=src, dst=dst)):
            return (_x(src) + _BESIDE, False) if dst > src else (_x(src) - _BESIDE, True)
        case Record(event=fabric.InjectionBegin() | fabric.InjectionEnd()):
            return _MARGIN, False
        case Record(partid=partid) | Mark(partid=partid):
            return _x(partid) + _BESIDE, False
    return 0, False


def _right(thing: _Thing) -> float:
    """How far to the right the label of a thing reaches."""
    x, ends = _start(thing)
    return x if ends else x + LETTER * (len(_text(thing)) + 1)


# -- drawing -----------------------------------------------------------------------------------


def _column(partid: int, bottom: int) -> str:
    x = _x(partid)
    return (
        f'<text x="{x - 8}" y="20">p{partid}</text>'
        f'<line class="c" x1="{x}" y1="26" x2="{x}" y2="{bottom}"/>'
    )


def _times(rows: Sequence[tuple[_Thing, int]], begun_ns: int) -> Iterator[str]:
    """When it was, at the first row of each instant that has a label."""
    labelled = [(thing, y) for thing, y in rows if not isinstance(thing, _Arrival)]
    for time_ns, group in groupby(labelled, key=lambda row: _time_ns(row[0])):
        _, y = next(group)
        yield f'<text x="4" y="{y + 4}" class="t">{(time_ns - begun_ns) / 1e6:.3f} ms</text>'


def _arrow(arrow: Arrow, y: int, end: int) -> str:
    # Below its label, which stands beside the line of its sender.
    return (
        f'<line x1="{_x(arrow.src)}" y1="{y + _ARRIVAL - 2}" x2="{_x(arrow.dst)}" y2="{end}" '
        'marker-end="url(#a)"/>'
    )


def _label(thing: _Thing, y: int, width: float) -> str:
    x, ends = _start(thing)
    look = ["k"] if isinstance(thing, Mark) else ["n"] if isinstance(thing, Record) else []
    look += ["e"] if ends else []
    line = ""
    match thing:
        case Record(event=fabric.InjectionBegin() | fabric.InjectionEnd()):
            below = y + _ARRIVAL - 2
            line = f'<line class="f" x1="{x}" y1="{below}" x2="{width:.0f}" y2="{below}"/>'
    text = escape(_text(thing))
    return f'{line}<text class="{" ".join(look)}" x="{x}" y="{y + 4}">{text}</text>'
