"""The decoders that see bytes of others, each as one function of bytes, and inputs to begin with.

A decoder may refuse anything, with BadMessage. What it accepts is what its type says, encodes and
comes back as it was. Each function returns what became of its input: the name of a type, or after
`REFUSED` why not. The rest of the file knows how to begin: the golden vectors of the wire, one
request of each kind.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from types import UnionType
from typing import Any, get_args, get_type_hints

import msgpack
import msgspec

from tests.xpc.golden import GOLDEN
from xpmem_emu import codec
from xpmem_emu.client.injection_requests import AnyInjectionRequest
from xpmem_emu.client.wire import (
    Ask,
    EventBatch,
    Hello,
    Say,
    answer_frames,
    pack_envelope,
    read_outcome,
    unpack_envelope,
)
from xpmem_emu.codec import BadMessage, Buffer
from xpmem_emu.errors import Signal, SignalInfo
from xpmem_emu.kernel.breaking import BreakingCall
from xpmem_emu.kernel.calls import AnyCall
from xpmem_emu.kernel.interface import Done, Failed, Raised
from xpmem_emu.live.console.requests import (
    read_call,
    read_hello,
    read_ident,
    read_injection_request,
    read_request,
    readable_id,
)
from xpmem_emu.xpc.frame import KIND, claimed_source, decode_frame, encode_frame, seal

Decoder = Callable[[bytes], str]
REFUSED = "refused: "

_SEALED, _WITH_BULK, _WITH_MORE = 1, 2, 4
"""What the first byte of an input to `read_frame` says of the rest."""
_READERS: tuple[tuple[str, Callable[[Buffer], object]], ...] = (
    (Ask.CALL, read_call),
    (Ask.HELLO, read_hello),
    (Ask.FAULTS, read_injection_request),
    (Ask.UNSUBSCRIBE, read_ident),
)
"""By kind of request: what reads its body."""


def read_frame(data: bytes) -> str:
    """A frame as a peer may send it: the first byte says whether its check is right, which random
    bytes never are, and how many parts there are."""
    how, array = data[:1] or b"\0", data[1:]
    first = seal(array) if how[0] & _SEALED else array
    frames = [first] + [b"bulk"] * ((how[0] & _WITH_BULK) // _WITH_BULK)
    frames += [b""] * ((how[0] & _WITH_MORE) // _WITH_MORE)
    claimed = claimed_source(first)
    try:
        header, message, bulk = decode_frame(frames)
    except BadMessage as bad:
        return f"{REFUSED}{bad}"
    assert claimed == header.src
    again = [encode_frame(header, message), bulk] if bulk else [encode_frame(header, message)]
    assert decode_frame(again) == (header, message, bulk)
    return KIND[type(message)]


def read_console(data: bytes) -> str:
    """What a client may send and, if the first byte is odd, what a partition may answer to it."""
    return _read_answer(data[1:]) if data[:1] and data[0] & 1 else _read_request(data[1:])


def _read_request(data: bytes) -> str:
    ident = readable_id(data)
    try:
        asked = read_request(data)
    except BadMessage as bad:
        return f"{REFUSED}{bad}"
    assert ident == asked.id
    for kind, read in _READERS:
        if asked.kind == kind:
            return _read_body(read, asked.body)
    return "request"


def _read_body(read: Callable[[Buffer], object], body: Buffer) -> str:
    try:
        found = read(body)
    except BadMessage as bad:
        return f"{REFUSED}{bad}"
    if isinstance(found, msgspec.Struct):
        assert not codec.misfit(found)
    assert read(codec.encode(found)) == found
    return type(found).__name__


def _read_answer(data: bytes) -> str:
    try:
        envelope = unpack_envelope(data)
        if envelope.kind == Say.EVENTS:
            return type(codec.convert(envelope.body, EventBatch)).__name__
        return type(read_outcome(envelope, b"")).__name__
    except BadMessage as bad:
        return f"{REFUSED}{bad}"


DECODERS: dict[str, Decoder] = {"frame": read_frame, "console": read_console}


# -- inputs to begin with ------------------------------------------------------------------------


def seeds(decoder: str) -> list[bytes]:
    """One input of each kind that the decoder accepts, and some that it does not."""
    return list(_frames() if decoder == "frame" else _console())


def _frames() -> Iterator[bytes]:
    for message, wire in GOLDEN:
        array = bytes.fromhex(wire)
        yield bytes([_SEALED | (_WITH_BULK if message.has_bulk else 0)]) + array
    yield b"\0" + seal(array)


def _console() -> Iterator[bytes]:
    for kind in get_args(AnyCall) + get_args(BreakingCall):
        yield b"\0" + pack_envelope(7, Ask.CALL, example(kind))
    for kind in (*get_args(AnyInjectionRequest),):
        yield b"\0" + pack_envelope(7, Ask.FAULTS, example(kind))
    yield b"\0" + pack_envelope(7, Ask.HELLO, Hello(session="ab" * 8, client="x"))
    yield b"\0" + pack_envelope(7, Ask.UNSUBSCRIBE, 3)
    yield b"\0" + pack_envelope(7, Ask.PING, None)
    outcomes = (Done([{"pid": 1}]), Raised(SignalInfo(Signal.SIGBUS, "gone")), Failed(22, "no", ""))
    for outcome in outcomes:
        yield b"\1" + bytes(answer_frames(7, outcome)[0])
    yield b"\1" + pack_envelope(7, Say.EVENTS, EventBatch([{"event": "x"}], 3))


def example(kind: type[msgspec.Struct]) -> msgspec.Struct:
    """Some instance of a Struct: what has no default gets the first of a few values that fits."""
    hints = get_type_hints(kind, include_extras=True)
    given = {
        field.name: _fitting(hints[field.name])
        for field in msgspec.structs.fields(kind)
        if field.required
    }
    return kind(**given)


def _fitting(hint: type | UnionType) -> Any:
    first: list[object] = [1, "x", []]
    for value in first:
        with suppress(msgspec.ValidationError):
            return msgspec.convert(value, hint)
    raise TypeError(f"no example of {hint}")


# -- mutation ------------------------------------------------------------------------------------


def mutated(data: bytes, number: Callable[[int], int]) -> bytes:
    """`data` with one part of what it packs replaced, doubled or left out, so that it is still
    MessagePack; as it was when it is none. `number(n)` draws one below n."""
    try:
        tree = msgpack.unpackb(data[1:], strict_map_key=False, unicode_errors="surrogateescape")
        places = list(_places(tree)) if isinstance(tree, list | dict) else []
        if not places:
            return data
        holder, key = places[number(len(places))]
        _change(holder, key, number)
        return data[:1] + bytes(msgpack.packb(tree, unicode_errors="surrogateescape"))
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException):
        return data


_EDGES: tuple[object, ...] = (
    0,
    1,
    -1,
    0xFF,
    1 << 16,
    (1 << 20) - 1,
    1 << 32,
    1 << 36,
    1 << 40,
    1 << 56,
    (1 << 63) - 1,
    1 << 63,
    (1 << 64) - 1,
    -(1 << 63),
    None,
    True,
    1.5,
    "",
    "x",
    "\x1b[2J",
    "A" * 300,
    b"x",
    [],
    {},
    [[0, 1]],
    [[1, 1], [3, (1 << 36) - 1]],
    {"op": "spawn"},
)
"""Where ranges and types end."""


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key or index) in a tree."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in list(items):
        yield tree, key
        if isinstance(value, dict | list):
            yield from _places(value)


def _change(holder: Any, key: Any, number: Callable[[int], int]) -> None:
    match number(4):
        case 0 if isinstance(holder, dict):
            holder["other" if number(2) else "pid"] = holder.pop(key)
        case 0:
            holder.insert(key, holder[key])
        case 1:
            del holder[key]
        case _:
            holder[key] = _EDGES[number(len(_EDGES))]
