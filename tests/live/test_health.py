"""The health probe: what it asks, what others' failures change about the answer, what it costs."""

import asyncio
import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from xpmem_emu import health
from xpmem_emu.backend import processes
from xpmem_emu.cluster.paths import run_folder
from xpmem_emu.cluster.state import ClusterState
from xpmem_emu.codec import Buffer
from xpmem_emu.kernel.calls import Call
from xpmem_emu.kernel.interface import Done, Failed, Outcome
from xpmem_emu.live.driver import Driver, OnOutcome
from xpmem_emu.live.health import HealthServer

from .conftest import Up

PROBE = Path(sys.executable).with_name("xpmem-emu-health")
CPU_S = 0.05
HEAVY = {
    "asyncio",
    "click",
    "msgpack",
    "msgspec",
    "numpy",
    "pathlib",
    "rich",
    "subprocess",
    "typing",
    "uvloop",
    "yaml",
    "zmq",
}


def probe(*words: str, name: str = "t") -> tuple[int, list[str]]:
    """Exit code and lines of the installed probe."""
    done = subprocess.run(
        [PROBE, *words],
        capture_output=True,
        text=True,
        timeout=30,
        env=os.environ | {"XPMEM_EMU_CLUSTER": name},
    )
    return done.returncode, (done.stdout + done.stderr).splitlines()


def active_with(count: int, state: ClusterState) -> None:
    """Wait until p0 says that it is active with so many; each question is an answer of its own."""
    path = str(Path(state.run_folder) / "p0.health")
    while not health.probe(path, health.READY).startswith(f"ready, active with {count} "):
        continue


@pytest.mark.live
def test_partitions_are_live_and_ready_whatever_becomes_of_the_others(up: Up) -> None:
    state = up(3)
    assert probe("live") == (0, ["p0: live", "p1: live", "p2: live"])
    assert probe("ready", "p0") == (0, ["p0: ready, active with 2 of 2 peers"])
    processes.crash("t", "p2")
    active_with(1, state)
    assert probe("live", "p0") == (0, ["p0: live"])
    assert probe("ready", "p0") == (0, ["p0: ready, active with 1 of 2 peers"])
    code, lines = probe("live")
    assert (code, lines[:2]) == (1, ["p0: live", "p1: live"])
    assert lines[2].startswith("p2: not live: ")
    processes.boot("t", "p2")
    assert probe("ready", "p2")[0] == 0
    processes.hang("t", "p1")
    with pytest.raises(TimeoutError):
        health.probe(str(Path(state.run_folder) / "p1.health"), health.LIVE, 0.2)


def test_nobody_there_is_not_healthy_and_wrong_words_are_usage(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert probe() == (1, [f"no partition has booted in {tmp_path}/xpmem-emu/t"])
    assert probe("live", "p7") == (1, ["p7: not live: No such file or directory"])
    usage = (64, ["usage: xpmem-emu-health [live|ready|metrics] [PARTITION], or serve PORT"])
    assert probe("well") == probe("live", "p0", "p1") == usage


@pytest.mark.parametrize("runtime", ["/run/x", ""])
@pytest.mark.parametrize("name", ["mine", "default"])
def test_the_probe_looks_where_partitions_are(
    monkeypatch: pytest.MonkeyPatch, runtime: str, name: str
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
    monkeypatch.setenv("XPMEM_EMU_CLUSTER", name if name != "default" else "")
    assert health.folder() == str(run_folder(name))


def test_the_probe_costs_next_to_nothing() -> None:
    costs = []
    for _ in range(7):
        process = subprocess.Popen([PROBE, "live", "p0"], stdout=subprocess.DEVNULL)
        _, _, used = os.wait4(process.pid, 0)
        process.returncode = 1
        costs.append(used.ru_utime + used.ru_stime)
    print(f"processor time of a probe: {min(costs):.3f} s to {max(costs):.3f} s")
    assert min(costs) <= CPU_S


def test_the_probe_imports_nothing_heavy() -> None:
    text = "import xpmem_emu.health, sys; print(*{name.partition('.')[0] for name in sys.modules})"
    # Without site: that of a virtual environment may import what it likes.
    bare = [sys.executable, "-S", "-c", text]
    modules = subprocess.check_output(bare, text=True, cwd=Path(__file__).parents[2]).split()
    assert HEAVY & set(modules) == set()


# -- the partition's side, alone --------------------------------------------------------------


class Kept:
    """A driver whose kernel answers when the test wants it to."""

    def __init__(self) -> None:
        self.answers: list[OnOutcome] = []

    def call(self, _call: Call, _bulk: Buffer, answer: OnOutcome) -> None:
        self.answers.append(answer)

    def give(self, outcome: Outcome) -> None:
        """Answer all."""
        answers, self.answers = self.answers, []
        for answer in answers:
            answer(outcome)


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def path(loop: asyncio.AbstractEventLoop, kept: Kept, tmp_path: Path) -> Iterator[str]:
    """Where a partition answers whose loop is `loop`."""
    made = tmp_path / "p0.health"
    made.touch()  # an earlier boot was killed
    served = HealthServer(loop, made, cast(Driver, kept))
    yield str(made)
    served.close()
    assert not made.exists()


def asked(loop: asyncio.AbstractEventLoop, path: str, question: str) -> "asyncio.Future[str]":
    """A probe under way in a thread of its own."""
    return loop.run_in_executor(None, health.probe, path, question, 10.0)


def test_a_kernel_that_is_kept_waiting_is_live_and_not_ready(
    loop: asyncio.AbstractEventLoop, kept: Kept, path: str
) -> None:
    async def play() -> None:
        ready = [asked(loop, path, health.READY) for _ in range(2)]
        assert await asked(loop, path, health.LIVE) == "live"
        while len(kept.answers) < 1:
            await asyncio.sleep(0)
        with pytest.raises(TimeoutError):
            await loop.run_in_executor(None, health.probe, path, health.READY, 0.1)
        assert len(kept.answers) == 1, "probes that wait share one call"
        assert not any(one.done() for one in ready)
        kept.give(Done({"peers": {"1": {"state": "ACTIVE"}, "2": {"state": "INACTIVE"}}}))
        assert await asyncio.gather(*ready) == ["ready, active with 1 of 2 peers"] * 2

    loop.run_until_complete(play())


def test_a_kernel_that_refuses_is_not_ready_and_says_why(
    loop: asyncio.AbstractEventLoop, kept: Kept, path: str
) -> None:
    async def play() -> None:
        waiting = asked(loop, path, health.READY)
        while not kept.answers:
            await asyncio.sleep(0)
        kept.give(Failed(errno.EHOSTDOWN, "the partition shut down: SIGTERM"))
        assert await waiting == "not ready: the partition shut down: SIGTERM"

    loop.run_until_complete(play())


def test_nonsense_is_not_answered(loop: asyncio.AbstractEventLoop, path: str) -> None:
    async def play() -> None:
        with pytest.raises(TimeoutError):
            await loop.run_in_executor(None, health.probe, path, "open sesame", 0.1)
        assert await asked(loop, path, health.LIVE) == "live"

    loop.run_until_complete(play())
