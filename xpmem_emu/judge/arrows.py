"""Messages of an event stream as arrows: which receive belongs to which send."""

from collections.abc import Sequence
from typing import NamedTuple

from xpmem_emu.trace import Record
from xpmem_emu.xpc.events import Received, Sent


class Arrow(NamedTuple):
    """One numbered message that arrived. Times in nanoseconds."""

    kind: str
    channel: int
    number: int
    src: int
    dst: int
    sent_ns: int
    received_ns: int


def arrows(trace: Sequence[Record]) -> list[Arrow]:
    """Every first sending with every arrival of it, in the order of arrival."""
    sent: dict[tuple[int, int, str, int, int], int] = {}
    found = []
    for record in trace:
        event = record.event
        if isinstance(event, Sent):
            sent[record.partid, event.peer, event.kind, event.channel, event.number] = (
                record.time_ns
            )
        elif isinstance(event, Received):
            key = (event.peer, record.partid, event.kind, event.channel, event.number)
            if key in sent:
                found.append(
                    Arrow(
                        event.kind,
                        event.channel,
                        event.number,
                        event.peer,
                        record.partid,
                        sent[key],
                        record.time_ns,
                    )
                )
    return found
