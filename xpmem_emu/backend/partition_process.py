"""Processes of partitions: how they are started, watched, told and ended. Knows no protocol."""

import errno
import signal
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from xpmem_emu.cluster.liveness import LifeRecord
from xpmem_emu.cluster.state import PartitionRecord, is_zombie, process_of
from xpmem_emu.errors import KernelError
from xpmem_emu.polling import wait_until

END_PATIENCE_S = 8.0
_LOG_TAIL_LINES = 12
_LOOK_AGAIN_S = 0.002


def start_process(command: Sequence[str], log: Path) -> int:
    """A process of a session of its own, so that our terminal's signals do not reach it."""
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            close_fds=True,
        ).pid


def end(partitions: Sequence[PartitionRecord | LifeRecord], ended: Callable[[int], None]) -> None:
    """SIGTERM, patience, SIGKILL; `ended` hears of each pid. A stopped process is continued: it
    could not hear otherwise."""
    found = [process_of(one.pid, one.started) for one in partitions]
    processes = [process for process in found if process is not None]
    for process in processes:
        tell(process, signal.SIGTERM)
        tell(process, signal.SIGCONT)

    end_now(_wait_ended(processes, ended), ended)


def end_now(
    processes: Sequence[psutil.Process], ended: Callable[[int], None] = lambda _pid: None
) -> None:
    """SIGKILL, and wait until they are gone."""
    for process in processes:
        tell(process, signal.SIGKILL)
    _wait_ended(processes, ended)


def _wait_ended(
    processes: Sequence[psutil.Process], ended: Callable[[int], None]
) -> list[psutil.Process]:
    """Wait with patience; `ended` hears of each. Result: who did not end."""
    left = list(processes)

    def all_ended() -> bool:
        for process in [one for one in left if _has_ended(one)]:
            left.remove(process)
            ended(process.pid)
        return not left

    wait_until(all_ended, END_PATIENCE_S, _LOOK_AGAIN_S)
    return left


def _has_ended(process: psutil.Process) -> bool:
    """A zombie has: it need not be our child, and who adopted it may never look, as the first
    process of a container."""
    try:
        process.wait(0)  # if it is our child, it does not stay one
    except psutil.TimeoutExpired:
        try:
            return is_zombie(process)
        except psutil.NoSuchProcess:
            return True
    return True


def tell(process: psutil.Process, number: signal.Signals) -> None:
    """Send a signal; a process that is gone does not mind."""
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


def stop(process: psutil.Process) -> None:
    """SIGSTOP; returns when the process stands still. One that is gone does not mind."""
    tell(process, signal.SIGSTOP)
    _await(process, lambda: process.status() == psutil.STATUS_STOPPED)


def cont(process: psutil.Process) -> None:
    """SIGCONT; returns when the process goes on. One that is gone does not mind."""
    tell(process, signal.SIGCONT)
    _await(process, lambda: process.status() != psutil.STATUS_STOPPED)


def _await(process: psutil.Process, condition: Callable[[], bool]) -> None:
    with suppress(psutil.NoSuchProcess):
        if not wait_until(condition, END_PATIENCE_S, _LOOK_AGAIN_S):
            raise KernelError(errno.ETIMEDOUT, f"pid {process.pid} does not obey signals")


def require_running(partition: PartitionRecord) -> None:
    """Raises KernelError ECHILD, with the end of its log, when the process is gone."""
    if process_of(partition.pid, partition.started) is None:
        tail = log_tail(partition)
        raise KernelError(
            errno.ECHILD,
            f"{partition.name} (pid {partition.pid}) died:\n{tail}",
            f"xpmem-emu logs {partition.name}",
        )


def log_tail(partition: PartitionRecord) -> str:
    """The last lines of a partition's log."""
    try:
        lines = Path(partition.log).read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(lines[-_LOG_TAIL_LINES:])


@dataclass(frozen=True, slots=True)
class PartitionProcess:
    """One row of `ps`. `state`: running, stopped, dead. Memory in bytes, times in seconds."""

    name: str
    partid: int
    pid: int
    state: str
    domain: str
    image: str
    resident: int
    cpu_s: float
    console: str
    log: str


def process_row(one: PartitionRecord) -> PartitionProcess:
    """How that process is."""
    state, resident, cpu_s = "dead", 0, 0.0
    process = process_of(one.pid, one.started)
    if process is not None:
        try:
            stopped = process.status() == psutil.STATUS_STOPPED
            times = process.cpu_times()
            resident = process.memory_info().rss
            state, cpu_s = "stopped" if stopped else "running", times.user + times.system
        except psutil.NoSuchProcess:
            state = "dead"
    return PartitionProcess(
        name=one.name,
        partid=one.partid,
        pid=one.pid,
        state=state,
        domain=one.domain,
        image=one.image,
        resident=resident,
        cpu_s=cpu_s,
        console=one.console,
        log=one.log,
    )
