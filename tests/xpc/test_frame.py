"""The codec: exactly what encode can produce is accepted, anything else is a BadMessage."""

import errno
from functools import cache

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import astuple

from tests.xpc.golden import GOLDEN, HEADERS
from tests.xpc.strategies import structs
from xpmem_emu.codec import BadMessage, Buffer
from xpmem_emu.errors import KernelBug, KernelError
from xpmem_emu.fields import RANGES_MAX
from xpmem_emu.image import Image
from xpmem_emu.xpc.discovery import make_page
from xpmem_emu.xpc.frame import (
    FIRST_ADMIN_CODE,
    FIRST_DATA_CODE,
    FRAME_VERSION,
    SEAL_SIZE,
    ChannelNumber,
    Header,
    decode_frame,
    encode_frame,
    seal,
)
from xpmem_emu.xpc.messages import (
    ENTRIES_MAX,
    MESSAGES,
    Ack,
    Amo,
    Copy,
    Detach,
    Fault,
    FindName,
    Get,
    GetReply,
    Heartbeat,
    Invalidate,
    Message,
    Pending,
    RecallEntry,
)

incarnations = st.integers(0, (1 << 63) - 1)


@cache
def headers(kind: type[Message]) -> st.SearchStrategy[Header]:
    numbered = kind.code >= FIRST_ADMIN_CODE
    channels = [ChannelNumber.ADMIN] if kind.code < FIRST_DATA_CODE else [0, 1]
    if kind in (Ack, Pending):
        channels = [0, 1, 2]
    numbers = st.integers(0, (1 << 63) - 1) if numbered else st.just(0)
    sources = st.integers(0, 4095)
    return st.builds(
        Header, sources, incarnations, incarnations, st.sampled_from(channels), numbers
    )


def by_hand(header: Header, message: Message) -> bytes:
    """The frame of a message that `encode` refuses."""
    return seal(
        msgpack.packb(
            [
                FRAME_VERSION,
                message.code,
                header.src,
                header.src_incarnation,
                header.dst_incarnation,
                header.channel,
                header.number,
                list(astuple(message)),
            ]
        )
    )


@pytest.mark.parametrize("kind", MESSAGES.values(), ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_every_message_comes_back_as_it_was(kind: type[Message], data: st.DataObject) -> None:
    header = data.draw(headers(kind))
    message = data.draw(structs(kind))
    assert decode_frame([encode_frame(header, message)]) == (header, message, b"")


@pytest.mark.parametrize(("message", "wire"), GOLDEN, ids=lambda each: type(each).__name__)
def test_the_bytes_of_every_message_never_change(message: Message, wire: str) -> None:
    header = HEADERS[type(message)]
    assert encode_frame(header, message) == seal(bytes.fromhex(wire))
    assert decode_frame([seal(bytes.fromhex(wire))]) == (header, message, b"")


def test_there_is_a_golden_vector_for_every_message() -> None:
    assert {type(message) for message, _ in GOLDEN} == set(MESSAGES.values())


@given(data=st.data())
def test_a_mutated_frame_is_a_message_or_a_bad_message_and_nothing_else(
    data: st.DataObject,
) -> None:
    _, wire = data.draw(st.sampled_from(GOLDEN))
    frame = bytearray.fromhex(wire)
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(frame)))
    for candidate in (seal(bytes(frame)), seal(bytes(frame[:cut]))):
        try:
            header, message, _ = decode_frame([candidate])
        except BadMessage:
            continue
        assert decode_frame([encode_frame(header, message)]) == (header, message, b"")


@given(st.data())
def test_damage_on_the_way_is_always_noticed(data: st.DataObject) -> None:
    _, wire = data.draw(st.sampled_from(GOLDEN))
    frame = bytearray(seal(bytes.fromhex(wire)))
    frame[data.draw(st.integers(0, len(frame) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(BadMessage):
        decode_frame([bytes(frame)])


@given(st.lists(st.binary(max_size=64), max_size=4))
def test_random_frames_never_raise_anything_but_bad_message(frames: list[bytes]) -> None:
    with pytest.raises(BadMessage):
        decode_frame(frames)


def raw(**changes: object) -> bytes:
    fields: dict[str, object] = {
        "version": FRAME_VERSION,
        "type": Fault.code,
        "src": 1,
        "src_incarnation": 2,
        "dst_incarnation": 3,
        "channel": 0,
        "number": 4,
        "body": [5, 6, 7, 8],
    }
    return seal(msgpack.packb(list((fields | changes).values())))


@pytest.mark.parametrize(
    "changes",
    [
        {"version": FRAME_VERSION + 16},
        {"version": "3"},
        {"type": 7},
        {"type": 255},
        {"type": None},
        {"src": 4096},
        {"src": -1},
        {"src": True},
        {"src": 1.0},
        {"src_incarnation": 1 << 63},
        {"dst_incarnation": -1},
        {"channel": 3},
        {"channel": ChannelNumber.ADMIN},
        {"number": -1},
        {"number": 1 << 63},
        {"body": []},
        {"body": [5, 6, 7]},
        {"body": [5, 6, 7, 8, 9]},
        {"body": [0, 6, 7, 8]},
        {"body": ["5", 6, 7, 8]},
        {"body": {}},
        {"body": [5, 6, 7, 0]},
        {"body": [1 << 60, 6, 7, 8]},
        {"extra": 1},
        {"type": Heartbeat.code, "channel": 2, "number": 1, "body": [1, False, 3, True]},
        {"type": Heartbeat.code, "channel": 0, "number": 0, "body": [1, False, 3, True]},
        {"type": Heartbeat.code, "channel": 2, "number": 0, "body": [1, 0, 3, True]},
    ],
    ids=str,
)
def test_a_field_out_of_its_type_or_range_is_refused(changes: dict[str, object]) -> None:
    assert decode_frame([raw()])[1] == Fault(5, 6, 7, 8)
    with pytest.raises(BadMessage):
        decode_frame([raw(**changes)])


def test_trailing_bytes_and_wrong_numbers_of_frames_are_refused() -> None:
    longer = seal(raw()[:-SEAL_SIZE] + b"\x00")
    for frames in ([], [longer], [raw() + b"\x00"], [raw(), b"x", b"y"], [raw()[:-1]], [b""]):
        with pytest.raises(BadMessage):
            decode_frame(frames)


def test_bulk_travels_uncopied_and_only_with_types_that_have_it() -> None:
    data = memoryview(bytearray(4096))
    header = Header(1, 2, 3, 0, 4)
    frame = encode_frame(header, Copy(5, 0, 4096, True))
    bulk = decode_frame([frame, data], 4096)[2]
    data[0] = 7
    assert bulk[0] == 7
    bad: list[tuple[list[Buffer], int]]
    bad = [([frame, data], 4095), ([frame, b""], 4096), ([raw(), b"x"], 4096)]
    for frames, most in bad:
        with pytest.raises(BadMessage):
            decode_frame(frames, most)


def test_a_list_longer_than_its_type_allows_is_refused() -> None:
    header = Header(1, 2, 3, 0, 4)
    get = Get(1, 2, 0, 3, [0] * 64, False)
    assert decode_frame([encode_frame(header, get)])[1] == get
    with pytest.raises(BadMessage):
        decode_frame([by_hand(header, Get(1, 2, 0, 3, [0] * 65, False))])


@pytest.mark.parametrize(
    "message",
    [
        Get(1, 2, 0, 1 << 63, [], False),
        Get(1, 2, 0, 3, [0] * 65, False),
        GetReply(0, "", -4096),
        GetReply(0, "x" * 241, 0),
        Amo(1, 0, 0, 1 << 64, 0),
        Fault(1, 2, 3, (1 << 20) + 1),
        Detach(1, 2, [(0, 1)] * (RANGES_MAX + 1)),
        Invalidate([RecallEntry(1, 2, [(0, 0)])]),
        Invalidate([RecallEntry(1, 2, [(0, 1)])] * (ENTRIES_MAX + 1)),
        FindName("\ud800"),
    ],
    ids=lambda message: type(message).__name__,
)
def test_what_its_own_receiver_would_drop_is_the_senders_bug(message: Message) -> None:
    """It would be sent again and again, and the silence taken for a dead peer."""
    with pytest.raises(KernelBug, match="no receiver would accept"):
        encode_frame(Header(1, 2, 3, 0, 4), message)


@pytest.mark.parametrize(("boot", "arena"), [(1, "a" * 241), (1 << 47, "a")])
def test_a_reserved_page_that_nobody_would_accept_does_not_boot(boot: int, arena: str) -> None:
    with pytest.raises(KernelError, match="reserved page of p3") as refused:
        make_page(3, boot, Image(), arena)
    assert refused.value.errno == errno.EINVAL
