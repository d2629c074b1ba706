"""What the files of event streams promise to whoever judges them."""

import asyncio
import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import Mock

import pytest

from xpmem_emu import connect
from xpmem_emu.backend import processes
from xpmem_emu.cluster.state import read_state
from xpmem_emu.kernel.interface import Effects, Halt, KernelEvent, LinkDown, Panic, Send
from xpmem_emu.live.config import PartitionConfig
from xpmem_emu.live.driver import LATE_NS, Driver
from xpmem_emu.live.partition import _event_log
from xpmem_emu.trace import Record
from xpmem_emu.xpc.events import PartitionGone

from .conftest import Home, real_spec
from .loops import let_pass, patiently


def config(event_log: Path) -> PartitionConfig:
    return PartitionConfig(
        cluster="c",
        name="p0",
        partid=0,
        image="laptop",
        listen="",
        console="",
        peers={},
        arena_folder="",
        event_log=str(event_log),
    )


@pytest.mark.parametrize(("left", "begins"), [(b"", b""), (b"a\n", b"a\n"), (b"a\nb", b"a\nb\n")])
def test_a_boot_does_not_go_on_in_the_torn_line_of_the_one_before(
    left: bytes, begins: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "log"
    path.write_bytes(left)
    with ExitStack() as stack:
        log = _event_log(config(path), stack)
        assert log is not None
        log.write(b"new\n")
    assert path.read_bytes() == begins + b"new\n"


class Diary:
    """An Outside, and a kernel that sends one message and emits one event at each step."""

    def __init__(self) -> None:
        self.entries: list[str] = []

    def step(self, now_ns: int, event: KernelEvent) -> Effects:
        record = Record(1, now_ns, 0, "thread", PartitionGone(peer=1, incarnation=1))
        return Effects(sends=[Send(1, "GET", 0, [b""])], trace=[record], wake_at_ns=now_ns)

    def discard(self) -> None:
        """Nothing to let go."""

    def send(self, now_ns: int, message: Send) -> None:
        self.entries.append("send")

    def link_down(self, link: LinkDown) -> None:
        self.entries.append("link down")

    def publish(self, records: Sequence[Record]) -> None:
        self.entries.append("publish")

    def late(self, kernel_ns: int, late_ns: int) -> None:
        self.entries.append("late" if late_ns > LATE_NS else "not so late")

    def step_begins(self, now_ns: int) -> None:
        """Nothing to tell."""

    def step_ended(self) -> None:
        """Nothing to tell."""

    def stopped(self, end: Panic | Halt) -> None:
        self.entries.append("stopped")


def test_an_event_is_in_the_stream_before_anybody_else_can_know_of_it() -> None:
    loop, diary = asyncio.new_event_loop(), Diary()
    driver = Driver(loop, diary, diary)
    driver.start()
    driver.close()
    loop.close()
    assert diary.entries == ["publish", "send"]


class Giving(Diary):
    """A kernel with long work, which gave way to others."""

    def step(self, now_ns: int, event: KernelEvent) -> Effects:
        return Effects(wake_at_ns=now_ns + 1)


def test_long_work_that_gave_way_goes_on_in_the_next_turn_of_the_loop() -> None:
    delays: list[float] = []
    loop, kernel = Mock(call_later=lambda delay_s, _: delays.append(delay_s)), Giving()
    Driver(loop, kernel, kernel).start()
    assert delays == [0]


@pytest.mark.live
def test_a_partition_that_stood_still_says_so_and_for_how_long(home: Home) -> None:
    processes.up(real_spec("log", 1, event_log=True))
    processes.hang("log", "p0")
    let_pass(0.5)
    processes.resume("log", "p0")
    path = Path(read_state("log").run_folder) / "p0.events.jsonl"

    def longest_ns() -> int:
        rows = [json.loads(line) for line in path.read_bytes().splitlines()]
        return max((row["late_ns"] for row in rows if row["event"] == "fabric:still"), default=0)

    with connect("p0", "log") as p0:
        p0.status()
    patiently(lambda: longest_ns() > 300_000_000, "it says that it stood still")
    assert longest_ns() > 300_000_000
