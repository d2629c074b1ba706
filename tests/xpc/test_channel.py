"""Channels open when both sides have registered, close when one leaves, and open again."""

import itertools

import pytest

from tests.xpc.world import Echo, World, image
from xpmem_emu.units import MILLISECOND, SECOND
from xpmem_emu.xpc.channel import CHANNEL, ChannelEvent, ChannelState
from xpmem_emu.xpc.frame import ChannelNumber, Header, encode_frame
from xpmem_emu.xpc.messages import (
    CloseReply,
    FindName,
    FindNameReply,
    Message,
    OpenComplete,
    OpenReply,
    OpenRequest,
    Pending,
)
from xpmem_emu.xpc.reasons import Reason, XpcError
from xpmem_emu.xpc.xpc import Patience

BRIEF = Patience(50 * MILLISECOND, 2, 200 * MILLISECOND)


def state(world: World, partid: int, channel: int = 0) -> ChannelState:
    session = world[partid].xpc.partitions[1 - partid].session
    assert session is not None
    return session.channels[channel].state


def order(world: World, partid: int, channel: int = 0) -> list[str]:
    return [
        record.event.state  # type: ignore[attr-defined]
        for record in world[partid].names("xpc:channel")
        if record.event.channel == channel  # type: ignore[attr-defined]
    ]


def test_a_registered_channel_opens_with_callouts_on_both_sides() -> None:
    world = World(2)
    world.connect()
    for node in world.nodes.values():
        assert node.echo.calls == [("connected", 1 - node.partid)]
        assert order(world, node.partid) == ["offered", "replied", "completed", "connected"]
    world.shut_down()
    for node in world.nodes.values():
        assert [call[0] for call in node.echo.calls] == ["connected", "disconnected"]


def test_a_channel_that_only_one_side_has_registered_stays_offered() -> None:
    world = World(2)
    world[0].xpc.register(ChannelNumber.NET, Echo())
    world.connect()
    world.run(SECOND)
    assert state(world, 0, 1) is ChannelState.OFFERED
    assert state(world, 1, 1) is ChannelState.ASKED
    world[1].xpc.register(ChannelNumber.NET, Echo())
    world.run(10 * MILLISECOND)
    assert state(world, 0, 1) is state(world, 1, 1) is ChannelState.CONNECTED
    world.shut_down()


@pytest.mark.parametrize("seed", range(10))
def test_channels_open_whatever_is_lost_repeated_or_reordered(seed: int) -> None:
    world = World(2, seed, image(heartbeat_check=3600 * SECOND, control_tries=100))
    world.run_until(world.all_active)
    world.weather.loss, world.weather.repeat = 0.4, 0.4
    world.weather.jitter_ns = 200 * MILLISECOND
    assert world.run_until(world.all_connected, 60 * SECOND)
    assert all(node.echo.calls == [("connected", 1 - node.partid)] for node in world.nodes.values())
    world.weather.loss = 0
    world.shut_down()


def test_unregistering_closes_the_channel_and_waits_for_its_threads() -> None:
    world = World(2)
    world.connect()
    node = world[1]

    async def work(message: Message) -> Message:
        await node.scheduler.sleep_until(node.scheduler.now_ns + 300 * MILLISECOND)
        return FindNameReply(1)

    node.echo.work = work
    task = world.ask(0, 1)
    world.run(MILLISECOND)
    leaving = node.spawn(node.xpc.unregister(0), "rmmod")
    world.run(100 * MILLISECOND)
    assert isinstance(task.error, XpcError)
    assert task.error.reason is Reason.OTHER_UNREGISTERING
    assert not leaving.done
    assert node.echo.calls == [("connected", 0)]
    world.run(300 * MILLISECOND)
    assert leaving.done
    assert node.echo.calls == [("connected", 0), ("disconnected", 0, Reason.UNREGISTERING)]
    assert world[0].echo.calls[1:] == [("disconnected", 1, Reason.OTHER_UNREGISTERING)]
    assert world.all_active()
    assert state(world, 0) is ChannelState.OFFERED
    refused = world.ask(0, 1, patience=BRIEF)
    assert world.run_until(lambda: refused.done)
    assert isinstance(refused.error, XpcError)
    world.shut_down()


def test_a_channel_that_is_unregistered_opens_to_nobody_while_it_waits_for_others() -> None:
    """The answer to its offer came while a thread for another peer still ran: nobody was there."""
    world = World(3)
    world.connect()
    node = world[0]

    async def work(message: Message) -> Message:
        await node.scheduler.sleep_until(node.scheduler.now_ns + 300 * MILLISECOND)
        return FindNameReply(1)

    late = Echo(work=work)
    node.xpc.register(1, late)
    world[1].xpc.register(1, Echo())
    world.run(MILLISECOND)
    world[1].spawn(world[1].xpc.call_killable(0, 1, FindName("x"), patience=BRIEF))
    world.run(MILLISECOND)
    leaving = node.spawn(node.xpc.unregister(1), "rmmod")
    world.run(MILLISECOND)
    world[2].xpc.register(1, Echo())
    assert world.run_until(lambda: leaving.done)
    assert [call[:2] for call in late.calls] == [("connected", 1), ("disconnected", 1)]
    assert world.all_active()
    world.shut_down()


def test_a_channel_opens_again_and_its_numbers_are_not_those_of_the_old_opening() -> None:
    world = World(2)
    world.connect()
    first = world.ask(0, 1)
    assert world.run_until(lambda: first.done)
    leaving = world[1].spawn(world[1].xpc.unregister(0))
    assert world.run_until(lambda: leaving.done)
    world[1].xpc.register(0, world[1].echo)
    world.connect()
    second = world.ask(0, 1)
    assert world.run_until(lambda: second.done)
    assert second.result == (FindNameReply(3), b"")
    numbers = [
        record.event.number  # type: ignore[attr-defined]
        for record in world[0].names("xpc:send")
        if record.event.kind == "FIND_NAME"  # type: ignore[attr-defined]
    ]
    assert numbers[1] - numbers[0] >= 1 << 32
    world.shut_down()


@pytest.mark.parametrize("seed", range(20))
def test_both_sides_closing_and_opening_at_once_end_up_connected(seed: int) -> None:
    world = World(2, seed, jitter_ns=5 * MILLISECOND)
    world.connect()
    for delay_ms in (0, 1, 3, 6):
        leaving = [node.spawn(node.xpc.unregister(0)) for node in world.nodes.values()]
        world.run(delay_ms * MILLISECOND)
        assert world.run_until_done(*leaving)
        for node in world.nodes.values():
            node.xpc.register(0, node.echo)
        world.connect()
    task = world.ask(0, 1)
    assert world.run_until(lambda: task.done)
    assert task.error is None
    world.shut_down()


def test_different_payload_limits_never_open_a_channel() -> None:
    world = World(2)
    world.boot(1, 2, image(payload=4096))
    assert world.run_until(world.all_active)
    world.run(SECOND)
    for partid in (0, 1):
        assert state(world, partid) is ChannelState.DISCONNECTED
        session = world[partid].xpc.partitions[1 - partid].session
        assert session is not None
        assert session.channels[0].reason is Reason.UNEQUAL_MSG_SIZES
        assert world[partid].echo.calls == []
    world.shut_down()


@pytest.mark.parametrize(
    "message",
    [OpenReply(0, 128, 128), OpenComplete(0), CloseReply(0), OpenRequest(0, 4 << 20, 128)],
    ids=lambda message: type(message).__name__,
)
def test_a_control_message_that_does_not_fit_ends_the_session(message: Message) -> None:
    world = World(2)
    world.connect()
    session = world[1].xpc.partitions[0].session
    assert session is not None
    session.admin.send(message)
    world.run(MILLISECOND)
    assert ("down", 1, 1 << 16 | 1, Reason.OPEN_CLOSE_ERROR) in world[0].listener.calls
    world.connect()
    world.shut_down()


def test_a_peer_that_only_says_pending_to_channel_control_is_given_up() -> None:
    patient = image(heartbeat_check=3600 * SECOND, control_tries=1000)
    world = World(2, config=image(heartbeat_check=3600 * SECOND))
    world.boot(1, 2, patient)
    world.drop = lambda src, dst, kind: src == 1 and kind in ("ACK", "OPEN_REQUEST")
    assert world.run_until(world.all_active)
    node, partition = world[0], world[0].xpc.partitions[1]
    for _ in range(30):
        header = Header(1, partition.remote.seen, partition.mine, 2, 0)
        node.xpc.receive([encode_frame(header, Pending())])
        world.run(100 * MILLISECOND)
    places = [getattr(record.event, "place", "") for record in node.names("xpc:partition")]
    assert "xpc/slots:overdue" in places


def test_a_reply_that_grants_other_slots_than_were_agreed_ends_the_session() -> None:
    world = World(2)
    world.drop = lambda src, dst, kind: src == 1 and kind == "OPEN_REPLY"
    assert world.run_until(lambda: world.all_active())
    world.run(MILLISECOND)
    node, partition = world[0], world[0].xpc.partitions[1]
    header = Header(1, partition.remote.seen, partition.mine, 2, 1)
    node.xpc.receive([encode_frame(header, OpenReply(0, 4096, 4096))])
    assert partition.reason is Reason.OPEN_CLOSE_ERROR


def test_registration_is_checked() -> None:
    world = World(1)
    for channel, reason in ((0, Reason.ALREADY_REGISTERED), (2, Reason.BAD_CHANNEL_NUMBER)):
        with pytest.raises(XpcError) as refused:
            world[0].xpc.register(channel, Echo())
        assert refused.value.reason is reason


def test_bulk_beyond_the_payload_limit_is_refused_before_it_is_sent() -> None:
    world = World(2, config=image(payload=4096))
    world.connect()
    with pytest.raises(XpcError) as refused:
        world[0].xpc.post(
            1, 0, FindName("x"), lambda outcome: None, patience=BRIEF, bulk=bytes(4097)
        )
    assert refused.value.reason is Reason.PAYLOAD_TOO_BIG
    world.shut_down()


def test_every_state_can_be_left_by_deactivation_and_no_open_state_forgets_its_close() -> None:
    busy = [each for each in ChannelState if each is not ChannelState.DISCONNECTED]
    assert all(
        CHANNEL.accepts(each, ChannelEvent.DEACTIVATE)
        for each in busy
        if each is not ChannelState.DRAINING
    )
    reached, events = {ChannelState.DISCONNECTED}, list(ChannelEvent)
    for _ in busy:
        reached |= {
            CHANNEL.next(each, event)
            for each, event in itertools.product(reached, events)
            if CHANNEL.accepts(each, event)
        }
    assert reached == set(ChannelState)
