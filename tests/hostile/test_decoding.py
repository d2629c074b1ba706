"""What bytes of others build before they are refused: next to nothing, whatever they say."""

import tracemalloc
from collections.abc import Callable

import msgpack
import pytest

from xpmem_emu.client.wire import CONSOLE_VERSION, Ask
from xpmem_emu.codec import MAX_BYTES, BadMessage
from xpmem_emu.fields import RANGES_MAX
from xpmem_emu.live.console.requests import (
    HEAD_MAX,
    read_call,
    read_hello,
    read_injection_request,
    read_request,
    readable_id,
)
from xpmem_emu.xpc.frame import FRAME_VERSION as XPC_VERSION
from xpmem_emu.xpc.frame import decode_frame, seal
from xpmem_emu.xpc.messages import MESSAGES, Invalidate

BUILT_MAX = 64 << 10
"""Bytes; a megabyte of nested lists would be a hundred times as much."""
ROOM = MAX_BYTES - 200


def array(count: int) -> bytes:
    """The head of an array."""
    return b"\xdd" + count.to_bytes(4)


FILLINGS = {
    "empty lists": array(ROOM) + b"\x90" * ROOM,
    "numbers": array(ROOM) + b"\x01" * ROOM,
    "deep": b"\x91" * ROOM + b"\x90",
    "empty maps": array(ROOM) + b"\x80" * ROOM,
    "a promise": array((1 << 32) - 1),
    "a map of a promise": b"\xdf" + b"\xff" * 4,
    "texts": array(ROOM // 2) + b"\xa1x" * (ROOM // 2),
}
each_filling = pytest.mark.parametrize("filling", FILLINGS.values(), ids=FILLINGS.keys())


def built(act: Callable[[], object]) -> int:
    """The most bytes that a refusal has allocated at once."""
    tracemalloc.start()
    try:
        with pytest.raises(BadMessage):
            act()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def frame_of(code: int, body: bytes) -> bytes:
    """A frame with such a body, sealed as a peer would."""
    channel = 2 if code < 32 else 0
    head = msgpack.packb([XPC_VERSION, code, 1, 1, 1, channel, 0])
    return seal(b"\x98" + head[1:] + body)


@each_filling
def test_a_frame_builds_nothing_that_its_type_does_not_have(filling: bytes) -> None:
    for code in MESSAGES:
        frame = frame_of(code, filling)
        assert built(lambda: decode_frame([frame])) < BUILT_MAX  # noqa: B023


def test_ranges_are_counted_before_they_are_built() -> None:
    entry = b"\x93\x01\x01" + array(RANGES_MAX) + b"\x92\x00\x01" * RANGES_MAX
    frame = frame_of(Invalidate.code, b"\x91\x94" + entry * 4)
    assert built(lambda: decode_frame([frame])) < BUILT_MAX


@each_filling
def test_a_request_is_refused_by_its_size_before_it_is_read(filling: bytes) -> None:
    head = msgpack.packb([CONSOLE_VERSION, 7, Ask.CALL])
    frame = b"\x94" + head[1:] + filling
    assert built(lambda: read_request(frame)) < BUILT_MAX
    assert readable_id(frame) == 7 or len(frame) <= HEAD_MAX


@each_filling
@pytest.mark.parametrize("read", [read_call, read_hello, read_injection_request])
def test_a_body_builds_nothing_that_its_kind_does_not_have(
    read: Callable[[bytes], object], filling: bytes
) -> None:
    assert built(lambda: read(filling)) < BUILT_MAX
    body = msgpack.packb({"op": "spawn", "do": "add", "name": "x"})
    stuffed = b"\x84" + body[1:] + b"\xa3gid" + filling
    assert built(lambda: read(stuffed)) < BUILT_MAX
