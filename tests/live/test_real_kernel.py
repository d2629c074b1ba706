"""The harness with the kernel that it is for."""

import json

import psutil
import pytest

from xpmem_emu import XPMEM_RDWR, connect
from xpmem_emu.backend import processes
from xpmem_emu.client.failures import SigBus, XpmemError
from xpmem_emu.cluster.topology import ClusterSpec, PartitionSpec
from xpmem_emu.errors import KernelError

from .conftest import Home, real_spec

pytestmark = pytest.mark.live

MEBIBYTE = 1 << 20


@pytest.fixture
def two_partitions(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XPMEM_EMU_CLUSTER", "real")
    processes.up(real_spec("real", 2))


@pytest.mark.usefixtures("two_partitions")
def test_the_example_of_the_library_runs_as_it_is_written() -> None:
    with connect("p0") as p0, connect("p1") as p1:
        exporter, importer = p0.spawn(), p1.spawn()
        addr = exporter.mmap(1 << 20)
        exporter.store(addr, b"hello")
        segid = exporter.xpmem_make(addr, 1 << 20, 0o600)
        apid = importer.xpmem_get(segid, XPMEM_RDWR)
        at = importer.xpmem_attach(apid, 0, 1 << 20)
        assert importer.load(at, 5) == b"hello"


def test_a_partition_that_is_refused_says_why_and_nothing_of_its_threads(home: Home) -> None:
    nowhere = PartitionSpec("p0", 0, console="ipc:///proc/no-such-folder/console")
    with pytest.raises(KernelError, match="cannot listen at ipc:///proc/no-such-folder") as refused:
        processes.up(ClusterSpec("real", (nowhere,), memory=16 << 20))
    assert "never awaited" not in str(refused.value)
    [log] = home.run.glob("xpmem-emu/real/p0.log")
    assert [json.loads(line)["event"] for line in log.read_text().splitlines()] == ["refused"]


@pytest.mark.usefixtures("two_partitions")
def test_the_death_of_an_exporter_is_a_signal_and_a_reboot_heals() -> None:
    with connect("p1") as p1:
        importer = p1.spawn()
        with connect("p0") as p0:
            exporter = p0.spawn()
            addr = exporter.mmap(MEBIBYTE)
            apid = importer.xpmem_get(exporter.xpmem_make(addr, MEBIBYTE))
            at = importer.xpmem_attach(apid, 0, MEBIBYTE)
            importer.store(at, b"written")
            assert exporter.load(addr, 7) == b"written"
            with p1.events() as events:
                processes.crash("real", "p0")
                next(one for one in events if one.get("state") == "INACTIVE")
        with pytest.raises(SigBus) as caught:
            importer.load(at, 1)
        assert caught.value.info.partid == 0
        with p1.events() as events:
            processes.boot("real", "p0")
            next(one for one in events if one.get("state") == "ACTIVE")
        with connect("p0") as p0:
            exporter = p0.spawn()
            segid = exporter.xpmem_make(exporter.mmap(MEBIBYTE), MEBIBYTE)
            assert importer.xpmem_get(segid) > 0


@pytest.mark.usefixtures("two_partitions")
def test_an_orderly_shutdown_ends_every_call_and_every_process() -> None:
    process = psutil.Process(processes.reboot("real", "p0").pid)  # a child, whose exit code we get
    with connect("p0") as p0:
        p0.spawn()
        p0.shutdown()
        assert process.wait(10) == 0
        with pytest.raises(XpmemError):
            p0.status()
