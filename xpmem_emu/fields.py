"""What a field may hold, declared once for calls, messages and tables alike.

A value that a caller may pass must fit every message it ends up in, and a message its receiver:
with two declarations of one thing, a user's argument becomes a frame that no peer accepts, and
the silence that follows looks like a dead peer. So calls (kernel/calls) and messages
(xpc/messages) take their types from here, and who makes a message of many parts cuts it by the
bounds that are here. MessagePack carries integers from -2^63 to 2^64-1: U64 and S64 are 64 bits
wide by construction.
"""

import re
from typing import Annotated

from msgspec import Meta

from xpmem_emu.text import LINE, TEXT_MAX

U64 = Annotated[int, Meta(ge=0)]
S64 = int
Natural = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Pid = Annotated[int, Meta(ge=0, lt=1 << 20)]

UID_END = (1 << 32) - 1
Uid = Annotated[int, Meta(ge=0, lt=UID_END)]
"""32 bits as in Linux, where the last one says "nobody's"."""
Gids = Annotated[list[Uid], Meta(max_length=64)]

Name = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9._-]+\Z")]
MaybeName = Annotated[str, Meta(max_length=128, pattern=r"^[A-Za-z0-9._-]*\Z")]
Text = Annotated[str, Meta(max_length=TEXT_MAX, pattern=LINE)]
"""A cause, a reason: one line for people."""
REASON_MAX = 200
ReasonText = Annotated[str, Meta(max_length=REASON_MAX, pattern=LINE)]
"""Why somebody asked for an end."""
ShortText = Annotated[str, Meta(max_length=64, pattern=LINE)]
"""What somebody calls a thing that may not exist."""
InjectionText = Annotated[str, Meta(max_length=1024, pattern=LINE)]
"""A fault or its terms, in the grammar of faults."""

PARTID_BITS_MIN, PARTID_BITS_MAX = 8, 12
"""How wide an image may make the field of a partid."""
PARTID_MAX = (1 << PARTID_BITS_MAX) - 1
Partid = Annotated[int, Meta(ge=0, le=PARTID_MAX)]
"""What any image has room for; a partition knows which its own has (`Image.partid_end`)."""
IDENT_PARTID_SHIFT = 48
IDENT_END = 1 << IDENT_PARTID_SHIFT + PARTID_BITS_MAX

Incarnation = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Boot = Annotated[int, Meta(ge=0, lt=1 << 47)]
"""With 16 bits of epoch behind it, it is an incarnation."""
Ident = Annotated[int, Meta(gt=0, lt=IDENT_END)]
"""A segid or apid."""
Code = Annotated[int, Meta(ge=0, le=0xFFFF)]

PAGES_MAX = (1 << 36) - 1
Page = Annotated[int, Meta(ge=0, le=PAGES_MAX)]
"""A page number, or a number of pages or frames."""
PageRange = tuple[Page, Annotated[int, Meta(ge=1, le=PAGES_MAX)]]
"""(first page, number of pages)."""
RANGES_MAX = 1 << 13
"""Most page ranges in one message: so many are read in a millisecond, and others wait for it."""
Ranges = Annotated[list[PageRange], Meta(max_length=RANGES_MAX)]
WINDOW_MAX = 1 << 13
"""Most pages that one FAULT is answered with, each of which may be an extent of its own."""
PAYLOAD_MAX = 1 << 24
"""Most bytes of bulk that any image may allow."""


_UNKNOWN = re.compile(r"Object contains unknown field `([^`]*)`")


def misfit_named(message: str) -> str:
    """What msgspec says is wrong, with the field first, as people look for it: `xpc.slots: Expected
    ...` for `Expected ... - at `$.xpc.slots``. A call's own field `call` is no name of theirs."""
    why, _, path = message.partition(" - at `$")
    key = path.rstrip("`").lstrip(".")
    key = key.removeprefix("call").lstrip(".") if key.split(".")[0] == "call" else key
    if unknown := _UNKNOWN.fullmatch(why):
        key, why = f"{key}.{unknown[1]}".lstrip("."), "no such key"
    return f"{key}: {why}" if key else why
