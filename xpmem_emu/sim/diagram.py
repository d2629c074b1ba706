"""A message diagram as SVG, Lamport style: one line for each partition, time runs downwards.

Time is not to scale: each instant at which something is shown gets one row, because virtual time
is mostly empty. Only MEM traffic and what matters for it is shown, with the faults that were put
up and the messages that they hit; the last rows when there are too many.
"""

from collections.abc import Sequence
from html import escape

from xpmem_emu.fabric import events as fabric
from xpmem_emu.kernel.events import KernelPanic
from xpmem_emu.sim.arrows import Arrow, arrows
from xpmem_emu.trace import Record
from xpmem_emu.xpc.frame import FIRST_DATA_CODE, ChannelNumber
from xpmem_emu.xpc.messages import MESSAGE_NAMES
from xpmem_emu.xpmem import events

_COLUMN, _ROW, _TOP, _ROWS_MAX = 220, 18, 40, 400
_NOTES = (
    events.PageInstall, events.FaultCollision, events.Invalidated, events.RecallBegin,
    events.RecallEnd, events.FenceBegin, events.FenceEnd, events.QuarantineEmpty,
    events.ImportLost, KernelPanic,
)  # fmt: skip
_FAULTS = (fabric.FaultBegin, fabric.FaultEnd)


def draw_diagram(trace: Sequence[Record], partitions: int) -> str:
    """The SVG text."""
    shown = [arrow for arrow in arrows(trace) if arrow.channel == ChannelNumber.MEM]
    notes = [record for record in trace if _is_note(record)]
    instants = {arrow.sent_ns for arrow in shown} | {arrow.received_ns for arrow in shown}
    times = sorted(instants | {note.time_ns for note in notes})[-_ROWS_MAX:]
    row = {time_ns: _TOP + _ROW * (n + 1) for n, time_ns in enumerate(times)}
    height = _TOP + _ROW * (len(times) + 2)
    width = _COLUMN * partitions + 80
    parts = [_column(partid, height) for partid in range(partitions)]
    parts += [
        f'<text x="4" y="{y + 4}" class="t">{time_ns / 1e6:.3f}</text>'
        for time_ns, y in row.items()
    ]
    parts += [_arrow(arrow, row) for arrow in shown if arrow.sent_ns in row]
    parts += [_note(note, row, width) for note in notes if note.time_ns in row]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">{_STYLE}'
        + "".join(parts) + "</svg>\n"
    )  # fmt: skip


_STYLE = (
    "<style>text{font:11px sans-serif}.t{fill:#888}line{stroke:#246}.c{stroke:#bbb}.n{fill:#a40}"
    ".f{stroke:#a40;stroke-dasharray:2 4}.m{text-anchor:middle}.h{text-anchor:end}"
    '</style><defs><marker id="a" markerWidth="8" markerHeight="8" refX="7" refY="3" '
    'orient="auto"><path d="M0,0 L7,3 L0,6 z" fill="#246"/></marker></defs>'
)


def _x(partid: int) -> int:
    return 80 + _COLUMN // 2 + _COLUMN * partid


def _column(partid: int, height: int) -> str:
    x = _x(partid)
    return (
        f'<text x="{x - 8}" y="20">p{partid}</text>'
        f'<line class="c" x1="{x}" y1="26" x2="{x}" y2="{height}"/>'
    )


def _arrow(arrow: Arrow, row: dict[int, int]) -> str:
    x1, x2 = _x(arrow.src), _x(arrow.dst)
    y1, y2 = row[arrow.sent_ns], row.get(arrow.received_ns, row[arrow.sent_ns])
    return (
        f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" marker-end="url(#a)"/>'
        f'<text x="{(3 * x1 + x2) // 4}" y="{(3 * y1 + y2) // 4 - 3}" class="m">{arrow.kind} '
        f"{arrow.number}</text>"
    )


def _is_note(record: Record) -> bool:
    event = record.event
    if isinstance(event, fabric.FaultHit):
        return MESSAGE_NAMES[event.kind].code >= FIRST_DATA_CODE
    return isinstance(event, _NOTES + _FAULTS)


def _note(record: Record, row: dict[int, int], width: int) -> str:
    event, y = record.event, row[record.time_ns]
    match event:
        case fabric.FaultBegin():
            return _rule(y, width, f"{event.name}: {event.fault}")
        case fabric.FaultEnd():
            return _rule(y, width, f"{event.name} ends, {event.hits} hits")
        case fabric.FaultHit():
            x, label = _x(event.src) - 6, f"{event.verdict} {event.kind} {event.number}"
            return f'<text class="n h" x="{x}" y="{y + 4}">{label}</text>'
    label = escape(record.name.partition(":")[2])
    return f'<text class="n" x="{_x(record.partid) + 6}" y="{y + 4}">{label}</text>'


def _rule(y: int, width: int, text: str) -> str:
    return (
        f'<line class="f" x1="80" y1="{y}" x2="{width}" y2="{y}"/>'
        f'<text class="n" x="84" y="{y - 2}">{escape(text)}</text>'
    )
