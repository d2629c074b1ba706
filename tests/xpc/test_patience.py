"""How long an answer is waited for, and what it says about a peer that there is none.

Only a peer that shows no sign of life while somebody waits, or does not do what it owes, is given
up; a caller that leaves, for whatever reason of its own, judges nobody.
"""

from tests.xpc.world import PATIENCE, answer, connected, ending, hold, reason
from xpmem_emu.units import MILLISECOND, SECOND
from xpmem_emu.xpc.messages import (
    Evict,
    FindName,
    FindNameReply,
    Invalidate,
    InvalidateAck,
    Message,
)
from xpmem_emu.xpc.reasons import Ending, Reason
from xpmem_emu.xpc.slots import Patience


def test_a_peer_that_says_pending_is_waited_for_longer_than_its_attempts() -> None:
    world = connected()
    let_go = hold(world, 1)
    task = world.ask(0, 1, patience=Patience(100 * MILLISECOND, 2, 5 * SECOND))
    world.run(2 * SECOND)
    assert not task.done
    assert world[0].xpc.counters["pendings"] >= 10
    let_go()
    assert world.run_until(lambda: task.done)
    assert task.result == (FindNameReply(3), b"")
    world.shut_down()


def test_silence_for_all_attempts_gives_the_peer_up_and_tells_the_listener_first() -> None:
    world = connected()
    node = world[0]
    world.drop = lambda src, dst, kind: kind == "FIND_NAME"
    order: list[str] = []

    def partition_down(partid: int, incarnation: int, why: Reason, place: str) -> None:
        order.append("listener")

    node.listener.partition_down = partition_down  # type: ignore[method-assign, assignment]

    async def ask() -> None:
        try:
            await node.xpc.call_killable(1, 0, FindName("x"), patience=PATIENCE)
        finally:
            order.append("caller")

    start_ns = world.now_ns
    task = node.spawn(ask())
    assert world.run_until(lambda: task.done)
    assert reason(task) is Reason.TIMEOUT
    assert world.now_ns - start_ns == PATIENCE.attempt_ns * PATIENCE.tries
    assert order == ["listener", "caller"]
    assert node.links_down == [1]
    world.drop = lambda src, dst, kind: False
    world.connect()
    world.shut_down()


def test_an_abandoned_request_keeps_its_slot_until_its_late_reply() -> None:
    world = connected(slots=2)
    let_go = hold(world, 1)
    task = world.ask(0, 1, patience=Patience(50 * MILLISECOND, 3, 400 * MILLISECOND))
    assert world.run_until(lambda: task.done, SECOND)
    assert reason(task) is Reason.TIMEOUT
    world.run(2 * SECOND)
    assert world[0].xpc.audit()["slots"] == 1
    assert world.all_active()
    let_go()
    world.run(SECOND)
    assert world[0].xpc.audit()["slots"] == 0
    assert world[0].echo.calls[-1] == ("late", 1, FindName("abc"), FindNameReply(3))
    assert len(world[1].echo.served) == 1
    world.shut_down()


def test_a_killed_caller_leaves_at_once_and_its_request_completes_without_it() -> None:
    world = connected()
    let_go = hold(world, 1)
    task = world.ask(0, 1)
    world.run(MILLISECOND)
    world[0].scheduler.kill(task.thread)
    world.run(0)
    assert reason(task) is Reason.INTERRUPTED
    let_go()
    world.run(SECOND)
    assert world[0].echo.calls[-1][0] == "late"
    world.shut_down()


def test_a_thread_killed_before_it_calls_sends_nothing() -> None:
    world = connected()
    task = world.ask(0, 1)
    task.thread.killed = True
    world.run(SECOND)
    assert reason(task) is Reason.INTERRUPTED
    assert ending(task) is Ending.KILLED_BEFORE
    assert not Ending.KILLED_BEFORE.sent
    assert world[1].echo.served == []
    world.shut_down()


def test_an_abandoned_request_is_sent_on_until_it_is_answered_and_judges_nobody() -> None:
    world = connected()
    world.drop = lambda src, dst, kind: kind == "FIND_NAME"
    killed, patient = world.ask(0, 1), world.ask(0, 1, patience=Patience(SECOND, 1, 300_000_000))
    world.run(MILLISECOND)
    world[0].scheduler.kill(killed.thread)
    world.run(30 * SECOND)
    assert (ending(killed), ending(patient)) == (Ending.INTERRUPTED, Ending.TIMED_OUT)
    assert world.all_active()
    assert world[0].xpc.counters["retransmissions"] > 100
    assert world[0].xpc.audit()["slots"] == 2
    world.drop = lambda src, dst, kind: False
    world.run(SECOND)
    assert world[0].xpc.audit()["slots"] == 0
    assert len(world[1].echo.served) == 2
    world.shut_down()


# -- what is owed ------------------------------------------------------------------------------


def test_no_signal_ends_the_wait_for_what_a_peer_owes() -> None:
    world = connected()
    let_go = hold(world, 1)
    task = world.owed(0, 1, Invalidate([]))
    world.run(MILLISECOND)
    world[0].scheduler.kill(task.thread)
    world.run(SECOND)
    assert not task.done
    let_go()
    assert world.run_until(lambda: task.done)
    assert task.result == InvalidateAck()
    assert world.all_active()
    world.shut_down()


def test_a_peer_that_says_pending_for_as_long_as_it_has_is_given_up_for_what_it_owes() -> None:
    world = connected()
    hold(world, 1)
    start_ns = world.now_ns
    task = world.owed(0, 1, Invalidate([]))
    assert world.run_until(lambda: task.done)
    assert world.now_ns - start_ns == PATIENCE.wait_max_ns
    assert (ending(task), reason(task)) == (Ending.SESSION_ENDED, Reason.TIMEOUT)
    assert world[0].xpc.partitions[1].place == "xpc/slots:overdue"


def test_what_is_owed_waits_for_a_slot_longer_than_the_peer_may_take() -> None:
    """That we have more to ask than slots is not the peer's fault."""
    world = connected(slots=2)
    node = world[1]

    async def work(message: Message) -> Message:
        await node.scheduler.sleep_until(node.scheduler.now_ns + SECOND)
        return answer(message)

    node.echo.work = work
    tasks = [world.owed(0, 1, Evict(each + 1, [])) for each in range(12)]
    assert world.run_until(lambda: all(task.done for task in tasks), 20 * SECOND)
    assert [task.error for task in tasks] == [None] * 12
    assert world.all_active()
    world.shut_down()


def test_what_is_owed_in_a_session_that_is_over_is_not_asked_in_the_next() -> None:
    world = connected()
    node = world[0]
    session = node.xpc.incarnation(1)
    assert session is not None
    node.xpc.deactivate(1, Reason.NO_HEARTBEAT, "test")
    world.run(SECOND)
    world.connect()
    task = node.spawn(node.xpc.call(1, 0, session, Evict(1, []), patience=PATIENCE))
    assert world.run_until(lambda: task.done)
    assert not ending(task).sent
    assert world[1].echo.served == []
    node.xpc.condemn(1, session, Reason.TIMEOUT, "for what it did in the old session")
    assert world.all_active()
    world.shut_down()


def test_a_peer_that_closes_its_channel_still_owes_what_it_was_asked() -> None:
    """An outcome that left both the session and the holder as they are would be the worst."""
    world = connected()
    let_go = hold(world, 1)
    task = world.owed(0, 1, Invalidate([]))
    world.run(MILLISECOND)
    closing = world[1].spawn(world[1].xpc.unregister(0))
    world.run(100 * MILLISECOND)
    assert not task.done
    let_go()
    assert world.run_until(lambda: closing.done and task.done)
    assert ending(task) is Ending.NOT_SENT
    assert world[0].xpc.incarnation(1) is None
    assert "not_taken" in world[0].xpc.partitions[1].place
    world[1].xpc.register(0, world[1].echo)
    world.connect()
    world.shut_down()
