"""Three partitions over tcp, 5 ms and one lost message in a hundred apart, under load and failures.

The network is made bad by traffic control (netem) on the host's side of every container's link,
where the kernel has it; else by the emulator's own rules, which lose messages and not packets, so
nothing below them repairs the loss. Which of the two it was is printed.
"""

import random
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.containers.conftest import command
from tests.live.load import Client, Market
from tests.live.loops import let_pass
from xpmem_emu.backend.compose_backend import ComposeBackend
from xpmem_emu.backend.interface import Unanswered, peer_state
from xpmem_emu.cluster.docker import containers
from xpmem_emu.judge.checkers.teardown import FIXED
from xpmem_emu.judge.streams import StreamsEnd
from xpmem_emu.kernel.calls import Audit
from xpmem_emu.scenario.story import read_story
from xpmem_emu.units import SECOND

ROUNDS = 6
SEED = 4
PATIENCE_NS = 60 * SECOND
STORY = """
name = "bad-network"
title = "random load and failures over a slow network that loses"
shows = ""
[cluster]
partitions = 3
[story]
setup = "task = p0 spawn"
"""


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[ComposeBackend]:
    path = tmp_path / "bad-network.toml"
    path.write_text(STORY)
    made = ComposeBackend(read_story(path), SEED)
    try:
        made.up()
        yield made
    finally:
        made.down()


def interfaces(cluster: str) -> list[str]:
    """The host's ends of all links of the containers."""
    pids = [str(one.pid) for one in containers(cluster)]
    numbers = {
        line.split(":")[0]
        for pid in pids
        for line in command("nsenter", "-t", pid, "-n", "ip", "-o", "link").splitlines()
        for line in [line.split("@if")[-1]]
        if line[0].isdigit()
    }
    return [
        line.split(": ")[1].split("@")[0]
        for line in command("ip", "-o", "link").splitlines()
        if line.split(":")[0] in numbers and "@if" in line
    ]


def worsen_by_netem(cluster: str) -> bool:
    """Delay and loss on every link; False when this kernel or this user cannot."""
    words = ["root", "netem", "delay", "5ms", "loss", "1%"]
    return all(
        subprocess.run(
            ["tc", "qdisc", "replace", "dev", interface, *words], capture_output=True
        ).returncode
        == 0
        for interface in interfaces(cluster)
    )


def worsen(ground: ComposeBackend) -> str:
    """Make the network bad, also for what has booted since the last time; by what."""
    if worsen_by_netem(ground.cluster):
        return "netem"
    ground.heal()
    ground.put_up("latency 5ms --name slow")
    ground.put_up("loss 0.01 --name losing")
    return "rules"


def apart(ground: ComposeBackend) -> list[str]:
    """Who is not active with whom."""
    names = ground.partitions
    return [
        f"{one} sees {peer} {state}"
        for one in names
        for peer in names
        if one != peer and (state := peer_state(ground, one, peer)) != "ACTIVE"
    ]


def leftovers(ground: ComposeBackend) -> list[str]:
    """What any partition still counts."""
    return [
        f"{count} {key} on {name}"
        for name in ground.running
        for key, count in dict(ground.ask(name, Audit())).items()
        if count and key not in FIXED
    ]


def until_none(ground: ComposeBackend, faults: Callable[[ComposeBackend], list[str]]) -> None:
    """Wait until nothing is found; a partition that does not answer yet is asked again."""
    found: list[str] = []

    def none() -> bool:
        try:
            found[:] = faults(ground)
        except Unanswered as silence:
            found[:] = [str(silence)]
        return not found

    assert ground.wait(none, PATIENCE_NS), f"seed {SEED}: {found}"


def one_round(ground: ComposeBackend, rng: random.Random) -> str:
    """Break one partition from outside and mend it; which and how."""
    breaking, mending = rng.choice(
        [("crash", "boot"), ("hang", "resume"), ("cut", "mend"), ("reboot", "resume")]
    )
    name = rng.choice(list(ground.partitions))
    getattr(ground, breaking)(name)
    let_pass(rng.uniform(0, 1.5))
    getattr(ground, mending)(name)
    return f"{breaking} {name}"


def test_three_partitions_over_a_bad_network_stay_correct(ground: ComposeBackend) -> None:
    rng, market, stop = random.Random(SEED), Market(), threading.Event()
    clients = [
        Client(ground.cluster, name, market, f"{SEED}/{name}", stop) for name in ground.partitions
    ]
    for client in clients:
        client.start()
    done: Counter[str] = Counter()
    try:
        for number in range(ROUNDS):
            done[worsen(ground)] += 1
            done[one_round(ground, rng)] += 1
            print(f"round {number}: {dict(done)}")
            until_none(ground, apart)
    finally:
        stop.set()
        for client in clients:
            client.join(PATIENCE_NS / SECOND)
    assert [text for client in clients for text in client.wrong] == []
    assert not any(client.is_alive() for client in clients)
    ground.heal()
    until_none(ground, leftovers)
    assert [str(found) for found in ground.judge(StreamsEnd.AT_REST)] == []
    calls = sum((client.outcomes for client in clients), Counter[str]())
    print(f"seed {SEED}: {dict(done)}, {sum(calls.values())} calls, {len(ground.records())} events")
    assert sum(count for name, count in calls.items() if name.endswith(" ok")) > 100
