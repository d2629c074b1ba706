"""Event streams as partitions write them, one record a line, read back: each event by its name.

An event of a kind that nobody knows is refused, so that no check ever overlooks one.
"""

from collections.abc import Mapping
from typing import Union

import msgspec

from xpmem_emu.failpoints import events as failpoints
from xpmem_emu.inject import events as fabric
from xpmem_emu.kernel import events as kernel
from xpmem_emu.mm import events as mm
from xpmem_emu.mmu import events as mmu
from xpmem_emu.trace import Event, Record
from xpmem_emu.xpc import events as xpc
from xpmem_emu.xpmem import events as xpmem

EVENTS: Mapping[str, type[Event]] = {
    str(kind.__struct_config__.tag): kind
    for module in (fabric, failpoints, kernel, mm, mmu, xpc, xpmem)
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, Event) and ":" in str(kind.__struct_config__.tag)
}
"""The types of all events, by name."""


class _Place(msgspec.Struct, frozen=True):
    record: int
    time_ns: int
    partid: int
    thread: str


_decode_place = msgspec.json.Decoder(_Place).decode
_decode_event = msgspec.json.Decoder(Union[tuple(EVENTS.values())]).decode  # noqa: UP007


def read_record(line: bytes) -> Record:
    """The record in one line of JSON. Raises msgspec.MsgspecError."""
    place, event = _decode_place(line), _decode_event(line)
    return Record(place.record, place.time_ns, place.partid, place.thread, event)
