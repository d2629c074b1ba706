"""Every message that crosses between partitions, as inert data.

A message is a frozen Struct, encoded as a MessagePack array of its fields in order. Type codes
are append-only. Fields are validated against these types before anything else looks at them.
Behaviour lives elsewhere: control messages in `xpc`, MEM messages in `xpmem`.

Partid in 0..4095; segid, apid as in `xpmem.ids` (at most 60 bits); pages are 4 KiB page numbers
counted from the start of the segment; frames are frame numbers of the home partition. What a field
may hold is declared in `fields`, which callers' arguments are checked against, too.
"""

from typing import Annotated, ClassVar

from msgspec import Meta, Struct

from xpmem_emu.fields import (
    IDENT_END,
    PARTID_MAX,
    PAYLOAD_MAX,
    S64,
    U64,
    WINDOW_MAX,
    Boot,
    Code,
    Gids,
    Ident,
    Name,
    Natural,
    Page,
    Partid,
    Ranges,
    Text,
    Uid,
)
from xpmem_emu.text import LINE

ENTRIES_MAX = 512
"""Most segments of which one INVALIDATE speaks."""


class Message(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of all messages. `code` is the wire type; `reply_code` the type that answers it, 0
    for a message that is itself an answer or needs none. Only a message with `has_bulk` may be
    followed by a bulk frame."""

    code: ClassVar[int]
    reply_code: ClassVar[int] = 0
    has_bulk: ClassVar[bool] = False


# -- control: partition level, unnumbered, idempotent ------------------------------------------


class RsvdPageRead(Message, frozen=True):
    """Discovery: show me your reserved page (sources 3.2)."""

    code: ClassVar[int] = 1


class RsvdPage(Message, frozen=True):
    """The reserved page: who I am, what I speak, where my memory is."""

    code: ClassVar[int] = 2
    version_major: Annotated[int, Meta(ge=0, le=255)]
    version_minor: Annotated[int, Meta(ge=0, le=255)]
    partid: Partid
    boot: Boot
    """Boot incarnation: a new value at each boot, always increasing, 0 = page not set."""
    max_partitions: Annotated[int, Meta(ge=1, le=PARTID_MAX + 1)]
    domain: Annotated[str, Meta(max_length=128, pattern=LINE)]
    """Coherence domain (sources T22)."""
    arena: Text
    """How partitions of the same domain find this partition's memory; opaque here."""
    frames: Page


class ActivateReq(Message, frozen=True):
    """Please activate me; carries the sender's act_state towards the receiver."""

    code: ClassVar[int] = 3
    act_state: Annotated[int, Meta(ge=0, le=4)]


class SyncActState(Message, frozen=True):
    """The sender's act_state towards the receiver, sent while it activates."""

    code: ClassVar[int] = 4
    act_state: Annotated[int, Meta(ge=0, le=4)]


class DeactivateReq(Message, frozen=True):
    """I am deactivating you, for this reason."""

    code: ClassVar[int] = 5
    reason: Code


class Heartbeat(Message, frozen=True):
    """Heartbeat counter (sources 3.4) with the offline form, the act_state and the engaged mark."""

    code: ClassVar[int] = 6
    value: Natural
    offline: bool
    act_state: Annotated[int, Meta(ge=0, le=4)]
    engaged: bool


# -- control: channel level, numbered, on the ADMIN channel ------------------------------------


class OpenRequest(Message, frozen=True):
    """Channel `channel` is registered here, with so many slots per class."""

    code: ClassVar[int] = 10
    reply_code: ClassVar[int] = 15
    channel: Annotated[int, Meta(ge=0, le=7)]
    entry_size: Annotated[int, Meta(ge=1, le=PAYLOAD_MAX)]
    local_nentries: Annotated[int, Meta(ge=1, le=4096)]


class OpenReply(Message, frozen=True):
    """The slots agreed for both directions."""

    code: ClassVar[int] = 11
    reply_code: ClassVar[int] = 15
    channel: Annotated[int, Meta(ge=0, le=7)]
    remote_nentries: Annotated[int, Meta(ge=1, le=4096)]
    local_nentries: Annotated[int, Meta(ge=1, le=4096)]


class OpenComplete(Message, frozen=True):
    """My side of the channel is connected."""

    code: ClassVar[int] = 12
    reply_code: ClassVar[int] = 15
    channel: Annotated[int, Meta(ge=0, le=7)]


class CloseRequest(Message, frozen=True):
    """I am disconnecting the channel."""

    code: ClassVar[int] = 13
    reply_code: ClassVar[int] = 15
    channel: Annotated[int, Meta(ge=0, le=7)]
    reason: Code


class CloseReply(Message, frozen=True):
    """I have nothing left of the channel."""

    code: ClassVar[int] = 14
    reply_code: ClassVar[int] = 15
    channel: Annotated[int, Meta(ge=0, le=7)]


class Ack(Message, frozen=True):
    """The numbered message was consumed; it needs no other answer."""

    code: ClassVar[int] = 15


class Pending(Message, frozen=True):
    """The numbered request arrived before and is still being worked on."""

    code: ClassVar[int] = 16


# -- MEM channel -------------------------------------------------------------------------------


class Get(Message, frozen=True):
    """May this caller have a permit? Permission is judged by the exporter (sources 1.6)."""

    code: ClassVar[int] = 32
    reply_code: ClassVar[int] = 33
    segid: Ident
    apid: Ident
    """Chosen by the importer's thread group; names the permit from now on."""
    flags: Annotated[int, Meta(ge=0, le=3)]
    uid: Uid
    gids: Gids
    cap_ipc_owner: bool


class GetReply(Message, frozen=True):
    """`errno` 0: granted, with the segment's size in bytes; else why not."""

    code: ClassVar[int] = 33
    errno: Code
    cause: Text
    size: U64


class Release(Message, frozen=True):
    """The permit is given up, with everything attached through it."""

    code: ClassVar[int] = 34
    reply_code: ClassVar[int] = 15
    apid: Ident


class Attach(Message, frozen=True):
    """Registers an attachment. Touches no page."""

    code: ClassVar[int] = 35
    reply_code: ClassVar[int] = 36
    apid: Ident
    attachment: Natural
    """Chosen by the importer, unique within its incarnation."""
    offset: S64
    size: U64


class AttachReply(Message, frozen=True):
    """`errno` 0: registered."""

    code: ClassVar[int] = 36
    errno: Code
    cause: Text


class Detach(Message, frozen=True):
    """The attachment is gone; `evicted` are the pages that the importer no longer holds."""

    code: ClassVar[int] = 37
    reply_code: ClassVar[int] = 15
    apid: Ident
    attachment: Natural
    evicted: Ranges


class Fault(Message, frozen=True):
    """Pages wanted: `touched` is needed, the rest of the window is fault-around."""

    code: ClassVar[int] = 38
    reply_code: ClassVar[int] = 39
    apid: Ident
    touched: Page
    page: Page
    count: Annotated[int, Meta(ge=1, le=1 << 20)]


WireExtent = tuple[
    Page, Natural, Annotated[int, Meta(ge=1, le=1 << 20)], Annotated[int, Meta(ge=0)]
]
"""(first page, first frame, number of pages, flags: 1 uncached, 2 read-only)."""

EXTENT_UNCACHED = 1
EXTENT_READ_ONLY = 2
"""The exporter itself may not store there, or the page is shared with a file or a child."""


class FaultReply(Message, frozen=True):
    """The frames behind the pages, as extents, at this sequence of the segment."""

    code: ClassVar[int] = 39
    errno: Code
    cause: Text
    sequence: Natural
    extents: Annotated[list[WireExtent], Meta(max_length=WINDOW_MAX)]


class RecallEntry(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One segment's part of an INVALIDATE. `going_away` non-empty: the segment dies, and why."""

    segid: Ident
    sequence: Natural
    ranges: Ranges
    going_away: Text = ""


class Invalidate(Message, frozen=True):
    """Drop these pages. Acknowledged only when nothing here can reach them any more."""

    code: ClassVar[int] = 40
    reply_code: ClassVar[int] = 41
    entries: Annotated[list[RecallEntry], Meta(max_length=ENTRIES_MAX)]


class InvalidateAck(Message, frozen=True):
    """Every PTE, device translation and in-flight fault of the ranges is dead."""

    code: ClassVar[int] = 41


class Evict(Message, frozen=True):
    """The importer gives pages back unasked."""

    code: ClassVar[int] = 42
    reply_code: ClassVar[int] = 15
    segid: Ident
    ranges: Ranges


class Copy(Message, frozen=True):
    """Contained block copy (BTE, sources T18). `write`: the data travels with the request."""

    code: ClassVar[int] = 43
    reply_code: ClassVar[int] = 44
    has_bulk: ClassVar[bool] = True
    apid: Ident
    offset: Natural
    size: Annotated[int, Meta(ge=1, le=PAYLOAD_MAX)]
    write: bool


class CopyReply(Message, frozen=True):
    """`errno` 0: done; the data of a read travels as a bulk frame."""

    code: ClassVar[int] = 44
    has_bulk: ClassVar[bool] = True
    errno: Code
    cause: Text


class Amo(Message, frozen=True):
    """Atomic memory operation on an aligned 64-bit word, carried out by the home partition."""

    code: ClassVar[int] = 45
    reply_code: ClassVar[int] = 46
    apid: Ident
    offset: Natural
    operation: Annotated[int, Meta(ge=0, le=15)]
    """A value of `AmoOperation`."""
    operand: U64
    compare: U64


class AmoReply(Message, frozen=True):
    """The word before the operation."""

    code: ClassVar[int] = 46
    errno: Code
    cause: Text
    before: U64


class FindName(Message, frozen=True):
    """Which segment of yours has this name?"""

    code: ClassVar[int] = 47
    reply_code: ClassVar[int] = 48
    name: Name


class FindNameReply(Message, frozen=True):
    """The segment, or 0 when there is none."""

    code: ClassVar[int] = 48
    segid: Annotated[int, Meta(ge=0, lt=IDENT_END)]


MESSAGES: dict[int, type[Message]] = {
    kind.code: kind
    for kind in (
        RsvdPageRead,
        RsvdPage,
        ActivateReq,
        SyncActState,
        DeactivateReq,
        Heartbeat,
        OpenRequest,
        OpenReply,
        OpenComplete,
        CloseRequest,
        CloseReply,
        Ack,
        Pending,
        Get,
        GetReply,
        Release,
        Attach,
        AttachReply,
        Detach,
        Fault,
        FaultReply,
        Invalidate,
        InvalidateAck,
        Evict,
        Copy,
        CopyReply,
        Amo,
        AmoReply,
        FindName,
        FindNameReply,
    )
}


def wire_name(kind: type[Message]) -> str:
    """FAULT_REPLY for FaultReply: the name that traces and fault rules use."""
    name = kind.__name__
    return "".join("_" + c if c.isupper() and i else c for i, c in enumerate(name)).upper()


MESSAGE_NAMES: dict[str, type[Message]] = {wire_name(kind): kind for kind in MESSAGES.values()}
