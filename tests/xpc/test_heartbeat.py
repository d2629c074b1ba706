"""Only the counter is progress."""

import pytest

from tests.xpc.world import World, image
from xpmem_emu.image import XpcSection
from xpmem_emu.units import MILLISECOND, SECOND
from xpmem_emu.xpc.activation import ActState
from xpmem_emu.xpc.frame import Header, encode_frame
from xpmem_emu.xpc.messages import Heartbeat
from xpmem_emu.xpc.reasons import Reason
from xpmem_emu.xpc.remote import Remote


def test_a_peer_that_stops_counting_is_given_up_between_one_and_two_checks() -> None:
    world = World(2)
    world.connect()
    world[1].stopped = True
    start_ns = world.now_ns
    assert world.run_until(lambda: world[0].state(1) is ActState.DEACTIVATING)
    partition = world[0].xpc.partitions[1]
    assert (partition.reason, partition.place) == (Reason.NO_HEARTBEAT, "xpc/heartbeat:check")
    assert 300 * MILLISECOND <= world.now_ns - start_ns <= 800 * MILLISECOND


def test_frames_without_a_new_counter_are_not_progress() -> None:
    world = World(2)
    world.connect()
    world.drop = lambda src, dst, kind: src == 1 and kind == "HEARTBEAT"

    async def chat() -> None:
        while True:
            await world[0].scheduler.sleep_until(world.now_ns + 20 * MILLISECOND)
            world.ask(0, 1)

    world[0].spawn(chat())
    assert world.run_until(lambda: world[0].state(1) is ActState.DEACTIVATING, SECOND)
    assert world[0].xpc.partitions[1].reason is Reason.NO_HEARTBEAT
    assert len(world[1].echo.served) > 10


def test_a_repeated_or_overtaken_heartbeat_is_not_progress() -> None:
    remote = Remote()
    assert remote.beat(7, False)
    assert remote.progressed()
    assert not remote.beat(7, False)
    assert not remote.beat(3, True)
    assert not remote.progressed()
    assert not remote.offline


def test_a_peer_that_went_offline_is_not_missed() -> None:
    world = World(2)
    world.connect()
    world[1].xpc.heart.go_offline()
    world.run(200 * MILLISECOND)
    world[1].stopped = True
    world.run(5 * SECOND)
    assert world[0].state(1) is ActState.ACTIVE


def test_lost_heartbeats_are_forgiven_as_long_as_one_comes_between_two_checks() -> None:
    world = World(2, 5, image(heartbeat_check=2 * SECOND), loss=0.5)
    assert world.run_until(world.all_active)
    world.run(20 * SECOND)
    assert world.all_active()


def test_who_comes_late_to_a_check_listens_before_it_judges() -> None:
    """Its own step took long: what the peer said meanwhile is there to be read."""
    world = World(2)
    world.connect()
    # Checked just now: what came since is all that the next check goes by.
    checked_ns = world.now_ns
    assert world.run_until(
        lambda: (
            world[0].xpc.partitions[1].remote.checked == world[0].xpc.partitions[1].remote.heartbeat
        )
    )
    world.drop = lambda src, dst, kind: dst == 0
    stood_ns = world.now_ns - checked_ns + SECOND
    world[0].scheduler.run(world.now_ns + stood_ns)
    assert world[0].state(1) is ActState.ACTIVE
    # Who is silent is given up all the same, a moment later.
    world.now_ns += stood_ns
    assert world.run_until(lambda: world[0].state(1) is not ActState.ACTIVE, SECOND)


def test_a_partition_that_was_stopped_rejoins_in_a_new_session() -> None:
    world = World(2)
    world.connect()
    world[1].stopped = True
    world.run(10 * SECOND)
    assert world[0].state(1) is ActState.INACTIVE
    world[1].stopped = False
    world.connect()
    assert [call[0] for call in world[0].listener.calls] == ["up", "down", "gone", "up"]
    world.shut_down()


def test_a_new_session_has_one_whole_check_to_show_its_first_heartbeat() -> None:
    world = World(2)
    world.connect()
    world[1].stopped = True
    world.run(5 * SECOND)
    world.drop = lambda src, dst, kind: src == 1 and kind == "HEARTBEAT"
    world[1].stopped = False
    assert world.run_until(lambda: world[0].state(1) is ActState.ACTIVE)
    world.run(399 * MILLISECOND)
    assert world[0].state(1) is ActState.ACTIVE
    assert world.run_until(lambda: world[0].state(1) is not ActState.ACTIVE, 402 * MILLISECOND)


def test_heartbeats_are_not_in_the_event_stream() -> None:
    world = World(2)
    world.connect()
    world.run(MILLISECOND)
    counts = [node.tracer.count for node in world.nodes.values()]
    world.run(10 * SECOND)
    assert [node.tracer.count for node in world.nodes.values()] == counts
    assert sum(kind == "HEARTBEAT" for _, _, kind in world.sent) > 150
    world.shut_down()


@pytest.mark.parametrize("offline", [False, True])
def test_a_heartbeat_from_the_end_of_time_costs_its_session_and_no_later_one(offline: bool) -> None:
    """Damaged or forged, no later value is larger, so nothing looks like progress any more."""
    world = World(2)
    world.connect()
    partition = world[0].xpc.partitions[1]
    header = Header(1, partition.remote.seen, partition.mine, 2, 0)
    beat = Heartbeat((1 << 63) - 1, offline, ActState.ACTIVE, True)
    world[0].xpc.receive([encode_frame(header, beat)])
    world[1].xpc.deactivate(0, Reason.TIMEOUT, "test") if offline else world.run(SECOND)
    assert world.run_until(lambda: partition.counters.activations == 2 and world.all_active())
    world.run(10 * SECOND)
    assert partition.counters.activations == 2
    world[1].stopped = True
    assert world.run_until(lambda: world[0].state(1) is not ActState.ACTIVE, SECOND)


def test_a_partition_sends_no_more_heartbeats_a_second_the_more_peers_it_has() -> None:
    few, many = (
        XpcSection(heartbeat_peers=3).heartbeats(3),
        XpcSection(heartbeat_peers=3).heartbeats(15),
    )
    assert few == (100 * MILLISECOND, 400 * MILLISECOND)
    assert many == (500 * MILLISECOND, 2 * SECOND)

    def beats(partitions: int) -> int:
        world = World(partitions, config=image(heartbeat_peers=1))
        world.connect()
        sent = 0

        def count(src: int, dst: int, kind: str) -> bool:
            nonlocal sent
            sent += src == 0 and kind == "HEARTBEAT"
            return False

        world.drop = count
        world.run(10 * SECOND)
        assert world.all_active()
        return sent

    assert abs(beats(2) - beats(6)) <= 5


def test_in_a_larger_cluster_a_peer_that_stops_counting_is_given_up_as_many_times_later() -> None:
    world = World(5, config=image(heartbeat_peers=1))
    world.connect()
    world[1].stopped = True
    start_ns = world.now_ns
    assert world.run_until(lambda: world[0].state(1) is ActState.DEACTIVATING)
    assert 1200 * MILLISECOND <= world.now_ns - start_ns <= 3200 * MILLISECOND
