"""Two coherence domains of real processes: memory inside, messages across."""

import hashlib
import os
from collections.abc import Iterator

import pytest

from xpmem_emu import connect
from xpmem_emu.backend import processes
from xpmem_emu.client.blocking import Partition, Task
from xpmem_emu.client.failures import SigBus
from xpmem_emu.cluster.topology import ClusterSpec, read_topology
from xpmem_emu.kernel.calls import MAP_ANONYMOUS, MAP_SHARED, MAP_UNCACHED

from .conftest import IMAGE, Home

pytestmark = pytest.mark.live

MEBIBYTE = 1 << 20
SIZE = 9 * MEBIBYTE + 4096
PAGE = 4096


class Cast:
    """An exporter on a0 with random data, importers on a1 (same domain) and b0 (another)."""

    def __init__(self, a0: Partition, a1: Partition, b0: Partition) -> None:
        self.a1, self.b0 = a1, b0
        self.exporter, self.near, self.far = a0.spawn(), a1.spawn(), b0.spawn()
        self.data = os.urandom(SIZE)
        self.base = self.exporter.mmap(SIZE)
        self.exporter.store(self.base, self.data)
        self.segid = self.exporter.xpmem_make(self.base, SIZE)

    def attach(self, task: Task) -> int:
        return task.xpmem_attach(task.xpmem_get(self.segid), 0, SIZE)


@pytest.fixture
def cast(home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cast]:
    monkeypatch.setenv("XPMEM_EMU_CLUSTER", "domains")
    spec = ClusterSpec("domains", read_topology("domains"), IMAGE, memory=48 * MEBIBYTE)
    processes.up(spec)
    with connect("a0") as a0, connect("a1") as a1, connect("b0") as b0:
        yield Cast(a0, a1, b0)


def requests(partition: Partition) -> int:
    """Numbered messages that the partition has sent to anybody."""
    counters = partition.status()["counters"]
    assert isinstance(counters, dict)
    sent = counters["sent"]
    assert isinstance(sent, int)
    return sent


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_the_other_domain_reads_what_was_exported_byte_for_byte(cast: Cast) -> None:
    at = cast.attach(cast.far)
    assert digest(cast.far.load(at, SIZE)) == digest(cast.data)
    assert cast.b0.look("attachments")[0]["access"] == "by message"


def test_a_warm_load_sends_nothing_inside_the_domain_and_one_message_across(cast: Cast) -> None:
    for task, partition, messages in ((cast.near, cast.a1, 0), (cast.far, cast.b0, 10)):
        at = cast.attach(task)
        task.load(at, 8)
        before = requests(partition)
        for _ in range(10):
            assert task.load(at, 8) == cast.data[:8]
        assert requests(partition) - before == messages


def test_stores_transfers_and_atomic_operations_come_through(cast: Cast) -> None:
    at, near_at = cast.attach(cast.far), cast.attach(cast.near)
    cast.far.store(at + PAGE - 3, b"across")
    assert cast.exporter.load(cast.base + PAGE - 3, 6) == b"across"
    assert cast.near.load(near_at + PAGE - 3, 6) == b"across"
    cast.near.store(near_at, b"from a1")
    assert cast.far.load(at, 7) == b"from a1"
    word = cast.exporter.mmap(PAGE, flags=MAP_SHARED | MAP_ANONYMOUS | MAP_UNCACHED)
    apid = cast.far.xpmem_get(cast.exporter.xpmem_make(word, PAGE))
    word_at = cast.far.xpmem_attach(apid, 0, PAGE)
    assert [cast.far.amo(word_at, "add", 2) for _ in range(3)] == [0, 2, 4]
    room = cast.far.mmap(SIZE)
    target = cast.far.xpmem_get(cast.far.xpmem_make(room, SIZE))
    cast.far.xpmem_copy((cast.far.xpmem_get(cast.segid), 0), (target, 0), SIZE)
    assert digest(cast.far.load(room, SIZE)) == digest(cast.exporter.load(cast.base, SIZE))


def test_what_the_exporter_takes_away_is_gone_at_the_next_access(cast: Cast) -> None:
    at = cast.attach(cast.far)
    assert cast.far.load(at, 8) == cast.data[:8]
    cast.exporter.munmap(cast.base, PAGE)
    with pytest.raises(SigBus) as caught:
        cast.far.load(at, 8)
    assert "nothing is mapped" in str(caught.value)
    assert cast.far.load(at + PAGE, 8) == cast.data[PAGE : PAGE + 8]
