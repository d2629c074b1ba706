"""Bytes of peers are never trusted: receive() counts, traces and drops; it never raises."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.xpc.golden import GOLDEN
from tests.xpc.strategies import structs
from tests.xpc.world import World
from xpmem_emu.units import SECOND
from xpmem_emu.xpc.frame import FIRST_ADMIN_CODE, FIRST_DATA_CODE, Header, encode
from xpmem_emu.xpc.messages import MESSAGES, Ack, FindName, FindNameReply, InvalidateAck, Pending


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


@settings(max_examples=60, deadline=None)
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
            1, data.draw(st.sampled_from([partition.remote.seen, partition.remote.seen + 1])),
            partition.mine, channel, number,
        )  # fmt: skip
        if kind.reply_code and channel == 0:
            continue
        node.xpc.receive([encode(header, data.draw(structs(kind)))])
    world.run(5 * SECOND)


def test_a_frame_from_nobody_we_know_is_a_bad_frame() -> None:
    world = World(2)
    world.connect()
    for src in (0, 9):
        header = Header(src, 1 << 16, world[0].xpc.partitions[1].mine, 0, 1)
        world[0].xpc.receive([encode(header, FindName("x"))])
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
        world[0].xpc.receive([encode(header, message)])
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
        world[0].xpc.receive([encode(header, FindName(f"{number}"))])
    world.run(0)
    assert [message.name for message in world[0].echo.served] == ["0"]
    assert world[0].xpc.counters["bad_frames"] == 1
    world.shut_down()
