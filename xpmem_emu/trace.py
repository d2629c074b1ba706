"""The one event stream. Every layer emits small typed events; everything else reads them.

Checkers, metrics, the live views of the command line and the trace exports are readers of this
stream, and nothing else spies on the kernel. An event type is a frozen Struct tagged with its
kernel tracepoint name (`xpmem:fault_begin`) and defined by the layer that emits it. A `Record`
is an event with its place: sequence number, virtual time, partition and thread.
"""

from typing import Protocol

import msgspec


class Event(msgspec.Struct, frozen=True, tag_field="event", kw_only=True):
    """Base of all trace events; a subclass gives `tag="layer:name"`."""


class Record(msgspec.Struct, frozen=True):
    """One event of the stream. `sequence` counts from 1 without gaps in each partition's boot."""

    sequence: int
    time_ns: int
    partid: int
    thread: str
    event: Event

    @property
    def name(self) -> str:
        """The tracepoint, for example `xpmem:fault_begin`."""
        return str(self.event.__struct_config__.tag)

    def flat(self) -> dict[str, object]:
        """The record as one flat mapping, ready for JSON: place first, then the event's fields.

        `record` is its sequence number: events have a `sequence` of their own."""
        place: dict[str, object] = {
            "record": self.sequence,
            "time_ns": self.time_ns,
            "partid": self.partid,
            "thread": self.thread,
        }
        fields = msgspec.to_builtins(self.event)
        assert isinstance(fields, dict)
        return place | fields


class Running(Protocol):
    """What knows the time and who runs: a scheduler."""

    now_ns: int

    def thread_name(self) -> str:
        """Name of the running thread, `irq` outside of all threads."""
        ...


class Tracer:
    """Stamps events with their place and hands the records to one sink."""

    def __init__(self, partid: int, running: Running) -> None:
        self.partid = partid
        self.count = 0
        self._running = running
        self._records: list[Record] = []

    def emit(self, event: Event) -> None:
        """Append `event` to the stream."""
        self.count += 1
        running = self._running
        self._records.append(
            Record(self.count, running.now_ns, self.partid, running.thread_name(), event)
        )

    def drain(self) -> list[Record]:
        """The records emitted since the last drain."""
        records, self._records = self._records, []
        return records
