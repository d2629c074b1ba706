"""Real processes killed while they share: the others notice in time and carry on."""

import signal
import time
from collections.abc import Callable, Iterator

import psutil
import pytest

from xpmem_emu import connect
from xpmem_emu.errors import SignalInfo
from xpmem_emu.image import Image
from xpmem_emu.live import cluster
from xpmem_emu.live.client import Partition, Task
from xpmem_emu.live.failures import SigBus
from xpmem_emu.live.state import ClusterState
from xpmem_emu.live.topology import ClusterSpec, numbered

from .conftest import Home

pytestmark = pytest.mark.live

MEBIBYTE = 1 << 20
LAPTOP = Image()
NOTICE_S = (2 * LAPTOP.xpc.heartbeat_check + LAPTOP.xpc.disengage_limit) / 1e9 + 2
"""Two heartbeat checks, the disengagement, and room for a busy machine."""


@pytest.fixture
def state(home: Home, monkeypatch: pytest.MonkeyPatch) -> ClusterState:
    monkeypatch.setenv("XPMEM_EMU_CLUSTER", "loss")
    return cluster.up(ClusterSpec("loss", numbered(3), memory=16 * MEBIBYTE), timeout_s=30)


def within(seconds: float, condition: Callable[[], bool], events: Iterator[object]) -> None:
    """Wait for `condition`, looking again at each event of the partition that must notice."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        next(events)


def load_until_sigbus(task: Task, address: int) -> SignalInfo:
    """Read until the partition has noticed that the page's home is gone."""
    try:
        while True:
            task.load(address, 8)
    except SigBus as signalled:
        return signalled.info


def audit(partition: Partition) -> dict[str, int]:
    """What is in use."""
    return dict(partition.audit())


def test_a_killed_importer_gives_its_pins_back_and_the_others_go_on(state: ClusterState) -> None:
    with connect("p0") as p0, connect("p2") as p2:
        exporter, healthy = p0.spawn(), p2.spawn()
        address = exporter.mmap(MEBIBYTE)
        exporter.store(address, b"shared" * 1000)
        segid = exporter.xpmem_make(address, MEBIBYTE)
        at = healthy.xpmem_attach(healthy.xpmem_get(segid), 0, MEBIBYTE)
        healthy.load(at, MEBIBYTE)
        with connect("p1") as p1:
            doomed = p1.spawn()
            there = doomed.xpmem_attach(doomed.xpmem_get(segid), 0, MEBIBYTE)
            doomed.load(there, MEBIBYTE)
            with p0.events() as events:
                psutil.Process(state.partitions[1].pid).send_signal(signal.SIGKILL)
                within(NOTICE_S, lambda: p0.status()["peers"]["1"]["state"] == "INACTIVE", events)
                within(NOTICE_S, lambda: audit(p0)["quarantined"] == 0, events)
        healthy.store(at, b"still here")
        assert exporter.load(address, 10) == b"still here"
        assert p0.status()["peers"]["2"]["state"] == "ACTIVE"
        healthy.xpmem_detach(at)
        assert audit(p0)["pins"] == 0


def test_a_killed_exporter_is_sigbus_with_the_reason_in_time(state: ClusterState) -> None:
    with connect("p1") as p1, connect("p2") as p2:
        tasks = [p1.spawn(), p2.spawn()]
        with connect("p0") as p0:
            exporter = p0.spawn()
            segid = exporter.xpmem_make(exporter.mmap(MEBIBYTE), MEBIBYTE)
            spots = [t.xpmem_attach(t.xpmem_get(segid), 0, MEBIBYTE) for t in tasks]
            tasks[0].load(spots[0], MEBIBYTE)
            psutil.Process(state.partitions[0].pid).send_signal(signal.SIGKILL)
        begun = time.monotonic()
        for task, at in zip(tasks, spots, strict=True):
            info = load_until_sigbus(task, at)
            assert (info.segid, info.partid) == (segid, 0)
            assert info.reason
        deadlines = LAPTOP.deadlines
        bound = deadlines.fault_attempt * deadlines.fault_tries / 1e9 + NOTICE_S
        assert time.monotonic() - begun < bound
        for task, at in zip(tasks, spots, strict=True):
            task.xpmem_detach(at)
            task.exit()
        for partition in (p1, p2):
            counts = audit(partition)
            assert [counts[key] for key in ("permits", "attachments", "imported_pages")] == [0] * 3


def test_a_recall_of_a_killed_importer_ends_by_its_deadline(state: ClusterState) -> None:
    with connect("p0") as p0:
        exporter = p0.spawn()
        address = exporter.mmap(MEBIBYTE)
        segid = exporter.xpmem_make(address, MEBIBYTE)
        with connect("p1") as p1:
            doomed = p1.spawn()
            at = doomed.xpmem_attach(doomed.xpmem_get(segid), 0, MEBIBYTE)
            doomed.load(at, MEBIBYTE)
            psutil.Process(state.partitions[1].pid).send_signal(signal.SIGKILL)
        begun = time.monotonic()
        exporter.munmap(address, MEBIBYTE)
        bound_ns = LAPTOP.deadlines.recall_attempt * LAPTOP.deadlines.recall_tries
        assert time.monotonic() - begun < bound_ns / 1e9 + 1
        assert audit(p0)["pins"] == 0


def test_up_works_after_the_whole_cluster_was_killed_and_down_leaves_nothing(
    state: ClusterState, home: Home
) -> None:
    processes = [psutil.Process(partition.pid) for partition in state.partitions]
    for process in processes:
        process.send_signal(signal.SIGKILL)
    for process in processes:
        process.wait(10)
    again = cluster.up(ClusterSpec("loss", numbered(3), memory=16 * MEBIBYTE), timeout_s=30)
    with connect("p0") as p0:
        assert {peer["state"] for peer in p0.status()["peers"].values()} == {"ACTIVE"}
    cluster.down("loss")
    assert home.leftovers() == []
    assert not any(psutil.pid_exists(partition.pid) for partition in again.partitions)


def test_an_idle_cluster_counts_the_same_before_and_after_use(state: ClusterState) -> None:
    with connect("p0") as p0, connect("p1") as p1:
        zero = [audit(p0), audit(p1)]
        exporter, importer = p0.spawn(), p1.spawn()
        address = exporter.mmap(MEBIBYTE)
        segid = exporter.xpmem_make(address, MEBIBYTE)
        at = importer.xpmem_attach(importer.xpmem_get(segid), 0, MEBIBYTE)
        importer.store(at, b"x" * MEBIBYTE)
        exporter.munmap(address, 4096)
        importer.exit()
        exporter.exit()
        for partition, before in ((p0, zero[0]), (p1, zero[1])):
            after = audit(partition)
            ours = [key for key in before if key != "xpc_remembered"]
            assert {key: after[key] for key in ours} == {key: before[key] for key in ours}
