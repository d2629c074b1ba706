"""Real processes killed while they share: the others notice in time and carry on."""

import signal
import time

import psutil
import pytest

from xpmem_emu import connect
from xpmem_emu.backend import processes
from xpmem_emu.client.blocking import Partition, Task
from xpmem_emu.client.failures import SigBus
from xpmem_emu.cluster.state import ClusterState, process_of
from xpmem_emu.cluster.topology import load_image
from xpmem_emu.errors import SignalInfo

from .conftest import IMAGE, Home, real_spec
from .keyed import eventually

pytestmark = pytest.mark.live

MEBIBYTE = 1 << 20
BOOTED = load_image(IMAGE)
ROOM_S = 20
"""For a busy machine. What has no deadline takes longer by far."""
NOTICE_S = (2 * BOOTED.xpc.heartbeat_check + BOOTED.xpc.disengage_limit) / 1e9 + ROOM_S
"""Two heartbeat checks and the disengagement."""


@pytest.fixture
def state(home: Home, monkeypatch: pytest.MonkeyPatch) -> ClusterState:
    monkeypatch.setenv("XPMEM_EMU_CLUSTER", "loss")
    return processes.up(real_spec("loss", 3))


def load_until_sigbus(task: Task, address: int) -> SignalInfo:
    """Read until the partition has noticed that the page's home is gone."""
    try:
        while True:
            task.load(address, 8)
    except SigBus as signalled:
        return signalled.info


def audit(partition: Partition) -> dict[str, int]:
    """What is in use. What a task that ended has yet to tell its peers counts until they know, and
    answers until their slot is used again: those are left out."""
    return {key: count for key, count in partition.audit().items() if key != "xpc_remembered"}


def imported(partition: Partition) -> int:
    """What is held of other partitions."""
    counts = audit(partition)
    return counts["permits"] + counts["attachments"] + counts["imported_pages"]


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
            psutil.Process(state.partitions[1].pid).send_signal(signal.SIGKILL)
            eventually(lambda: p0.status()["peers"]["1"]["state"] == "INACTIVE", NOTICE_S)
            eventually(lambda: audit(p0)["quarantined"] == 0, NOTICE_S)
        healthy.store(at, b"still here")
        assert exporter.load(address, 10) == b"still here"
        assert p0.status()["peers"]["2"]["state"] == "ACTIVE"
        healthy.xpmem_detach(at)
        eventually(lambda: audit(p0)["pins"] == 0)


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
        deadlines = BOOTED.deadlines
        bound = deadlines.fault_attempt * deadlines.fault_tries / 1e9 + NOTICE_S
        assert time.monotonic() - begun < bound
        for task, at in zip(tasks, spots, strict=True):
            task.xpmem_detach(at)
            task.exit()
        for partition in (p1, p2):
            eventually(lambda: not imported(partition))  # noqa: B023


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
        bound_ns = BOOTED.deadlines.recall_attempt * BOOTED.deadlines.recall_tries
        assert time.monotonic() - begun < bound_ns / 1e9 + ROOM_S
        assert audit(p0)["pins"] == 0


def test_up_works_after_the_whole_cluster_was_killed_and_down_leaves_nothing(
    state: ClusterState, home: Home
) -> None:
    before = [psutil.Process(partition.pid) for partition in state.partitions]
    for process in before:
        process.send_signal(signal.SIGKILL)
    for process in before:
        process.wait(10)
    again = processes.up(real_spec("loss", 3))
    with connect("p0") as p0:
        assert {peer["state"] for peer in p0.status()["peers"].values()} == {"ACTIVE"}
    processes.down("loss")
    assert home.leftovers() == []
    assert not any(process_of(one.pid, one.started) for one in again.partitions)


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
        # An exit does not wait until the peer has heard of what it gave back.
        eventually(lambda: [audit(p0), audit(p1)] == zero)
        assert [audit(p0), audit(p1)] == zero
