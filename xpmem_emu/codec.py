"""The one encoding: MessagePack in, typed Structs out, or a BadMessage and nothing else.

Used by XPC frames and by the console. Bytes of others are read straight into the type that the
receiver expects (`reader`), so they build nothing else, and what does not fit ends the reading:
bytes cost what they weigh, whatever they say. `decode` builds whatever they say; it is for answers
of a partition that one has turned to.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import msgpack
import msgspec

from xpmem_emu.fields import misfit_named

_T = TypeVar("_T")
Buffer = bytes | bytearray | memoryview

MAX_BYTES = 1 << 22
"""Longest encoded message, in bytes; bulk data travels in frames of its own."""


class BadMessage(Exception):
    """These bytes are not what the receiver accepts; the text says in what way."""


def encode(value: object) -> bytes:
    """MessagePack of builtins and Structs."""
    return msgspec.msgpack.encode(value)


def decode(data: bytes | memoryview) -> Any:
    """Builtins out of bytes. Raises BadMessage."""
    if len(data) > MAX_BYTES:
        raise BadMessage(f"{len(data)} bytes, at most {MAX_BYTES} are accepted")
    try:
        return msgpack.unpackb(data, use_list=True, strict_map_key=False)
    except Exception as error:
        raise BadMessage(f"not MessagePack: {type(error).__name__}") from None


def reader(kind: type[_T]) -> Callable[[Buffer], _T]:
    """Reads one `kind` out of bytes; `kind` may be a union. What is read raises BadMessage."""
    read: Callable[[Buffer], _T] = msgspec.msgpack.Decoder(kind).decode

    def read_untrusted(data: Buffer) -> _T:
        if len(data) > MAX_BYTES:
            raise BadMessage(f"{len(data)} bytes, at most {MAX_BYTES} are accepted")
        try:
            return read(data)
        except (msgspec.MsgspecError, RecursionError, OverflowError, ValueError) as error:
            raise BadMessage(misfit_named(str(error))) from None

    return read_untrusted


def convert(value: object, kind: type[_T]) -> _T:
    """`value` as a validated `kind`. Raises BadMessage."""
    try:
        return msgspec.convert(value, kind)
    except (msgspec.ValidationError, RecursionError, OverflowError) as error:
        raise BadMessage(misfit_named(str(error))) from None


def misfit(value: msgspec.Struct) -> str:
    """In what way a Struct that was built by hand is not what its type says; empty when it is."""
    kind = type(value)
    read = _READERS.get(kind)
    if read is None:
        read = _READERS[kind] = msgspec.msgpack.Decoder(kind).decode
    try:
        read(msgspec.msgpack.encode(value))
    except (msgspec.MsgspecError, OverflowError, TypeError, UnicodeError) as error:
        return misfit_named(str(error))
    return ""


_READERS: dict[type[msgspec.Struct], Callable[[bytes], msgspec.Struct]] = {}
