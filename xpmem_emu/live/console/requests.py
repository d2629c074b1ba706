"""How a console reads what clients send: never trusted, bounded by its size before it is read, and
read straight into what its kind has."""

from collections.abc import Callable
from typing import Annotated

import msgpack
from msgspec import Meta, Raw, Struct

from xpmem_emu import codec
from xpmem_emu.client.injection_requests import AnyInjectionRequest, InjectionRequest
from xpmem_emu.client.wire import CONSOLE_VERSION, Hello
from xpmem_emu.codec import Buffer
from xpmem_emu.fields import ShortText
from xpmem_emu.kernel.breaking import BreakingCall
from xpmem_emu.kernel.calls import AnyCall, Call

HEAD_MAX = 1 << 14
"""Bytes of the first frame of a request: the longest call has a fraction of it."""


class Asked(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The first frame of a request. The body is not looked at before it is known whose it is and
    what it should be."""

    version: Annotated[int, Meta(ge=1, le=CONSOLE_VERSION)]
    id: Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
    kind: ShortText
    body: Raw = Raw(b"\xc0")


def read_request(frame: Buffer) -> Asked:
    """The request that a first frame is. Raises BadMessage."""
    if len(frame) > HEAD_MAX:
        raise codec.BadMessage(f"{len(frame)} bytes, a request has at most {HEAD_MAX}")
    return _read_asked(frame)


def readable_id(frame: Buffer) -> int | None:
    """The id in something that may not be a request."""
    head = msgpack.Unpacker()
    head.feed(bytes(frame[:16]))
    try:
        if head.read_array_header() < 2:
            return None
        _, ident = head.unpack(), head.unpack()
    except Exception:
        return None
    return ident if type(ident) is int and 0 <= ident < 1 << 63 else None


_read_asked = codec.reader(Asked)
read_hello = codec.reader(Hello)
read_ident = codec.reader(int)
read_injection_request: Callable[[Buffer], InjectionRequest]
read_injection_request = codec.reader(AnyInjectionRequest)  # type: ignore[arg-type]
read_call: Callable[[Buffer], Call] = codec.reader(AnyCall | BreakingCall)  # type: ignore[arg-type]
"""What the body of a request is. Raises BadMessage."""
