"""How two partitions find each other, lose each other, and never take one session for another."""

import pytest
from msgspec.structs import replace

from tests.xpc.world import Node, World, image
from xpmem_emu.tables import IllegalTransition
from xpmem_emu.units import MILLISECOND, SECOND
from xpmem_emu.xpc.activation import ACTIVATION, ActEvent, ActState, replaces
from xpmem_emu.xpc.discovery import check_page
from xpmem_emu.xpc.events import PartitionChange
from xpmem_emu.xpc.frame import Header, encode_frame
from xpmem_emu.xpc.messages import (
    ActivateReq,
    DeactivateReq,
    FindName,
    FindNameReply,
    Heartbeat,
    Message,
    RsvdPage,
    RsvdPageRead,
    SyncActState,
)
from xpmem_emu.xpc.reasons import Reason, XpcError, reason_of
from xpmem_emu.xpc.slots import Patience

PAGE = RsvdPage(3, 0, 1, 9, 256, "A", "none", 16)


def states(node: Node) -> list[str]:
    events = [record.event for record in node.names("xpc:partition")]
    return [event.state for event in events if isinstance(event, PartitionChange)]


def test_two_partitions_that_boot_together_become_active_in_a_few_exchanges() -> None:
    world = World(2)
    assert world.run_until(world.all_active, 2 * MILLISECOND)
    for node in world.nodes.values():
        assert states(node) == ["ACTIVATION_REQ", "ACTIVATING", "ACTIVE"]
    world.shut_down()


def test_the_listener_gets_the_page_and_the_incarnation_of_the_session() -> None:
    world = World(2)
    world.run_until(world.all_active)
    incarnation = world[0].xpc.incarnation(1)
    assert incarnation == 1 << 16 | 1
    assert world[0].listener.calls == [("up", 1, 1, incarnation)]
    assert world[0].xpc.is_active(1, incarnation)
    assert not world[0].xpc.is_active(1, incarnation - 1)
    assert not world[0].xpc.is_active(7, incarnation)
    world.shut_down()


@pytest.mark.parametrize("seed", range(10))
def test_activation_survives_loss_repetition_and_reordering(seed: int) -> None:
    world = World(3, seed, loss=0.3, repeat=0.3, jitter_ns=30 * MILLISECOND)
    assert world.run_until(world.all_active, 60 * SECOND)
    world.weather.loss = 0
    world.connect()
    world.shut_down()


def test_a_late_partition_is_found_by_those_that_run() -> None:
    world = World(2)
    world.cut = {(0, 1), (1, 0)}
    world.run(5 * SECOND)
    assert world[0].state(1) is ActState.INACTIVE
    world.cut.clear()
    assert world.run_until(world.all_active, SECOND)
    world.shut_down()


def test_one_way_silence_never_becomes_a_session_and_heals() -> None:
    world = World(2)
    world.cut = {(0, 1)}
    world.run(10 * SECOND)
    assert world[0].listener.calls == world[1].listener.calls == []
    world.cut.clear()
    assert world.run_until(world.all_active, 5 * SECOND)
    world.shut_down()


def test_first_contact_is_given_up_after_its_tries() -> None:
    world = World(2)
    world.drop = lambda src, dst, kind: kind not in ("RSVD_PAGE_READ", "RSVD_PAGE")
    assert world.run_until(lambda: world[0].state(1) is ActState.ACTIVATING)
    start_ns = world.now_ns
    assert world.run_until(lambda: world[0].state(1) is ActState.INACTIVE)
    assert world.now_ns - start_ns == 8 * 250 * MILLISECOND
    assert world[0].xpc.partitions[1].reason is Reason.TIMEOUT
    assert world[0].xpc.partitions[1].place == "xpc/partition:first_contact"
    world.drop = lambda src, dst, kind: False
    world.connect()
    world.shut_down()


def test_a_new_boot_ends_the_session_and_proves_nothing_about_the_process_before() -> None:
    world = World(2)
    world.connect()
    world.boot(1, 2)
    world.connect()
    assert world[0].listener.calls == [
        ("up", 1, 1, 1 << 16 | 1),
        ("down", 1, 1 << 16 | 1, Reason.REACTIVATING),
        ("up", 1, 2, 2 << 16 | 1),
    ]
    world.shut_down()


def test_a_deactivated_peer_hears_why_and_both_come_back_with_new_incarnations() -> None:
    world = World(2)
    world.connect()
    world[0].xpc.deactivate(1, Reason.BTE_COPY_ERROR, "test")
    assert world[0].xpc.incarnation(1) is None
    world.run(MILLISECOND)
    assert world[1].listener.calls[1] == ("down", 0, 1 << 16 | 1, Reason.BTE_COPY_ERROR)
    world.connect()
    for node in world.nodes.values():
        peer = 1 - node.partid
        assert node.listener.calls[2:] == [
            ("gone", peer, 1 << 16 | 1),
            ("up", peer, 1, 1 << 16 | 2),
        ]
    world.shut_down()


def test_a_lost_deactivate_request_is_made_good_by_the_state_in_heartbeats() -> None:
    world = World(2)
    world.connect()
    world.drop = lambda src, dst, kind: kind == "DEACTIVATE_REQ"
    world[0].xpc.deactivate(1, Reason.TIMEOUT, "test")
    assert world.run_until(lambda: len(world[1].listener.calls) > 1, 200 * MILLISECOND)
    assert world[1].listener.calls[1] == ("down", 0, 1 << 16 | 1, Reason.OTHER_GOING_DOWN)
    world.connect()
    world.shut_down()


def test_a_peer_that_never_lets_go_is_waited_for_until_the_disengage_limit() -> None:
    world = World(2)
    world.connect()
    world[1].stopped = True
    world[0].xpc.deactivate(1, Reason.NO_HEARTBEAT, "test")
    start_ns = world.now_ns
    assert world.run_until(lambda: world[0].state(1) is ActState.INACTIVE)
    assert world.now_ns - start_ns == 2 * SECOND
    assert world[0].xpc.counters["disengage_timeouts"] == 1
    assert len(world[0].names("xpc:disengage_timeout")) == 1
    assert ("gone", 1, 1 << 16 | 1) not in world[0].listener.calls
    world[1].stopped = False
    world.connect()
    assert ("gone", 1, 1 << 16 | 1) in world[0].listener.calls
    world.shut_down()


class Puppet:
    """p1 by hand: p0 hears what the test says and is heard by nobody."""

    def __init__(self) -> None:
        self.world = World(2)
        self.world.cut = {(0, 1), (1, 0)}
        self.world.run(MILLISECOND)
        self.node = self.world[0]
        self.partition = self.node.xpc.partitions[1]

    def say(self, epoch: int, message: Message, dst: int | None = None) -> ActState:
        """p0's state after it heard `message` of that epoch, addressed to it unless `dst` is."""
        dst = self.partition.mine if dst is None else dst
        self.node.xpc.receive([encode_frame(Header(1, 9 << 16 | epoch, dst, 2, 0), message)])
        self.world.run(MILLISECOND)
        return self.partition.state


def test_a_peer_incarnation_that_was_active_once_is_told_to_go_and_never_is_again() -> None:
    """It may still be ACTIVATING there; then only its own next epoch can bring it back."""
    peer = Puppet()
    assert peer.say(1, PAGE, dst=0) is ActState.ACTIVATING
    assert peer.say(1, SyncActState(ActState.ACTIVATING)) is ActState.ACTIVE
    peer.node.xpc.deactivate(1, Reason.TIMEOUT, "test")
    assert peer.say(1, Heartbeat(50, False, ActState.INACTIVE, False)) is ActState.INACTIVE
    assert peer.say(1, PAGE, dst=0) is ActState.ACTIVATING
    mark = len(peer.world.sent)
    assert peer.say(1, SyncActState(ActState.ACTIVATING)) is ActState.ACTIVATING
    assert (0, 1, "DEACTIVATE_REQ") in peer.world.sent[mark:]
    assert peer.say(2, SyncActState(ActState.ACTIVATING)) is ActState.ACTIVE
    assert [call[0] for call in peer.node.listener.calls] == ["up", "down", "gone", "up"]


def test_a_new_incarnation_must_show_for_itself_that_it_knows_us() -> None:
    peer = Puppet()
    assert peer.say(1, SyncActState(ActState.ACTIVATING)) is ActState.ACTIVATING
    assert peer.say(1, SyncActState(ActState.ACTIVATING)) is ActState.ACTIVATING
    assert peer.say(2, ActivateReq(ActState.ACTIVATING), dst=0) is ActState.ACTIVATING
    assert peer.say(2, PAGE, dst=0) is ActState.ACTIVATING
    assert peer.say(2, SyncActState(ActState.ACTIVATING)) is ActState.ACTIVE


def test_a_peer_must_show_that_it_knows_each_new_incarnation_of_ours() -> None:
    peer = Puppet()
    assert peer.say(1, SyncActState(ActState.ACTIVATING)) is ActState.ACTIVATING
    assert peer.say(1, SyncActState(ActState.ACTIVATING)) is ActState.ACTIVATING
    peer.node.xpc.deactivate(1, Reason.TIMEOUT, "test")
    peer.world.run(0)
    assert peer.say(1, PAGE, dst=0) is ActState.ACTIVATING
    assert peer.say(1, PAGE, dst=0) is ActState.ACTIVATING
    assert peer.say(1, SyncActState(ActState.ACTIVATING)) is ActState.ACTIVE


def test_a_peer_that_cannot_be_heard_for_a_moment_is_not_waited_for_until_the_limit() -> None:
    world = World(2)
    world.connect()
    world.drop = lambda src, dst, kind: src == 1 and kind == "HEARTBEAT"
    world[0].xpc.deactivate(1, Reason.TIMEOUT, "test")
    assert world.run_until(lambda: world[1].state(0) is ActState.INACTIVE, 100 * MILLISECOND)
    assert world[0].state(1) is ActState.DEACTIVATING
    world.drop = lambda src, dst, kind: False
    assert world.run_until(lambda: world[0].state(1) is ActState.INACTIVE, 300 * MILLISECOND)
    world.connect()
    world.shut_down()


# -- frames of other sessions ------------------------------------------------------------------


def test_frames_of_an_old_session_change_nothing_however_late_they_come() -> None:
    world = World(2)
    world.connect()
    mine = world[1].xpc.partitions[0].mine
    header = Header(1, mine, world[0].xpc.partitions[1].mine, 2, 0)
    data = Header(1, mine, world[0].xpc.partitions[1].mine, 0, 4)
    old = [
        encode_frame(header, DeactivateReq(Reason.SYSTEM_HALT)),
        encode_frame(header, SyncActState(ActState.INACTIVE)),
        encode_frame(header, Heartbeat(1 << 40, True, ActState.INACTIVE, False)),
        encode_frame(data, FindName("old")),
        encode_frame(data, FindNameReply(1)),
    ]
    world[0].xpc.deactivate(1, Reason.TIMEOUT, "test")
    world.connect()
    stale, calls = world[0].xpc.counters["stale_frames"], list(world[0].listener.calls)
    for frame in old:
        world[0].xpc.receive([frame])
    assert world[0].xpc.counters["stale_frames"] == stale + len(old)
    world.run(5 * SECOND)
    assert world[0].listener.calls == calls
    assert world[0].echo.served == []
    world.shut_down()


def test_only_discovery_may_come_without_our_incarnation() -> None:
    world = World(2)
    world.connect()
    unaddressed = Header(1, world[1].xpc.partitions[0].mine, 0, 2, 0)
    stale = world[0].xpc.counters["stale_frames"]
    world[0].xpc.receive([encode_frame(unaddressed, RsvdPageRead())])
    assert world[0].xpc.counters["stale_frames"] == stale
    world[0].xpc.receive([encode_frame(unaddressed, DeactivateReq(Reason.TIMEOUT))])
    assert world[0].xpc.counters["stale_frames"] == stale + 1
    assert world[0].state(1) is ActState.ACTIVE
    world.shut_down()


def test_a_frame_from_an_older_incarnation_is_dropped_even_if_it_names_ours() -> None:
    world = World(2)
    world.connect()
    partition = world[0].xpc.partitions[1]
    header = Header(1, partition.remote.seen - 1, partition.mine, 2, 0)
    stale = world[0].xpc.counters["stale_frames"]
    world[0].xpc.receive([encode_frame(header, DeactivateReq(Reason.TIMEOUT))])
    assert world[0].xpc.counters["stale_frames"] == stale + 1
    assert partition.state is ActState.ACTIVE
    world.shut_down()


def test_the_incarnation_moves_on_only_after_the_old_session_was_withdrawn() -> None:
    world = World(2)
    world.connect()
    partition = world[0].xpc.partitions[1]
    before, seen = partition.mine, list[ActState]()
    world[0].xpc.deactivate(1, Reason.TIMEOUT, "test")

    def moved() -> bool:
        if partition.mine == before:
            seen.append(partition.state)
        return partition.mine != before

    assert world.run_until(moved)
    assert ActState.DEACTIVATING in seen
    assert partition.state is not ActState.DEACTIVATING
    assert partition.mine == before + 1
    world.connect()
    world.shut_down()


def test_a_peer_whose_epochs_are_used_up_is_not_activated_again() -> None:
    world = World(2)
    world.connect()
    partition = world[0].xpc.partitions[1]
    partition.mine |= 0xFFFF
    world[0].xpc.deactivate(1, Reason.TIMEOUT, "test")
    world.run(10 * SECOND)
    assert partition.state is ActState.INACTIVE
    assert partition.reason is Reason.LACK_OF_RESOURCES


# -- rules -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (Reason.TIMEOUT, Reason.NO_HEARTBEAT, False),
        (Reason.TIMEOUT, Reason.REACTIVATING, True),
        (Reason.UNLOADING, Reason.NO_HEARTBEAT, True),
        (Reason.UNLOADING, Reason.UNLOADING, False),
        (Reason.REACTIVATING, Reason.TIMEOUT, False),
    ],
)
def test_which_reason_stays(old: Reason, new: Reason, expected: bool) -> None:
    assert replaces(old, new) is expected


def test_an_event_that_the_table_does_not_list_is_a_bug() -> None:
    with pytest.raises(IllegalTransition):
        ACTIVATION.next(ActState.INACTIVE, ActEvent.CONTACT)


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        (PAGE, Reason.SUCCESS),
        (RsvdPage(3, 9, 1, 9, 256, "A", "none", 16), Reason.SUCCESS),
        (RsvdPage(3, 0, 1, 0, 256, "A", "none", 16), Reason.RSVD_PAGE_NOT_SET),
        (RsvdPage(2, 0, 1, 9, 256, "A", "none", 16), Reason.BAD_VERSION),
        (RsvdPage(3, 0, 2, 9, 256, "A", "none", 16), Reason.INVALID_PARTID),
        (RsvdPage(3, 0, 1, 8, 256, "A", "none", 16), Reason.INVALID_PARTID),
        (RsvdPage(3, 0, 1, 9, 4, "A", "none", 16), Reason.INVALID_PARTID),
        (RsvdPage(3, 0, 1, 9, 4096, "A", "none", 16), Reason.SUCCESS),
    ],
)
def test_a_reserved_page_is_checked_before_anything_is_started(
    page: RsvdPage, reason: Reason
) -> None:
    assert check_page(page, sender=1, boot=9, mine=replace(PAGE, partid=5)) is reason


def test_a_peer_that_ids_have_no_room_for_is_none() -> None:
    page = RsvdPage(3, 0, 300, 9, 4096, "A", "none", 16)
    assert check_page(page, sender=300, boot=9, mine=PAGE) is Reason.INVALID_PARTID
    wide = replace(PAGE, max_partitions=512)
    assert check_page(page, sender=300, boot=9, mine=wide) is Reason.SUCCESS


def test_numbers_that_give_no_reason_are_unknown_reasons() -> None:
    assert reason_of(Reason.TIMEOUT) is Reason.TIMEOUT
    assert [reason_of(code) for code in (0, 3, 6, 35, 9999)] == [Reason.UNKNOWN_REASON] * 5


def test_a_call_to_a_peer_that_is_not_there_fails_at_once() -> None:
    world = World(2)
    world.cut = {(0, 1), (1, 0)}
    world.run(SECOND)
    for partid, reason in ((1, Reason.NOT_CONNECTED), (9, Reason.INVALID_PARTID)):
        task, start_ns = world.ask(0, partid), world.now_ns
        world.run(0)
        assert isinstance(task.error, XpcError)
        assert task.error.reason is reason
        assert world.now_ns == start_ns


def test_a_call_while_the_peer_is_being_activated_waits_for_it_within_its_patience() -> None:
    world = World(2, latency_ns=MILLISECOND)
    assert world.run_until(lambda: world[0].state(1) is ActState.ACTIVATING)
    task = world.ask(0, 1)
    assert world.run_until(lambda: task.done)
    assert task.result == (FindNameReply(3), b"")
    world.drop = lambda src, dst, kind: kind == "OPEN_COMPLETE"
    world[0].xpc.deactivate(1, Reason.TIMEOUT, "test")
    assert world.run_until(world.all_active)
    start_ns = world.now_ns
    task = world.ask(0, 1, patience=Patience(SECOND, 1, 300 * MILLISECOND))
    assert world.run_until(lambda: task.done)
    assert isinstance(task.error, XpcError)
    assert task.error.reason is Reason.NOT_CONNECTED
    assert world.now_ns - start_ns == 300 * MILLISECOND
    world.drop = lambda src, dst, kind: False
    world.shut_down()


def test_images_with_other_slot_counts_agree_on_the_smaller_one() -> None:
    world = World(2)
    world.boot(1, 2, image(slots=5))
    world.connect()
    session = world[0].xpc.partitions[1].session
    assert session is not None
    opening = session.channels[0].opening
    assert opening is not None
    assert opening.sender.slots == 10
    world.shut_down()
