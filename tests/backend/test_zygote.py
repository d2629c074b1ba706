"""Many partitions out of one process: recorded before they begin, gone if nobody does."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.live.conftest import Home
from tests.live.loops import patiently
from xpmem_emu.backend import partition_process, processes
from xpmem_emu.cluster.liveness import start_ticks
from xpmem_emu.cluster.state import PartitionRecord, process_of, read_state
from xpmem_emu.cluster.topology import ClusterSpec, numbered_partitions
from xpmem_emu.errors import KernelError
from xpmem_emu.live.zygote import ALONE, CONFIG_SUFFIX, forked, log_of

pytestmark = pytest.mark.live

ZYGOTE = (
    sys.executable,
    "-c",
    "import sys; from pathlib import Path; from xpmem_emu.live.zygote import fork_each\n"
    "config = fork_each([Path(name) for name in sys.argv[2::2]])\n"
    "if config is not None: print('I am', config.name, flush=True); sys.stdin.read()",
)


def configs(folder: Path) -> list[Path]:
    return [folder / f"{name}{CONFIG_SUFFIX}" for name in ("p0", "p1")]


def ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_ended(pids: list[int]) -> None:
    patiently(lambda: all(map(ended, pids)), "they end")


def test_each_child_begins_when_all_are_recorded_and_writes_its_own_log(tmp_path: Path) -> None:
    with forked(ZYGOTE, configs(tmp_path)) as pids:
        assert len({os.getsid(pid) for pid in pids}) == 2
        assert [log_of(path).read_text() for path in configs(tmp_path)] == ["", ""]
    wait_ended(pids)
    for path in configs(tmp_path):
        assert log_of(path).read_text() == f"I am {path.name}\n"


def test_children_whose_launcher_is_gone_end_without_a_trace(tmp_path: Path) -> None:
    pids: list[int] = []

    def launch_and_go() -> None:
        with forked(ZYGOTE, configs(tmp_path)) as children:
            pids.extend(children)
            assert not any(map(ended, pids))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launch_and_go()
    wait_ended(pids)
    assert [log_of(path).read_text() for path in configs(tmp_path)] == ["", ""]


def test_there_is_one_thread_when_it_forks() -> None:
    code = (
        "import os, xpmem_emu.live.partition, xpmem_emu.kernel.kernel as _\n"
        "print(len(os.listdir('/proc/self/task')))"
    )
    said = subprocess.check_output([sys.executable, "-c", code], env=os.environ | ALONE)
    assert int(said) == 1


def test_a_zygote_that_cannot_begin_says_why(tmp_path: Path) -> None:
    command = (sys.executable, "-c", "raise SystemExit('out of luck')")
    with pytest.raises(KernelError) as refused, forked(command, configs(tmp_path)):
        pytest.fail("nobody was started")
    assert refused.value.errno == errno.ECHILD
    assert "out of luck" in refused.value.cause


def test_partitions_of_one_up_are_told_apart_by_their_names(home: Home) -> None:
    processes.up(ClusterSpec(name="t", partitions=numbered_partitions(2), memory=1 << 20))
    rows = read_state("t").partitions
    assert [psutil.Process(one.pid).name() for one in rows] == ["p0", "p1"]
    assert len({tuple(psutil.Process(one.pid).cmdline()) for one in rows}) == 1


@contextmanager
def stranger_zombie() -> Iterator[int]:
    """The pid of a process that has ended and is another's child, who does not look."""
    code = (
        "import os, signal, sys\n"
        "pid = os.fork()\n"
        "if pid == 0: signal.pause()\n"
        "print(pid, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        yield int(parent.stdout.readline())


def test_an_adopted_process_that_nobody_reaps_has_ended_all_the_same() -> None:
    with stranger_zombie() as pid:
        row = PartitionRecord(
            name="p0",
            partid=0,
            image="",
            pid=pid,
            domain="",
            started=start_ticks(pid),
            console="",
            endpoint="",
            config="",
            log="",
        )
        heard: list[int] = []
        partition_process.end([row], heard.append)
        assert heard == [pid]
        assert psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_process_whose_first_thread_has_ended_lives_on_in_the_others() -> None:
    code = (
        "import ctypes, threading, time\n"
        "threading.Thread(target=time.sleep, args=(1000,)).start()\n"
        "print('there', flush=True)\n"
        "ctypes.CDLL(None).syscall(60, 0)"  # exit(2): this thread only
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline()
            started = start_ticks(child.pid)
            patiently(lambda: psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE, "it ends")
            # Its files are open, and what it locked is locked.
            assert process_of(child.pid, started) is not None
        finally:
            child.kill()
    assert process_of(child.pid, started) is None
