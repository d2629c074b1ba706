"""Everything at once, seeded: loss, cuts, reboots, deactivations, calls. Then heal: all must work.

The seed of a failure is in the test's name.
"""

import random

import pytest

from tests.xpc.world import Node, Task, Work, World
from xpmem_emu.units import MILLISECOND, SECOND
from xpmem_emu.xpc.messages import FindName, FindNameReply, Message
from xpmem_emu.xpc.reasons import Reason, XpcError

SEEDS = range(40)


def slow(node: Node, draw: random.Random) -> Work:
    """A handler that takes its time: often none, sometimes more than the caller has."""

    async def work(message: Message) -> Message:
        await node.scheduler.sleep_until(
            node.scheduler.now_ns + draw.choice([0, 0, 50, 400, 2500]) * MILLISECOND
        )
        assert isinstance(message, FindName)
        return FindNameReply(len(message.name))

    return work


def check_listener(node: Node) -> None:
    """Per peer: up and down alternate, each session has a new incarnation, gone follows down, and
    of one boot nothing comes up before the session before is gone."""
    up: dict[object, object] = {}
    last: dict[object, int] = {}
    down: dict[object, list[int]] = {}
    for call in node.listener.calls:
        match call:
            case ("up", peer, _, int(incarnation)):
                assert peer not in up
                assert incarnation > last.get(peer, 0)
                assert not [one for one in down.get(peer, []) if one >> 16 == incarnation >> 16]
                up[peer] = last[peer] = incarnation
            case ("down", peer, int(incarnation), _):
                assert up.pop(peer) == incarnation
                down.setdefault(peer, []).append(incarnation)
            case ("gone", peer, int(incarnation)):
                down[peer].remove(incarnation)


def late(task: Task) -> bool:
    """Whether the answer took longer than the caller's patience, and nothing else."""
    return isinstance(task.error, XpcError) and "wait_max" in task.error.place


def check_exactly_once(world: World, asked: dict[str, object], retired: list[Node]) -> None:
    """No name was served twice, and an answered one was served."""
    served = [
        message.name
        for node in [*world.nodes.values(), *retired]
        for message in node.echo.served
        if isinstance(message, FindName)
    ]
    assert len(served) == len(set(served))
    assert {name for name, answer in asked.items() if answer is not None} <= set(served)


@pytest.mark.parametrize("seed", SEEDS)
def test_after_any_storm_every_pair_is_active_again_and_nothing_was_done_twice(seed: int) -> None:
    draw = random.Random(f"storm {seed}")
    count = draw.choice([2, 2, 3])
    world = World(
        count,
        seed,
        loss=draw.choice([0.0, 0.1, 0.3]),
        repeat=draw.choice([0.0, 0.2]),
        jitter_ns=draw.choice([0, 2 * MILLISECOND, 300 * MILLISECOND]),
    )
    for node in world.nodes.values():
        node.echo.work = slow(node, draw)
    retired: list[Node] = []
    boots = dict.fromkeys(world.partids, 1)
    tasks = {}
    for step in range(60):
        world.run(draw.randrange(200) * MILLISECOND)
        a, b = draw.sample(world.partids, 2)
        match draw.randrange(12):
            case 0:
                boots[a] += 1
                retired.append(world[a])
                node = world.boot(a, boots[a])
                node.echo.work = slow(node, draw)
            case 1:
                world[a].xpc.deactivate(b, Reason.TIMEOUT, "storm")
            case 2:
                world.cut.add((a, b))
            case 3 | 4:
                world.cut.clear()
            case _:
                tasks[f"{step}"] = world.ask(a, b, f"{step}")
    world.cut.clear()
    world.weather.loss = world.weather.repeat = 0
    world.weather.jitter_ns = 0
    assert world.run_until(lambda: world.all_active() and world.all_connected(), 30 * SECOND)
    world.run(10 * SECOND)
    assert world.all_active()
    for a in world.partids:
        for b in world.partids:
            if a != b:
                task = world.ask(a, b, f"{a}to{b}")
                assert world.run_until_done(task, limit_ns=4 * SECOND)
                assert task.result == (FindNameReply(4), b"") or late(task)
    check_exactly_once(world, {name: task.result for name, task in tasks.items()}, retired)
    world.shut_down()
    for node in [*world.nodes.values(), *retired]:
        check_listener(node)
