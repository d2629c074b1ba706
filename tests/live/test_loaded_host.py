"""Sixteen partitions on a host whose every processor is busy with something else."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from xpmem_emu import connect
from xpmem_emu.backend import processes
from xpmem_emu.cluster.state import read_state
from xpmem_emu.cluster.topology import ClusterSpec, numbered_partitions

from .loops import let_pass, statuses

pytestmark = pytest.mark.live

PARTITIONS = 16
LOADED_S = 6.0
PAGES = 64
PAGE = 4096
FIELDS = 10
"""Numbers in the first line of /proc/stat; the fourth is idle, the fifth waits for a disk."""


@contextmanager
def busy_processors() -> Iterator[None]:
    """A process for each processor that uses it whenever it may."""
    burners = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"])
        for _ in range(os.cpu_count() or 1)
    ]
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


def idle_share(before: list[int], after: list[int]) -> float:
    spent = [late - early for early, late in zip(before, after, strict=True)]
    return (spent[3] + spent[4]) / sum(spent)


def processor_times() -> list[int]:
    line = Path("/proc/stat").read_text().splitlines()[0]
    return [int(number) for number in line.split()[1 : FIELDS + 1]]


def processor_seconds(name: str) -> float:
    used = [psutil.Process(one.pid).cpu_times() for one in read_state(name).partitions]
    return sum(each.user + each.system for each in used)


def share(name: str) -> None:
    """A page of the first partition is read and written on the last one."""
    with connect("p0", name) as home, connect(f"p{PARTITIONS - 1}", name) as away:
        exporter, importer = home.spawn(), away.spawn()
        address = exporter.mmap(PAGES * PAGE)
        segid = exporter.xpmem_make(address, PAGES * PAGE)
        there = importer.xpmem_attach(importer.xpmem_get(segid), 0, PAGES * PAGE)
        for page in range(PAGES):
            exporter.store(address + page * PAGE, bytes([page + 1]))
            assert importer.load(there + page * PAGE, 1) == bytes([page + 1])
        exporter.munmap(address, PAGES * PAGE)


@pytest.mark.usefixtures("home")
def test_a_large_cluster_on_a_busy_host_loses_nobody_and_costs_little_when_idle() -> None:
    name = "busy"
    processes.up(ClusterSpec(name, numbered_partitions(PARTITIONS), "laptop", 1 << 20))
    begun_s, spent_s = time.monotonic(), processor_seconds(name)
    let_pass(2.0)
    idle = (processor_seconds(name) - spent_s) / (time.monotonic() - begun_s)
    print(f"{PARTITIONS} idle partitions take {idle:.1%} of a processor")

    before = processor_times()
    with busy_processors():
        until_s = time.monotonic() + LOADED_S
        while time.monotonic() < until_s:
            share(name)
    assert idle_share(before, processor_times()) < 0.1, "the host was not busy"

    answers = statuses(name)
    assert {
        (peer["state"], peer["reason"])
        for answer in answers.values()
        for peer in answer["peers"].values()
    } == {("ACTIVE", "")}
    # One session with each peer since boot: nobody was given up and taken back.
    assert {each["counters"]["activations"] for each in answers.values()} == {PARTITIONS - 1}
    # Half of a processor before heartbeats were bounded, a tenth on a quiet machine.
    assert idle < 0.3
