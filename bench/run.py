"""Measures a live cluster, and the simulator, against a limit, as ratios taken in one run.

Absolute times on a shared machine are noise; a ratio of two things measured side by side is not.
Prints a table; `--json` prints one document.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from bench import simulator
from bench.domains import SIZE, rates
from bench.echo import round_trip_ns
from xpmem_emu.backend.processes import down, up
from xpmem_emu.client.blocking import Partition, Task, connect
from xpmem_emu.cluster.topology import ClusterSpec, numbered_partitions
from xpmem_emu.shipped import find_toml
from xpmem_emu.units import PAGE_SIZE

MIB = 1 << 20
SINGLE_FAULTS = 300
HOT_LOADS = 3000
COLD_MIB = 256
RECALL_PAGES = 65536


class Figure(NamedTuple):
    """One measurement: ours, the limit, and what the ratio of them means."""

    what: str
    ours: str
    limit: str
    ratio: str


@contextmanager
def cluster() -> Iterator[tuple[Partition, Partition, Partition]]:
    """Three partitions with memory for the largest segment, gone afterwards."""
    name = f"bench-{os.getpid()}"
    up(ClusterSpec(name=name, partitions=numbered_partitions(3), memory=640 * MIB))
    try:
        with connect("p0", name) as p0, connect("p1", name) as p1, connect("p2", name) as p2:
            yield p0, p1, p2
    finally:
        down(name)


def microseconds(nanoseconds: float) -> str:
    """For the table."""
    return f"{nanoseconds / 1000:.0f} us"


def timed(action: Callable[[], object]) -> float:
    """Nanoseconds that `action` takes."""
    begun = time.perf_counter_ns()
    action()
    return time.perf_counter_ns() - begun


def share(exporter: Task, importer: Task, size: int) -> tuple[int, int, int]:
    """(exporter's address, segid, importer's address) of a fresh segment of `size` bytes."""
    base = exporter.mmap(size)
    segid = exporter.xpmem_make(base, size)
    at = importer.xpmem_attach(importer.xpmem_get(segid), 0, size)
    return base, segid, at


def remote_fault(p0: Partition, p1: Partition, folder: Path) -> Figure:
    """A fault of one page, from the importer's begin to its end, against a bare echo."""
    for name in ("faults_before", "faults_after"):
        p1.xpmem_tunable(name, 0)
    exporter, importer = p0.spawn(), p1.spawn()
    base, _, at = share(exporter, importer, 4 * SINGLE_FAULTS * PAGE_SIZE)
    for index in range(SINGLE_FAULTS):
        exporter.store(base + 4 * index * PAGE_SIZE, b"x")
    for index in range(SINGLE_FAULTS):
        importer.load(at + 4 * index * PAGE_SIZE, 1)
    begun: dict[object, int] = {}
    took = []
    for event in p1.recent_events():
        if event["event"] == "xpmem:fault_begin":
            begun[event["fault"]] = event["time_ns"]
        elif event["event"] == "xpmem:fault_end" and event["fault"] in begun:
            took.append(event["time_ns"] - begun[event["fault"]])
    p1.xpmem_tunable("faults_before", 16)
    p1.xpmem_tunable("faults_after", 32)
    ours, limit = statistics.median(took), round_trip_ns(folder, 64, 2000)
    return Figure(
        f"remote fault of 1 page (median of {len(took)}) / bare echo",
        microseconds(ours),
        microseconds(limit),
        f"{ours / limit:.1f} x",
    )


def last_fault(partition: Partition) -> int:
    """The number of the newest fault; faults are numbered from 1."""
    events = partition.recent_events()
    return max(int(e["fault"]) for e in events if e["event"] == "xpmem:fault_begin")


def cold_read(p0: Partition, p1: Partition) -> list[Figure]:
    """Reading an attachment for the first time, through the client, against memcpy."""
    exporter, importer = p0.spawn(), p1.spawn()
    size = COLD_MIB * MIB
    base, _, at = share(exporter, importer, size)
    for offset in range(0, size, MIB):
        exporter.store(base + offset, bytes(MIB))
    faults = -last_fault(p1)

    def read() -> None:
        for offset in range(0, size, 8 * MIB):
            importer.load(at + offset, 8 * MIB)

    cold, warm = timed(read), timed(read)
    faults += last_fault(p1)
    source, target = memoryview(bytearray(size)), memoryview(bytearray(size))
    source[:] = target[:] = b"x" * size
    copy = timed(lambda: target.__setitem__(slice(None), source))
    exporter.exit()
    importer.exit()
    rate = [f"{COLD_MIB / (took / 1e9):.0f} MiB/s" for took in (cold, warm, copy)]
    return [
        Figure(f"cold read of {COLD_MIB} MiB / memcpy", rate[0], rate[2], f"{cold / copy:.1f} x"),
        Figure(f"warm read of {COLD_MIB} MiB / memcpy", rate[1], rate[2], f"{warm / copy:.1f} x"),
        Figure("pages per FAULT in the cold read", f"{size // PAGE_SIZE // faults}", "64", "floor"),
    ]


def hot_load(p0: Partition, p1: Partition) -> Figure:
    """4 KiB from a page that is mapped, against a call that touches no memory."""
    exporter, importer = p0.spawn(), p1.spawn()
    _, _, at = share(exporter, importer, PAGE_SIZE)
    importer.load(at, PAGE_SIZE)
    loads, calls = [], []
    for _ in range(HOT_LOADS):
        loads.append(timed(lambda: importer.load(at, PAGE_SIZE)))
        calls.append(timed(p1.xpmem_version))
    ours, limit = statistics.median(loads), statistics.median(calls)
    return Figure(
        "hot load of 4 KiB / a call that does nothing",
        microseconds(ours),
        microseconds(limit),
        f"{ours / limit:.2f} x",
    )


def far_read(folder: Path) -> Figure:
    """Reading across coherence domains, through the client, against an echo of large messages."""
    ours, limit = rates(folder)
    return Figure(
        f"bulk read of {SIZE // MIB} MiB across domains / echo of large messages",
        f"{ours:.0f} MiB/s",
        f"{limit:.0f} MiB/s",
        f"{limit / ours:.1f} x",
    )


def recall(p0: Partition, p1: Partition, p2: Partition) -> list[Figure]:
    """munmap of a range that two partitions hold, against munmap of one that nobody does."""
    exporter = p0.spawn()
    size = RECALL_PAGES * PAGE_SIZE
    base = exporter.mmap(size)
    exporter.store(base, bytes(size))
    segid = exporter.xpmem_make(base, size)
    for partition in (p1, p2):
        task = partition.spawn()
        at = task.xpmem_attach(task.xpmem_get(segid), 0, size)
        for offset in range(0, size, 8 * MIB):
            task.load(at + offset, 8 * MIB)
    before = p0.status()["counters"]["sent"]
    ours = timed(lambda: exporter.munmap(base, size))
    messages = p0.status()["counters"]["sent"] - before
    base = exporter.mmap(size)
    exporter.store(base, bytes(size))
    limit = timed(lambda: exporter.munmap(base, size))
    exporter.exit()
    return [
        Figure(
            f"recall of {RECALL_PAGES} pages from 2 holders / munmap of as many unshared",
            microseconds(ours),
            microseconds(limit),
            f"{ours / limit:.2f} x",
        ),
        Figure("messages per holder in that recall", f"{messages / 2:g}", "4", "ceiling"),
    ]


def simulated() -> Figure:
    """Kernel events of a campaign on one core, against a loop of plain Python."""
    speed = simulator.measure(find_toml("scenarios", "chaos"))
    return Figure(
        "simulator, kernel events/s per core; turns of a plain Python loop",
        f"{speed.events:.0f} /s",
        f"{speed.turns:.0f} /s",
        f"{speed.turns / speed.events:.1f} turns",
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON document")
    options = parser.parse_args()
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as folder, cluster() as (p0, p1, p2):
        measures: list[Callable[[], list[Figure]]] = [
            lambda: [remote_fault(p0, p1, Path(folder))],
            lambda: cold_read(p0, p1),
            lambda: [hot_load(p0, p1)],
            lambda: recall(p0, p1, p2),
            lambda: [simulated()],
            lambda: [far_read(Path(folder))],
        ]
        for measure in measures:
            figures += measure()
            print(f"measured: {figures[-1].what}", file=sys.stderr)
    if options.json:
        rows = [figure._asdict() for figure in figures]
        print(json.dumps({"schema": "xpmem-emu/bench/v1", "figures": rows}, indent=2))
        return
    for figure in figures:
        print(f"{figure.what:70} {figure.ours:>12} {figure.limit:>12} {figure.ratio:>9}")


if __name__ == "__main__":
    main()
