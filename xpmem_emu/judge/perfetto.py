"""The event stream as a trace for the Perfetto viewer: partitions are processes, threads threads.

Faults and recalls are slices, everything else is an instant; messages are flow arrows from the
sender's thread to the receiver's. The JSON trace event format, times in microseconds.
"""

from collections.abc import Iterator, Sequence

from xpmem_emu.judge.arrows import arrows
from xpmem_emu.trace import Record
from xpmem_emu.xpc.events import Received, Sent
from xpmem_emu.xpmem import events

Item = dict[str, object]
_SLICE = 1.0
"""Length of an event, in microseconds: what an arrow can be tied to."""


def perfetto_trace(trace: Sequence[Record]) -> dict[str, list[Item]]:
    """The document."""
    names: dict[tuple[int, str], int] = {}
    items = [item for record in trace for item in _items(record, names)]
    items += [
        {"ph": "M", "name": "thread_name", "pid": partid, "tid": tid, "args": {"name": name}}
        for (partid, name), tid in names.items()
    ]
    items += [
        {"ph": "M", "name": "process_name", "pid": partid, "args": {"name": _process(partid)}}
        for partid in sorted({partid for partid, _ in names})
    ]
    return {"traceEvents": items + list(_flows(trace, names))}


def _items(record: Record, names: dict[tuple[int, str], int]) -> Iterator[Item]:
    tid = names.setdefault((record.partid, record.thread), len(names) + 1)
    at = {"pid": record.partid, "tid": tid, "ts": record.time_ns / 1000}
    args = {key: str(value) for key, value in record.flat().items()}
    event = record.event
    match event:
        case events.FaultBegin() | events.RecallBegin():
            yield at | {
                "ph": "b",
                "cat": "xpmem",
                "id": _slice(record),
                "name": record.name,
                "args": args,
            }
        case events.FaultEnd() | events.RecallEnd():
            yield at | {"ph": "e", "cat": "xpmem", "id": _slice(record), "name": record.name}
        case _:
            yield at | {"ph": "X", "dur": _SLICE, "name": record.name, "args": args}


def _process(partid: int) -> str:
    return "faults" if partid < 0 else f"p{partid}"


def _slice(record: Record) -> str:
    number = getattr(record.event, "fault", None) or getattr(record.event, "recall", 0)
    kind = "fault" if hasattr(record.event, "fault") else "recall"
    return f"p{record.partid} {kind} {number}"


def _flows(trace: Sequence[Record], names: dict[tuple[int, str], int]) -> Iterator[Item]:
    threads = {
        (record.partid, record.time_ns, record.event.kind, record.event.number): record.thread
        for record in trace
        if isinstance(record.event, Sent | Received)
    }
    for number, arrow in enumerate(arrows(trace)):
        for phase, partid, time_ns in (
            ("s", arrow.src, arrow.sent_ns),
            ("f", arrow.dst, arrow.received_ns),
        ):
            thread = threads[partid, time_ns, arrow.kind, arrow.number]
            yield {
                "ph": phase,
                "bp": "e",
                "cat": "message",
                "id": number,
                "name": arrow.kind,
                "pid": partid,
                "tid": names[partid, thread],
                "ts": time_ns / 1000,
            }
