"""What one XPC message looks like on the interconnect.

Frame 0 is one MessagePack array `[version, type, src, src_incarnation, dst_incarnation, channel,
number, body]`, where `body` is the array of the message's fields, and the CRC-32 of that array as
four more bytes: a damaged incarnation or frame number must not pass for a real one. The bulk data
of a message that has any follows as frame 1, without a copy and without a check, because what it
carries is memory, not protocol. `decode` accepts exactly what `encode` can produce:
version, type, every range, the channel a type belongs to, the length of the body and the size of
the bulk are checked before anybody sees the message, and `BadMessage` is all that ever comes out
of bad bytes; `encode` produces nothing that `decode` would not accept. Nothing here knows about
sessions: whether the incarnations are current is judged by `partition`.
"""

from collections.abc import Sequence
from enum import IntEnum
from typing import Annotated
from zlib import crc32

import msgpack
from msgspec import Meta, Raw, Struct
from msgspec.structs import astuple

from xpmem_emu import codec
from xpmem_emu.codec import BadMessage, Buffer
from xpmem_emu.errors import KernelBug
from xpmem_emu.fields import PAYLOAD_MAX, RANGES_MAX, Incarnation, Natural, Partid
from xpmem_emu.xpc.messages import (
    ENTRIES_MAX,
    MESSAGES,
    Ack,
    Invalidate,
    Message,
    Pending,
    wire_name,
)

VERSION_MAJOR, VERSION_MINOR = 3, 0
"""The version of the historical reserved page; the major part gates, the minor extends."""
FRAME_VERSION = VERSION_MAJOR << 4 | VERSION_MINOR
SEAL_SIZE = 4


class ChannelNumber(IntEnum):
    """Sources 3.1: MEM carries XPMEM, NET is for a message-passing test channel."""

    MEM = 0
    NET = 1
    ADMIN = 2


DATA_CHANNELS = (ChannelNumber.MEM, ChannelNumber.NET)
"""The channels that somebody may register for."""


class Header(Struct, frozen=True):
    """Where a message comes from, which session it belongs to, and its place in the channel."""

    src: int
    src_incarnation: int
    dst_incarnation: int
    """0: the sender does not know the receiver's incarnation."""
    channel: int
    number: int


class _Frame(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    version: Annotated[int, Meta(ge=0, le=255)]
    type: Annotated[int, Meta(ge=0, le=255)]
    src: Partid
    src_incarnation: Incarnation
    dst_incarnation: Incarnation
    channel: Annotated[int, Meta(ge=0, le=2)]
    number: Natural
    body: Raw
    """Not looked at before it is known what it should be."""


class _OutlineEntry(Struct, frozen=True, array_like=True):
    segid: Raw
    sequence: Raw
    ranges: Raw


class _Outline(Struct, frozen=True, array_like=True):
    """An INVALIDATE whose ranges are only counted."""

    entries: Annotated[list[_OutlineEntry], Meta(max_length=ENTRIES_MAX)]


KIND: dict[type[Message], str] = {kind: wire_name(kind) for kind in MESSAGES.values()}
"""Wire name of each message type: what traces and fault rules call it."""
REPLY_CODES = frozenset(kind.reply_code for kind in MESSAGES.values() if kind.reply_code) | {
    Pending.code
}
"""Types that answer a numbered request and so carry the requester's number."""
FIRST_ADMIN_CODE, FIRST_DATA_CODE = 10, 32
"""Types below the first are the unnumbered partition control; below the second, ADMIN's."""


_pack = msgpack.Packer(default=astuple).pack
_read_frame = codec.reader(_Frame)
_read_outline = codec.reader(_Outline)
_read_body = {kind: codec.reader(kind) for kind in MESSAGES.values()}


def encode_frame(header: Header, message: Message) -> bytes:
    """Frame 0 of `message`. KernelBug when its own receiver would not accept it: a frame that is
    dropped as bad for ever would look like a dead peer."""
    try:
        array = _pack(
            (
                FRAME_VERSION,
                message.code,
                header.src,
                header.src_incarnation,
                header.dst_incarnation,
                header.channel,
                header.number,
                astuple(message),
            )
        )
        _read_body[type(message)](_read_frame(array).body)
    except Exception as error:
        kind = KIND[type(message)]
        raise KernelBug(f"{kind} that no receiver would accept: {error}") from None
    assert len(array) <= codec.MAX_BYTES
    return seal(array)


def seal(array: bytes) -> bytes:
    """A packed array with its check, as it stands on the wire."""
    return array + crc32(array).to_bytes(SEAL_SIZE)


def claimed_source(frame: Buffer) -> int | None:
    """The partid that frame 0 says it comes from, read without judging the rest; None when it
    cannot be read."""
    head = msgpack.Unpacker()
    head.feed(bytes(frame[:16]))
    try:
        if head.read_array_header() < 3:
            return None
        _, _, source = head.unpack(), head.unpack(), head.unpack()
    except Exception:
        return None
    return source if type(source) is int else None


def decode_frame(
    frames: Sequence[Buffer], bulk_max: int = PAYLOAD_MAX
) -> tuple[Header, Message, Buffer]:
    """Header, message and bulk (empty when there is none) of untrusted frames.

    `bulk_max` is the most bytes of bulk that the receiver accepts. Raises BadMessage.
    """
    if not 1 <= len(frames) <= 2:
        raise BadMessage(f"{len(frames)} frames")
    frame = _read_frame(_unsealed(frames[0]))
    if frame.version >> 4 != VERSION_MAJOR:
        raise BadMessage(f"version {frame.version >> 4}.{frame.version & 15}")
    kind = MESSAGES.get(frame.type)
    if kind is None:
        raise BadMessage(f"type {frame.type}")
    _check_place(frame)
    if kind is Invalidate and len(frame.body) > RANGES_MAX:  # a range takes three bytes or more
        _require_few_ranges(frame.body)
    message = _read_body[kind](frame.body)
    bulk = _bulk(frames[1], kind, bulk_max) if len(frames) == 2 else b""
    header = Header(
        frame.src, frame.src_incarnation, frame.dst_incarnation, frame.channel, frame.number
    )
    return header, message, bulk


def _require_few_ranges(body: Raw) -> None:
    """Raises BadMessage when the entries of an INVALIDATE have more ranges than one message may:
    counted before any is built, because each entry by itself may have all of them."""
    total = sum(_length(entry.ranges) for entry in _read_outline(body).entries)
    if total > RANGES_MAX:
        raise BadMessage(f"{total} ranges, one message has at most {RANGES_MAX}")


def _length(array: Raw) -> int:
    """How many elements an array has that is not read yet; 0 when it is none."""
    head = bytes(memoryview(array)[:5])
    match head[0]:
        case 0xDC:
            return int.from_bytes(head[1:3])
        case 0xDD:
            return int.from_bytes(head[1:5])
        case first:
            return first & 0x0F if first & 0xF0 == 0x90 else 0


def _check_place(frame: _Frame) -> None:
    """Every type belongs to one channel level; acknowledgements belong to all numbered ones."""
    if frame.type in (Ack.code, Pending.code):
        return
    if (frame.type < FIRST_DATA_CODE) is not (frame.channel == ChannelNumber.ADMIN):
        raise BadMessage(f"type {frame.type} on channel {frame.channel}")
    if frame.type < FIRST_ADMIN_CODE and frame.number:
        raise BadMessage(f"type {frame.type} with number {frame.number}")


def _unsealed(frame: Buffer) -> memoryview:
    """What the check vouches for."""
    view = _bytes(frame)
    array, check = view[:-SEAL_SIZE], view[-SEAL_SIZE:]
    if len(check) < SEAL_SIZE or crc32(array) != int.from_bytes(check):
        raise BadMessage(f"{len(view)} bytes that were damaged on the way")
    return array


def _bytes(frame: Buffer) -> memoryview:
    """`frame` as a view whose length is its size in bytes."""
    view = memoryview(frame)
    if view.format != "B" or view.ndim != 1:
        raise BadMessage(f"frame of {view.ndim}-dimensional {view.format!r}, not of bytes")
    return view


def _bulk(frame: Buffer, kind: type[Message], bulk_max: int) -> Buffer:
    if not kind.has_bulk:
        raise BadMessage(f"{KIND[kind]} with a bulk frame")
    if not 1 <= len(_bytes(frame)) <= bulk_max:
        raise BadMessage(f"{len(frame)} bytes of bulk, 1 to {bulk_max} are accepted")
    return frame
