"""Numbered requests: carried out at most once, completed exactly once, whatever the wire does."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.xpc.world import World, answer, connected, ending, hold, image, reason
from xpmem_emu.codec import Buffer
from xpmem_emu.units import MILLISECOND, SECOND
from xpmem_emu.xpc.delivery import Arrival, ReceiveRing
from xpmem_emu.xpc.frame import Header, encode_frame
from xpmem_emu.xpc.messages import Evict, FindName, FindNameReply, Invalidate, Message
from xpmem_emu.xpc.reasons import Ending, Reason, XpcError
from xpmem_emu.xpc.slots import Patience, RequestOutcome
from xpmem_emu.xpc.wire import GENERATION_SHIFT, Packet

STUBBORN = Patience(100 * MILLISECOND, 1000, 60 * SECOND)
ANSWER = Packet("ACK", 0, 0, [])


# -- exactly once ------------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    loss=st.floats(0, 0.6),
    repeat=st.floats(0, 1),
    jitter_ms=st.integers(0, 400),
    slow_ms=st.integers(0, 400),
    calls=st.integers(1, 30),
)
def test_every_request_is_carried_out_once_and_completed_once(
    seed: int, loss: float, repeat: float, jitter_ms: int, slow_ms: int, calls: int
) -> None:
    world = World(2, seed, image(slots=4, heartbeat_check=3600 * SECOND))
    world.connect()
    node, draw = world[1], random.Random(seed)

    async def work(message: Message) -> Message:
        delay_ns = draw.randrange(slow_ms + 1) * MILLISECOND
        await node.scheduler.sleep_until(node.scheduler.now_ns + delay_ns)
        return answer(message)

    node.echo.work = work
    world.weather.loss, world.weather.repeat = loss, repeat
    world.weather.jitter_ns = jitter_ms * MILLISECOND
    names = [f"{'x' * (each + 1)}" for each in range(calls)]
    tasks = [world.ask(0, 1, name, STUBBORN) for name in names]
    assert world.run_until(lambda: all(task.done for task in tasks), 120 * SECOND)
    assert [task.result for task in tasks] == [(FindNameReply(len(name)), b"") for name in names]
    assert sorted(m.name for m in node.echo.served if isinstance(m, FindName)) == sorted(names)
    world.weather.loss = world.weather.repeat = world.weather.jitter_ns = 0
    world.run(SECOND)
    world.shut_down()


@given(st.lists(st.tuples(st.integers(0, 15), st.booleans()), max_size=200))
def test_a_ring_admits_a_number_once_in_whatever_order_they_come(
    arrivals: list[tuple[int, bool]],
) -> None:
    ring, running, done = ReceiveRing(4, 0), set[int](), set[int]()
    for number, finish in arrivals:
        arrival = ring.admit(number)
        if arrival is Arrival.NEW:
            assert number not in running | done
            running.add(number)
        elif arrival is Arrival.RUNNING:
            assert number in running
        elif arrival is Arrival.ANSWERED:
            assert number in done
        if finish and number in running:
            running.remove(number)
            done.add(number)
            ring.answer(number, ANSWER)
        assert ring.remembered <= 4


def test_a_number_from_another_opening_of_the_channel_is_never_run() -> None:
    ring = ReceiveRing(4, generation=2)
    first = 4 * (2 << GENERATION_SHIFT)
    assert ring.admit(first - 4) is Arrival.OLD
    assert ring.admit(4 * (3 << GENERATION_SHIFT)) is Arrival.IMPOSSIBLE
    assert ring.admit(first + 1) is Arrival.NEW


def test_a_new_number_in_a_slot_forgets_the_answer_of_the_old_one() -> None:
    world = connected(slots=1)
    for _ in range(3):
        task = world.ask(0, 1)
        assert world.run_until_done(task)
    assert world[1].xpc.audit()["remembered"] == 2  # one of MEM, one of ADMIN
    world.shut_down()


def test_a_repeated_request_gets_the_same_answer_and_is_not_carried_out_again() -> None:
    world = connected()
    lost = iter([True])
    world.drop = lambda src, dst, kind: kind == "FIND_NAME_REPLY" and next(lost, False)
    task = world.ask(0, 1)
    assert world.run_until(lambda: task.done)
    assert task.result == (FindNameReply(3), b"")
    assert len(world[1].echo.served) == 1
    assert [record.name for record in world[1].names("xpc:duplicate", "xpc:retransmit")] == [
        "xpc:retransmit",
        "xpc:duplicate",
    ]
    world.shut_down()


# -- slots -------------------------------------------------------------------------------------


def test_recalls_go_through_while_every_demand_slot_waits() -> None:
    world = connected(slots=3)
    let_go = hold(world, 1)
    faults = [world.ask(0, 1, f"{each}", STUBBORN) for each in range(10)]
    world.run(MILLISECOND)
    assert world[0].xpc.audit() == {
        "slots": 3,
        "waiting": 7,
        "remembered": 1,
        "admin": 0,
        "threads": 0,
    }
    held = world[1].echo.work

    async def work(message: Message) -> Message | tuple[Message, Buffer]:
        assert held is not None
        return answer(message) if isinstance(message, Invalidate | Evict) else await held(message)

    world[1].echo.work = work
    recalls = [
        world.owed(0, 1, request)
        for request in (Invalidate([]), Evict(1, []), Invalidate([]), Evict(2, []))
    ]
    assert world.run_until(lambda: all(task.done for task in recalls), 10 * MILLISECOND)
    assert [task.error for task in recalls] == [None] * 4
    assert not any(task.done for task in faults)
    let_go()
    assert world.run_until(lambda: all(task.done for task in faults))
    assert [m.name for m in world[1].echo.served if isinstance(m, FindName)] == [
        f"{each}" for each in range(10)
    ]
    world.shut_down()


def test_waiting_for_a_slot_ends_with_the_patience() -> None:
    world = connected(slots=2)
    let_go = hold(world, 1)
    tasks = [world.ask(0, 1, f"{each}", STUBBORN) for each in range(2)]
    late = world.ask(0, 1, "late", Patience(SECOND, 1, 300 * MILLISECOND))
    assert world.run_until(lambda: late.done, SECOND)
    assert reason(late) is Reason.TIMEOUT
    assert world[0].xpc.audit()["waiting"] == 0
    let_go()
    assert world.run_until(lambda: all(task.done for task in tasks))
    assert len(world[1].echo.served) == 2
    world.shut_down()


def test_whoever_waits_for_a_slot_hears_at_once_that_the_peer_is_given_up() -> None:
    world = connected(slots=2)
    hold(world, 1)
    tasks = [world.ask(0, 1, f"{each}", STUBBORN) for each in range(5)]
    world.run(MILLISECOND)
    world[0].xpc.deactivate(1, Reason.NO_HEARTBEAT, "test")
    world.run(0)
    assert [reason(task) for task in tasks] == [Reason.NO_HEARTBEAT] * 5


def test_an_answer_whose_session_ended_before_the_caller_ran_is_not_returned() -> None:
    world = connected()
    node, partition = world[0], world[0].xpc.partitions[1]
    world.drop = lambda src, dst, kind: kind == "FIND_NAME"
    task = world.ask(0, 1)
    world.run(0)
    header = Header(1, partition.remote.seen, partition.mine, 0, 0)
    node.xpc.receive([encode_frame(header, FindNameReply(3))])
    node.xpc.deactivate(1, Reason.NO_HEARTBEAT, "test")
    world.run(0)
    assert reason(task) is Reason.NO_HEARTBEAT


def test_post_tells_its_outcome_exactly_once_or_refuses_at_once() -> None:
    world = connected(slots=2)
    node, outcomes = world[0], list[RequestOutcome]()
    let_go = hold(world, 1)
    for name in ("a", "b"):
        node.xpc.post(1, 0, FindName(name), outcomes.append, patience=STUBBORN)
    with pytest.raises(XpcError) as refused:
        node.xpc.post(1, 0, FindName("c"), outcomes.append, patience=STUBBORN)
    assert refused.value.reason is Reason.NO_WAIT
    let_go()
    world.run(SECOND)
    assert outcomes == [(FindNameReply(1), b"")] * 2
    hold(world, 1)
    node.xpc.post(1, 0, FindName("d"), outcomes.append, patience=STUBBORN)
    node.xpc.deactivate(1, Reason.UNLOADING, "test")
    assert isinstance(outcomes[2], XpcError)
    assert outcomes[2].reason is Reason.UNLOADING
    assert len(outcomes) == 3


def test_a_request_that_runs_when_the_peer_is_given_up_finishes_but_is_not_answered() -> None:
    world = connected()
    let_go = hold(world, 1)
    task = world.ask(0, 1)
    world.run(MILLISECOND)
    world[1].xpc.deactivate(0, Reason.TIMEOUT, "test")
    world.run(100 * MILLISECOND)
    assert reason(task) is Reason.TIMEOUT
    assert world[1].xpc.audit()["threads"] == 1
    mark = len(world.sent)
    let_go()
    world.run(10 * MILLISECOND)
    assert world[1].xpc.audit()["threads"] == 0
    assert "FIND_NAME_REPLY" not in {kind for _, _, kind in world.sent[mark:]}
    world.connect()
    world.shut_down()


def test_a_peer_gets_no_session_while_its_old_threads_leave_no_room_for_one() -> None:
    """Each session's requests never end. The first ones after them still find their threads: what
    is asked and what is owed alike; there is no fifth session until there is room for it."""
    world = connected(slots=2, disengage_limit=100 * MILLISECOND)
    node, partition = world[1], world[1].xpc.partitions[0]
    let_go = hold(world, 1)
    held = node.echo.work

    async def work(message: Message) -> Message | tuple[Message, Buffer]:
        assert held is not None
        return answer(message) if isinstance(message, Invalidate) else await held(message)

    node.echo.work = work
    for session in range(1, 6):
        world.connect()
        recall = world.owed(0, 1, Invalidate([]))
        assert world.run_until_done(recall, limit_ns=MILLISECOND), session
        stuck = [world.ask(0, 1, patience=STUBBORN) for _ in range(2)]
        world.run(50 * MILLISECOND)
        world[0].xpc.deactivate(1, Reason.TIMEOUT, "test")
        assert world.run_until_done(*stuck)
    world.run(10 * SECOND)
    assert partition.threads == 10
    assert partition.place == "xpc/partition:threads"
    assert world[1].xpc.counters["refused"] == 0
    let_go()
    world.connect()
    assert partition.threads == 0
    world.shut_down()


def test_a_slot_whose_numbers_are_used_up_ends_its_session_and_the_next_begins_anew() -> None:
    world = connected(slots=2)
    world[0].xpc.number_from(1 << 50)
    asked = [world.ask(0, 1, f"{each}") for each in range(2)]  # one last number for each slot
    assert world.run_until(lambda: all(task.done for task in asked))
    assert [task.error for task in asked] == [None, None]
    task = world.ask(0, 1)
    assert world.run_until(lambda: task.done)
    assert ending(task) is Ending.NOT_SENT
    assert world[0].xpc.partitions[1].place == "xpc/slots:numbers"
    world.connect()
    task = world.ask(0, 1)
    assert world.run_until(lambda: task.done)
    assert task.result == (FindNameReply(3), b"")
    world.shut_down()


@pytest.mark.parametrize("number", [1 << 31, 1 << 32, (1 << 40) - 1])
def test_numbers_may_be_strained_as_far_as_the_command_allows(number: int) -> None:
    world = connected(slots=2)
    world[0].xpc.number_from(number)
    for _ in range(30):
        task = world.ask(0, 1)
        assert world.run_until_done(task)
        assert task.error is None
    assert world[0].xpc.partitions[1].counters.activations == 1
    world.shut_down()
