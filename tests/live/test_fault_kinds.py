"""The kinds of faults that `test_faults` leaves out, on real processes: each bites and heals."""

import errno
import time
from collections.abc import Iterator

import pytest

from xpmem_emu import connect
from xpmem_emu.backend import processes
from xpmem_emu.client.blocking import Partition, Task
from xpmem_emu.client.failures import SigBus, SigKill, XpmemError
from xpmem_emu.kernel.calls import MAP_SHARED
from xpmem_emu.mm import pte

from .conftest import LOSSY, Home, real_spec
from .loops import patiently

pytestmark = pytest.mark.live

PAGE = 4096
PAGES = 8
SIZE = PAGES * PAGE
Pair = tuple[Partition, Partition]


@pytest.fixture
def pair(home: Home) -> Iterator[Pair]:
    processes.up(real_spec("k", 2, image=LOSSY))
    with connect("p0", "k") as p0, connect("p1", "k") as p1:
        yield p0, p1


def exported(p0: Partition) -> tuple[Task, int, int]:
    """A task, its memory, and a segment of it."""
    task = p0.spawn()
    base = task.mmap(SIZE)
    task.store(base, b"kept" * PAGE * 2)
    return task, base, task.xpmem_make(base, SIZE, 0o666)


def attached(partition: Partition, segid: int) -> tuple[Task, int, int]:
    """An importer, its permit, and where it sees the segment."""
    task = partition.spawn()
    apid = task.xpmem_get(segid)
    return task, apid, task.xpmem_attach(apid, 0, SIZE)


def until_active(*partitions: Partition) -> None:
    """Returns when each is active with all others."""
    patiently(
        lambda: all(
            peer["state"] == "ACTIVE"
            for one in partitions
            for peer in one.status()["peers"].values()
        ),
        "all active",
    )


def frame_of(task: Task, address: int) -> int:
    """The frame behind an address."""
    entry = int(task.partition.pagetable(task.pid, address)["pte"])
    return entry >> pte.FRAME_SHIFT & pte.LOCAL_MASK


@pytest.mark.parametrize("text", ["split p0|p1", "isolate p1", "asymmetric p0|p1"])
def test_who_is_cut_off_is_lost_and_comes_back_when_it_heals(pair: Pair, text: str) -> None:
    _, _, segid = exported(pair[0])
    importer, _, at = attached(pair[1], segid)
    importer.load(at, 4)
    for partition in pair:
        partition.fault_add(text)
    patiently(lambda: pair[1].status()["peers"]["0"]["state"] != "ACTIVE", "p1 gives p0 up")
    with pytest.raises(SigBus):
        importer.load(at, 4)
    for partition in pair:
        partition.fault_reset()
    until_active(*pair)
    importer, _, at = attached(pair[1], segid)
    assert importer.load(at, 4) == b"kept"


def test_a_clogged_link_gives_everything_back_when_it_heals(pair: Pair) -> None:
    _, _, segid = exported(pair[0])
    before = time.monotonic()
    pair[0].fault_add("link p0->p1 clog --for 150ms")
    importer, _, at = attached(pair[1], segid)
    assert importer.load(at, 4) == b"kept"
    assert time.monotonic() - before >= 0.1


@pytest.mark.parametrize("text", ["clock p1 skew 2", "clock p1 skew -0.5", "clock p0 jump 1h"])
def test_only_deadlines_notice_a_clock(pair: Pair, text: str) -> None:
    exporter, base, segid = exported(pair[0])
    for partition in pair:
        partition.fault_add(text)
    until_active(*pair)
    importer, _, at = attached(pair[1], segid)
    for number in range(20):
        exporter.store(base, bytes([number]))
        exporter.migrate(base, PAGE)
        assert importer.load(at, 1) == bytes([number])
    for partition in pair:
        partition.fault_reset()
    assert importer.load(at, 1) == bytes([19])


def test_a_poisoned_frame_kills_who_touches_it_and_no_partition(pair: Pair) -> None:
    exporter, base, segid = exported(pair[0])
    importer, apid, at = attached(pair[1], segid)
    importer.load(at, SIZE)
    text = f"poison p0 {frame_of(exporter, base + PAGE)} --name bad"
    for partition in pair:
        partition.fault_add(text)
    with pytest.raises(XpmemError, match="machine check") as caught:
        importer.xpmem_copy((apid, PAGE), (apid, 0), PAGE)
    assert caught.value.errno == errno.EIO
    assert importer.load(at, 4) == b"kept"
    with pytest.raises(SigBus, match="machine check"):
        importer.load(at + PAGE, 1)
    assert [partition.status()["partid"] for partition in pair] == [0, 1]


def test_a_partition_that_boots_later_is_refused_a_poisoned_page(pair: Pair) -> None:
    exporter, base, segid = exported(pair[0])
    pair[0].fault_add(f"poison p0 {frame_of(exporter, base + PAGE)}")
    processes.crash("k", "p1")
    processes.boot("k", "p1")
    with connect("p1", "k") as later:
        until_active(pair[0], later)
        importer, _, at = attached(later, segid)
        assert importer.load(at, 4) == b"kept"
        with pytest.raises(SigBus, match="machine check"):
            importer.load(at + PAGE, 1)


def test_bounds_may_be_strained(pair: Pair) -> None:
    exporter, base, segid = exported(pair[0])
    importer, _, at = attached(pair[1], segid)
    pair[0].fault_add("strain p0 sequence 4294967294")
    pair[0].fault_add("strain p0 number 2147483646")
    for number in range(6):
        exporter.store(base, bytes([number]))
        exporter.migrate(base, PAGE)
        assert importer.load(at, 1) == bytes([number])
    exporter.munmap(base, SIZE)
    fresh = exporter.mmap(SIZE)
    segid = exporter.xpmem_make(fresh, SIZE)
    pair[0].fault_add("strain p0 pin_limit 2")
    importer, _, at = attached(pair[1], segid)
    importer.load(at, 2 * PAGE)
    with pytest.raises(SigBus, match="limit"):
        importer.load(at, SIZE)


def test_an_allocation_that_fails_costs_the_task_not_the_partition(pair: Pair) -> None:
    pair[0].fault_add("p0:mm.frames.allocate=return --name full")
    task = pair[0].spawn()
    address = task.mmap(PAGE)
    with pytest.raises(SigKill, match="out of memory"):
        task.store(address, b"x")
    pair[0].fault_remove("full")
    exported(pair[0])


def test_a_partition_in_a_crash_loop_harms_nobody_and_comes_back(pair: Pair) -> None:
    exporter, base, segid = exported(pair[0])
    for _ in range(5):
        processes.crash("k", "p1")
        processes.boot("k", "p1")
        exporter.migrate(base, SIZE)
    with connect("p1", "k") as later:
        until_active(pair[0], later)
        importer, _, at = attached(later, segid)
        assert importer.load(at, 4) == b"kept"
    patiently(lambda: pair[0].audit()["quarantined"] == 0, "its processes are known gone")


def test_a_panic_stops_one_partition_and_its_peer_goes_on(pair: Pair) -> None:
    exporter, base, segid = exported(pair[0])
    importer, _, at = attached(pair[1], segid)
    importer.load(at, 4)
    with pytest.raises(XpmemError, match="on purpose"):
        pair[1].panic("on purpose")
    exporter.munmap(base, SIZE)
    patiently(lambda: pair[0].audit()["quarantined"] == 0, "its process is known gone")
    exported(pair[0])


def test_pages_move_and_files_shrink_under_an_importer(pair: Pair) -> None:
    exporter, base, segid = exported(pair[0])
    importer, _, at = attached(pair[1], segid)
    pair[0].creat("f", SIZE)
    file = exporter.mmap(SIZE, flags=MAP_SHARED, file="f")
    exporter.store(file, b"file" * PAGE)
    reader, _, there = attached(pair[1], exporter.xpmem_make(file, SIZE))
    for _ in range(10):
        importer.load(at, SIZE)
        assert pair[0].reclaim(PAGES, exporter.pid, base, SIZE) > 0
        assert importer.load(at, 4) == b"kept"
    assert reader.load(there, 4) == b"file"
    pair[0].truncate("f", PAGE)
    assert reader.load(there, 4) == b"file"
    with pytest.raises(SigBus):
        reader.load(there + PAGE, 1)
    exporter.exit()
    with pytest.raises(SigBus):
        importer.load(at, 1)
