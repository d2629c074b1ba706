"""Leaving in order, and dying."""

import pytest

from tests.xpc.world import World, assert_nothing_left, ending, hold, image
from xpmem_emu.units import MILLISECOND, SECOND
from xpmem_emu.xpc.activation import ActState
from xpmem_emu.xpc.messages import FindNameReply, Invalidate, Message
from xpmem_emu.xpc.reasons import Ending, Reason, XpcError


def test_shutdown_tells_every_peer_why_and_leaves_nothing() -> None:
    world = World(3)
    world.connect()
    task = world[0].spawn(world[0].xpc.shutdown(Reason.SYSTEM_REBOOT))
    assert world.run_until(lambda: task.done, 100 * MILLISECOND)
    world.run(SECOND)
    assert_nothing_left(world[0])
    for peer in (1, 2):
        assert world[peer].listener.calls[-1][3] is Reason.SYSTEM_REBOOT
        assert world[peer].state(0) is ActState.INACTIVE
        assert world[peer].state(3 - peer) is ActState.ACTIVE


def test_a_partition_that_stops_is_not_found_by_discovery_any_more() -> None:
    world = World(2)
    world.connect()
    task = world[0].spawn(world[0].xpc.shutdown(Reason.UNLOADING))
    assert world.run_until(lambda: task.done)
    world.run(5 * SECOND)
    partition = world[1].xpc.partitions[0]
    assert partition.state is ActState.INACTIVE
    assert partition.reason is Reason.RSVD_PAGE_NOT_SET


def test_shutdown_ends_within_the_disengage_limit_when_peers_are_dead() -> None:
    world = World(3)
    world.connect()
    world[1].stopped = world[2].stopped = True
    start_ns = world.now_ns
    task = world[0].spawn(world[0].xpc.shutdown(Reason.UNLOADING))
    assert world.run_until(lambda: task.done)
    assert world.now_ns - start_ns <= 2 * SECOND
    world.run(SECOND)
    assert_nothing_left(world[0])


def test_shutdown_does_not_wait_for_a_handler_that_never_returns() -> None:
    world = World(2)
    world.connect()
    node = world[1]

    async def work(message: Message) -> Message:
        await node.scheduler.sleep_until(node.scheduler.now_ns + 3600 * SECOND)
        return FindNameReply(1)

    node.echo.work = work
    world.ask(0, 1)
    world.run(MILLISECOND)
    task = node.spawn(node.xpc.shutdown(Reason.UNLOADING))
    assert world.run_until(lambda: task.done, 3 * SECOND)
    assert node.xpc.audit()["threads"] == 1
    assert node.echo.calls == [("connected", 0), ("disconnected", 0, Reason.UNLOADING)]


def test_a_peer_that_missed_the_end_is_told_when_it_is_heard_of_again() -> None:
    world = World(2, config=image(heartbeat_check=3600 * SECOND))
    world.connect()
    world.cut.add((0, 1))
    task = world[0].spawn(world[0].xpc.shutdown(Reason.UNLOADING))
    assert world.run_until(lambda: task.done)
    assert world[1].state(0) is ActState.ACTIVE
    world.cut.clear()
    world.run(200 * MILLISECOND)
    assert world[1].listener.calls[-1][3] is Reason.UNLOADING


def test_callers_of_a_peer_that_shuts_down_get_its_reason() -> None:
    world = World(2)
    world.connect()
    world.drop = lambda src, dst, kind: kind == "FIND_NAME"
    task = world.ask(0, 1)
    world.run(MILLISECOND)
    world[1].spawn(world[1].xpc.shutdown(Reason.SYSTEM_HALT))
    assert world.run_until(lambda: task.done, 10 * MILLISECOND)
    assert isinstance(task.error, XpcError)
    assert (task.error.reason, task.error.partid, task.error.place) == (Reason.SYSTEM_HALT, 1, "p1")


def test_our_own_shutdown_ends_every_request_wherever_it_waits() -> None:
    """For its answer, for a slot, for the channel; asked or owed."""
    world = World(3, config=image(slots=2))
    world.connect()
    world.drop = lambda src, dst, kind: kind in ("FIND_NAME", "INVALIDATE") or dst == 2
    closed = world[2].spawn(world[2].xpc.unregister(0))
    world.run(MILLISECOND)
    tasks = [world.ask(0, 1) for _ in range(4)]
    tasks += [world.owed(0, 1, Invalidate([])) for _ in range(4)]
    tasks += [world.ask(0, 2), world.owed(0, 2, Invalidate([]))]
    world.run(MILLISECOND)
    assert not any(task.done for task in tasks)
    world[0].spawn(world[0].xpc.shutdown(Reason.UNLOADING))
    world.run(10 * MILLISECOND)
    assert [task.done for task in tasks] == [True] * 10
    assert {ending(task) for task in tasks} == {Ending.SESSION_ENDED, Ending.NOT_SENT}
    world.drop = lambda src, dst, kind: False
    assert world.run_until(lambda: closed.done)


def test_a_crash_tells_the_peers_at_once_and_changes_nothing_here() -> None:
    world = World(3)
    world.connect()
    mark = len(world.sent)
    world[0].xpc.crash()
    assert world.sent[mark:] == [(0, 1, "DEACTIVATE_REQ"), (0, 2, "DEACTIVATE_REQ")]
    assert world[0].state(1) is ActState.ACTIVE
    world[0].stopped = True
    world.run(MILLISECOND)
    for peer in (1, 2):
        assert world[peer].listener.calls[-1][3] is Reason.SYSTEM_GOING_DOWN


@pytest.mark.parametrize("peers", [1, 2])
def test_a_listener_that_gives_the_peer_up_at_once_is_obeyed(peers: int) -> None:
    world = World(1 + peers)
    node = world[0]
    refuse = [True]

    def partition_up(partid: int, page: object, incarnation: int) -> None:
        node.listener.calls.append(("up", partid, 1, incarnation))
        if refuse[0]:
            node.xpc.deactivate(partid, Reason.PHYS_ADDR_REG_FAILED, "arena")

    node.listener.partition_up = partition_up  # type: ignore[method-assign]
    world.run(SECOND)
    downs = [call[3] for call in node.listener.calls if call[0] == "down"]
    assert set(downs) == {Reason.PHYS_ADDR_REG_FAILED}
    assert node.names("xpc:channel") == []
    refuse[0] = False
    world.connect()
    world.shut_down()


def test_who_halts_first_leaves_nobody_waiting_for_its_answer() -> None:
    """As when a whole cluster is taken down: nobody is there to answer who asks last."""
    world = World(2)
    world.connect()
    let_go = hold(world, 0)
    world.ask(1, 0)
    world.run(MILLISECOND)
    first, last = (world[each].spawn(world[each].xpc.shutdown(Reason.UNLOADING)) for each in (0, 1))
    world.run(MILLISECOND)
    let_go()
    assert world.run_until(lambda: first.done)
    world[0].stopped = True
    assert world.run_until(lambda: last.done, 10 * MILLISECOND)
