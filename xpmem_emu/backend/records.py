"""Event streams of partitions as records again: every type of event by its name.

A partition's process writes its records as flat mappings; this reads them back. An event of a
kind that nobody knows is refused, so that a check never overlooks one.
"""

from collections.abc import Iterator, Mapping

import msgspec

import xpmem_emu.failpoints.events
import xpmem_emu.inject.events
import xpmem_emu.kernel.events
import xpmem_emu.mm.events
import xpmem_emu.mmu.events
import xpmem_emu.xpc.events
import xpmem_emu.xpmem.events  # noqa: F401 - the layers define their events by being imported
from xpmem_emu.trace import Event, Record


def _named(kind: type[Event]) -> Iterator[tuple[str, type[Event]]]:
    for each in kind.__subclasses__():
        tag = each.__struct_config__.tag
        if isinstance(tag, str) and ":" in tag:
            yield tag, each
        yield from _named(each)


EVENTS: Mapping[str, type[Event]] = dict(_named(Event))
"""The types of all events, by name."""


class _Place(msgspec.Struct, frozen=True):
    record: int
    time_ns: int
    partid: int
    thread: str
    event: str


_place = msgspec.json.Decoder(_Place)
_decoders = {name: msgspec.json.Decoder(kind) for name, kind in EVENTS.items()}


def read_record(line: bytes) -> Record:
    """The record in one line of JSON. Raises msgspec.ValidationError."""
    place = _place.decode(line)
    decoder = _decoders.get(place.event)
    if decoder is None:
        raise msgspec.ValidationError(f"no event is called {place.event}")
    return Record(place.record, place.time_ns, place.partid, place.thread, decoder.decode(line))
