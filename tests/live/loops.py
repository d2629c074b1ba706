"""What the long loops on real processes share: a cluster of their own, patience, and the judge.

A loop draws everything from one seed that it prints. What threads and processes make of it is
the machine's: the same seed does the same things to them, not at the same instructions.
"""

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from xpmem_emu import connect
from xpmem_emu.backend import processes
from xpmem_emu.backend.partition_process import log_tail
from xpmem_emu.client.blocking import Partition
from xpmem_emu.client.failures import XpmemError
from xpmem_emu.cluster.paths import arena_place
from xpmem_emu.cluster.state import process_of, read_state
from xpmem_emu.cluster.topology import ClusterSpec, load_image, numbered_partitions
from xpmem_emu.judge.streams import StreamJudgement, StreamsEnd, judge_stream_files

IMAGE = str(Path(__file__).with_name("quick.toml"))
BOUND_S = 60.0
"""Whatever takes longer hangs. Generous: the machine may be busy with other things."""
_LOOK_AGAIN_S = 0.02
_STATUS_S = 5.0
Row = dict[str, object]


class Broken(AssertionError):
    """A loop found something wrong."""


def let_pass(seconds: float) -> None:
    """Let time pass that others are to notice, or of which nobody knows what happens in it. Never
    to wait for something: that is `patiently`."""
    threading.Event().wait(seconds)


@contextmanager
def folders() -> Iterator[None]:
    """Folders of our own for a cluster, gone at the end with all that is in them."""
    run = tempfile.mkdtemp(prefix="xe", dir="/tmp")
    arenas = tempfile.mkdtemp(prefix="xe", dir=arena_place())
    ours = {"XDG_RUNTIME_DIR": run, "XPMEM_EMU_ARENAS": arenas}
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
        shutil.rmtree(run)
        shutil.rmtree(arenas)


@contextmanager
def running(
    name: str,
    partitions: int,
    command: tuple[str, ...] = (),
    image: str = IMAGE,
    lease_s: float = BOUND_S,
    event_log: bool = True,
) -> Iterator[None]:
    """A cluster of that name; at its end nothing may be left of it."""
    with folders():
        try:
            spec = ClusterSpec(
                name,
                numbered_partitions(partitions),
                image,
                event_log=event_log,
                lease_s=lease_s,
                command=command,
            )
            processes.up(spec, timeout_s=BOUND_S)
            yield
            booted = read_state(name).partitions
        finally:
            processes.down(name)
        left = [
            str(path)
            for root in ("XDG_RUNTIME_DIR", "XPMEM_EMU_ARENAS")
            for path in Path(os.environ[root]).glob("*/*")
        ]
        alive = [one.pid for one in booted if process_of(one.pid, one.started)]
        require(not left and not alive, f"left behind: {left} {alive}")


def streams(name: str) -> list[Path]:
    """The event logs of a cluster."""
    return sorted(Path(read_state(name).run_folder).glob("*.events.jsonl"))


def verdict(name: str, ending: StreamsEnd, image: str = IMAGE) -> StreamJudgement:
    """What the streams of a cluster, which may still run, say."""
    return judge_stream_files(streams(name), load_image(image), ending)


def statuses(name: str) -> dict[str, dict[str, Any]]:
    """What the kernel of each partition says of itself; nothing where it does not answer."""
    answers: dict[str, dict[str, Any]] = {}
    for one in read_state(name).partitions:
        answers[one.name] = {}
        with suppress(XpmemError), connect(one.name, name, timeout=_STATUS_S) as client:
            answers[one.name] = client.status()
    return answers


def active(name: str) -> bool:
    """Whether every partition is active with every other. Raises Broken when one is dead."""
    state = read_state(name)
    for row in processes.ps(name):
        tail = log_tail(state.partition(row.name))
        require(row.state != "dead", f"{row.name} died by itself:\n{tail}")
    found = statuses(name).values()
    return all(
        peer["state"] == "ACTIVE" for row in found for peer in row.get("peers", NOBODY).values()
    )


NOBODY = {"": {"state": "it does not answer"}}


def leftovers(name: str) -> dict[str, dict[str, int]]:
    """What is still in use on partitions where nobody has a task any more."""
    fixed = {"mm_frames_total", "calls", "xpc_remembered"}
    found = {}
    for one in read_state(name).partitions:
        try:
            with connect(one.name, name) as partition:
                counts = partition.audit()
        except XpmemError as error:
            counts = {str(error): 1}
        if left := {key: n for key, n in counts.items() if n and key not in fixed}:
            found[one.name] = left
    return found


def require_balance(name: str) -> None:
    """Everything is given back, now or soon. Raises Broken."""
    try:
        patiently(lambda: not leftovers(name), "everything is given back")
    except Broken as broken:
        raise Broken(f"{broken}: {leftovers(name)}") from None


def require(good: bool, otherwise: str) -> None:
    """Raises Broken."""
    if not good:
        raise Broken(otherwise)


def patiently(condition: Callable[[], bool], what: str) -> float:
    """Return when `condition` holds, and after how many seconds. Raises Broken at the bound."""
    begun = time.monotonic()
    pause = threading.Event()
    while not condition():
        require(time.monotonic() - begun < BOUND_S, f"not within {BOUND_S} s: {what}")
        pause.wait(_LOOK_AGAIN_S)
    return time.monotonic() - begun


class Listener:
    """The events of one partition, as they come."""

    def __init__(self, partition: Partition) -> None:
        self._stream = partition.events()
        self._heard: list[Row] = []
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def expect(self, event: str, **fields: object) -> Row:
        """The next event like this, whatever came before it is forgotten. Raises Broken."""
        deadline = time.monotonic() + BOUND_S
        with self._news:
            while True:
                while self._heard:
                    row = self._heard.pop(0)
                    if row["event"] == event and fields.items() <= row.items():
                        return row
                rest_s = deadline - time.monotonic()
                require(rest_s > 0, f"not within {BOUND_S} s: {event} {fields}")
                self._news.wait(rest_s)

    def _listen(self) -> None:
        try:
            for row in self._stream:
                with self._news:
                    self._heard.append(row)
                    self._news.notify()
        except OSError:
            return
