"""A message diagram as SVG, Lamport style: one line for each partition, time runs downwards.

Time is not to scale: each instant at which something is shown gets one row, because virtual time
is mostly empty. Only MEM traffic and what matters for it is shown, the last rows when there are
too many.
"""

from collections.abc import Sequence
from html import escape

from xpmem_emu.kernel.events import KernelPanic
from xpmem_emu.sim.arrows import Arrow, arrows
from xpmem_emu.trace import Record
from xpmem_emu.xpmem import events

_COLUMN, _ROW, _TOP, _ROWS_MAX = 220, 18, 40, 400
_NOTES = (
    events.PageInstall, events.FaultCollision, events.Invalidated, events.RecallBegin,
    events.RecallEnd, events.FenceBegin, events.FenceEnd, events.QuarantineEmpty,
    events.ImportLost, KernelPanic,
)  # fmt: skip
_ADMIN = frozenset({"OPEN_REQUEST", "OPEN_REPLY", "OPEN_COMPLETE", "CLOSE_REQUEST", "CLOSE_REPLY"})


def draw_diagram(trace: Sequence[Record], partitions: int) -> str:
    """The SVG text."""
    shown = [arrow for arrow in arrows(trace) if arrow.kind not in _ADMIN]
    notes = [record for record in trace if isinstance(record.event, _NOTES)]
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
    parts += [_note(note, row) for note in notes if note.time_ns in row]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">{_STYLE}'
        + "".join(parts) + "</svg>\n"
    )  # fmt: skip


_STYLE = (
    "<style>text{font:11px sans-serif}.t{fill:#888}line{stroke:#246}.c{stroke:#bbb}.n{fill:#a40}"
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
        f'<text x="{(x1 + x2) // 2}" y="{(y1 + y2) // 2 - 3}">{arrow.kind} {arrow.number}</text>'
    )


def _note(record: Record, row: dict[int, int]) -> str:
    label = escape(record.name.partition(":")[2])
    x, y = _x(record.partid) + 6, row[record.time_ns] + 4
    return f'<text class="n" x="{x}" y="{y}">{label}</text>'
