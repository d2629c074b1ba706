"""Bytes of peers are never trusted: receive() counts, traces and drops; it never raises."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.xpc.golden import GOLDEN
from tests.xpc.strategies import structs
from tests.xpc.world import Node, World, hold, image
from xpmem_emu.units import MILLISECOND, SECOND
from xpmem_emu.xpc import channel
from xpmem_emu.xpc.admin import BACKLOG_MAX
from xpmem_emu.xpc.frame import FIRST_ADMIN_CODE, FIRST_DATA_CODE, Header, encode_frame
from xpmem_emu.xpc.messages import (
    MESSAGES,
    Ack,
    CloseRequest,
    Evict,
    FindName,
    FindNameReply,
    InvalidateAck,
    OpenRequest,
    Pending,
)


@settings(max_examples=40)
@given(
    st.lists(st.lists(st.binary(max_size=40), max_size=3), max_size=5),
    st.lists(st.tuples(st.sampled_from(GOLDEN), st.integers(0, 200), st.integers(0, 255))),
)
def test_garbage_is_counted_and_dropped(
    random_frames: list[list[bytes]], mutations: list[tuple[tuple[object, str], int, int]]
) -> None:
    world = World(2)
    world.connect()
    for frames in random_frames:
        world[0].xpc.receive(list(frames))
    for (_, wire), position, value in mutations:
        frame = bytearray.fromhex(wire)
        frame[position % len(frame)] = value
        world[0].xpc.receive([bytes(frame)])
    counters = world[0].xpc.counters
    assert counters["bad_frames"] == len(world[0].names("xpc:bad_frame"))
    assert counters["bad_frames"] >= len(random_frames)
    world.run(SECOND)
    world.connect()


@settings(max_examples=60)
@given(st.data())
def test_valid_messages_of_a_peer_that_has_lost_its_mind_never_raise(data: st.DataObject) -> None:
    world = World(2)
    world.connect()
    node, partition = world[0], world[0].xpc.partitions[1]
    for _ in range(data.draw(st.integers(1, 10))):
        kind = data.draw(st.sampled_from(list(MESSAGES.values())))
        if kind in (FindName,):
            continue
        channel = 2 if kind.code < FIRST_DATA_CODE else 0
        if kind in (Ack, Pending):
            channel = data.draw(st.integers(0, 2))
        number = data.draw(st.integers(0, 600)) if kind.code >= FIRST_ADMIN_CODE else 0
        header = Header(
            1,
            data.draw(st.sampled_from([partition.remote.seen, partition.remote.seen + 1])),
            partition.mine,
            channel,
            number,
        )
        if kind.reply_code and channel == 0:
            continue
        node.xpc.receive([encode_frame(header, data.draw(structs(kind)))])
    world.run(5 * SECOND)
    node.xpc.check()
    # Sane again, it is taken back, unless it claimed an incarnation that it has not reached yet.
    assert partition.remote.seen > world[1].xpc.partitions[0].mine or world.run_until(
        world.all_active
    )


def test_a_frame_from_nobody_we_know_is_a_bad_frame() -> None:
    world = World(2)
    world.connect()
    for src in (0, 9):
        header = Header(src, 1 << 16, world[0].xpc.partitions[1].mine, 0, 1)
        world[0].xpc.receive([encode_frame(header, FindName("x"))])
    assert world[0].xpc.counters["bad_frames"] == 2
    assert world[0].echo.served == []
    world.shut_down()


def test_an_answer_of_the_wrong_type_or_to_nothing_is_not_given_to_anybody() -> None:
    world = World(2)
    world.connect()
    world.drop = lambda src, dst, kind: kind == "FIND_NAME"
    task = world.ask(0, 1)
    world.run(0)
    partition = world[0].xpc.partitions[1]
    for number, message in ((0, InvalidateAck()), (1, FindNameReply(9))):
        header = Header(1, partition.remote.seen, partition.mine, 0, number)
        world[0].xpc.receive([encode_frame(header, message)])
    world.run(0)
    assert not task.done
    assert world[0].xpc.counters["bad_frames"] == 1
    assert world[0].xpc.counters["duplicates"] == 1
    world.drop = lambda src, dst, kind: False
    assert world.run_until(lambda: task.done)
    assert task.result == (FindNameReply(3), b"")
    world.shut_down()


def test_a_new_number_in_a_slot_that_is_still_busy_is_a_bad_frame() -> None:
    world = World(2)
    world.connect()
    partition = world[0].xpc.partitions[1]
    slots = 2 * world.config.xpc.slots
    for number in (0, slots):
        header = Header(1, partition.remote.seen, partition.mine, 0, number)
        world[0].xpc.receive([encode_frame(header, FindName(f"{number}"))])
    world.run(0)
    assert world[0].echo.served == [FindName("0")]
    assert world[0].xpc.counters["bad_frames"] == 1
    world.shut_down()


@pytest.mark.parametrize("seed", range(6))
def test_no_table_outgrows_the_image_whatever_a_peer_sends(seed: int) -> None:
    """Requests that never end, with any number and in any session that it has."""
    draw = random.Random(f"flood {seed}")
    world = World(2, config=image(slots=2, disengage_limit=100 * MILLISECOND))
    world.connect()
    hold(world, 0)
    node, partition = world[0], world[0].xpc.partitions[1]
    capacity = 2 * 2 * 2  # slots, classes, channels
    for step in range(2000):
        number = draw.choice([0, 0, 1, 2])
        control = draw.choice([OpenRequest(1, 4 << 20, 2), CloseRequest(0, 9), Ack(), Pending()])
        message = control if number == 2 else draw.choice([FindName("x"), Evict(1, []), Ack()])
        header = Header(
            1, partition.remote.seen, partition.mine, number, draw.choice([step, step % 16, 1])
        )
        node.xpc.receive([encode_frame(header, message)])
        if not step % 7:
            world.run(50 * MILLISECOND)
        audit = node.xpc.audit()
        assert audit["threads"] <= 2 * capacity, (seed, step)
        assert audit["remembered"] <= capacity + 1, (seed, step)
        assert audit["admin"] <= 1 + BACKLOG_MAX, (seed, step)
        assert len(node.scheduler.threads) <= 2 * capacity + 5, (seed, step)
    assert partition.counters.activations > 1


def test_a_channel_that_is_opened_again_and_again_ends_its_session(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each opening has its own numbers, and numbers have 63 bits."""
    monkeypatch.setattr(channel, "OPENINGS_MAX", 3)
    world = World(2)
    world.connect()
    for _ in range(3):
        closed = world[1].spawn(world[1].xpc.unregister(0))
        assert world.run_until_done(closed)
        world[1].xpc.register(0, world[1].echo)
        world.connect()
    assert [place for place in places(world[0]) if place == "xpc/channel:openings"] != []
    world.shut_down()


def places(node: Node) -> list[str]:
    return [getattr(record.event, "place", "") for record in node.names("xpc:partition")]
