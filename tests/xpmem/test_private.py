"""Private is private: no store through an attachment gets to where its exporter may not store, to a
page of a file or to one that a forked child shares (S5)."""

import pytest

from tests.xpmem.world import PAGE, PAGES, World, outcome_of
from xpmem_emu.kernel import calls
from xpmem_emu.kernel.calls import MAP_PRIVATE, PROT_READ, PROT_WRITE
from xpmem_emu.mm import pte
from xpmem_emu.sim.cluster import SimCluster
from xpmem_emu.sim.task import SimTask

SIZE = PAGES * PAGE
RW = PROT_READ | PROT_WRITE


def tolerant(world: World) -> SimTask:
    """An importer that survives a SIGBUS."""
    spawn = calls.Spawn(uid=1000, gids=[100], handled=[7])
    task = SimTask(world.cluster, 1, world.cluster.call(1, spawn).value)
    task.xpmem_open()
    return task


def writable_entries(cluster: SimCluster, task: SimTask, at: int) -> int:
    found = cluster.kernels[task.partid].tasks.find(task.pid)
    entries = found.mm.page_table.read_range(at >> 12, PAGES).tolist()
    return sum(bool(entry & pte.WRITE) for entry in entries)


def test_a_store_to_what_the_exporter_may_only_read_is_sigbus_until_it_may_write(
    cluster: SimCluster,
) -> None:
    world = World(cluster)
    importer = tolerant(world)
    at = importer.xpmem_attach(importer.xpmem_get(world.segid), 0, SIZE)
    world.exporter.mprotect(world.base, SIZE, PROT_READ)
    assert outcome_of(lambda: importer.store(at, b"untouched page")) == "SIGBUS"
    assert importer.load(at, SIZE) == b"exporter" * (SIZE // 8)
    assert writable_entries(cluster, importer, at) == 0
    assert outcome_of(lambda: importer.store(at, b"page at hand")) == "SIGBUS"
    world.exporter.mprotect(world.base, SIZE, RW)
    importer.store(at, b"now it may")
    assert world.exporter.load(world.base, 10) == b"now it may"


def test_rights_follow_the_exporters_area_page_by_page(cluster: SimCluster) -> None:
    world = World(cluster)
    importer = tolerant(world)
    at = importer.xpmem_attach(importer.xpmem_get(world.segid), 0, SIZE)
    world.exporter.mprotect(world.base + 2 * PAGE, PAGE, PROT_READ)
    assert importer.load(at, SIZE) == b"exporter" * (SIZE // 8)
    assert writable_entries(cluster, importer, at) == PAGES - 1
    assert outcome_of(lambda: importer.store(at + 2 * PAGE, b"x")) == "SIGBUS"
    importer.store(at + 3 * PAGE, b"x")


@pytest.mark.parametrize("touched_before", [False, True])
def test_a_fork_of_an_exporter_that_may_only_read_leaves_the_child_alone(
    cluster: SimCluster, touched_before: bool
) -> None:
    world = World(cluster)
    importer = tolerant(world)
    at = importer.xpmem_attach(importer.xpmem_get(world.segid), 0, SIZE)
    world.exporter.mprotect(world.base, SIZE, PROT_READ)
    if touched_before:
        importer.load(at, SIZE)
    child = world.exporter.fork()
    assert outcome_of(lambda: importer.store(at, b"importer")) == "SIGBUS"
    assert importer.load(at, 8) == child.load(world.base, 8) == b"exporter"
    world.exporter.mprotect(world.base, SIZE, RW)
    importer.store(at, b"importer")
    assert world.exporter.load(world.base, 8) == b"importer"
    assert child.load(world.base, 8) == b"exporter"
    child.mprotect(world.base, SIZE, RW)
    child.store(world.base, b"a child!")
    assert importer.load(at, 8) == b"importer"


def test_a_private_mapping_of_a_file_is_copied_before_an_importer_stores(
    cluster: SimCluster,
) -> None:
    world = World(cluster)
    importer = tolerant(world)
    cluster.call(0, calls.Creat("f", PAGE))
    cluster.call(0, calls.Pwrite("f", 0), b"on disk!")
    base = world.exporter.mmap(PAGE, PROT_READ, MAP_PRIVATE, file="f")
    segid = world.exporter.xpmem_make(base, PAGE, 0o666)
    at = importer.xpmem_attach(importer.xpmem_get(segid), 0, PAGE)
    assert outcome_of(lambda: importer.store(at, b"hijacked")) == "SIGBUS"
    world.exporter.mprotect(base, PAGE, RW)
    importer.store(at, b"hijacked")
    assert world.exporter.load(base, 8) == b"hijacked"
    assert cluster.call(0, calls.Pread("f", 0, 8)).bulk == b"on disk!"
    cluster.call(0, calls.Unlink("f"))


def test_atomic_operations_and_transfers_are_refused_there_as_stores_are(
    cluster: SimCluster,
) -> None:
    world = World(cluster)
    importer = tolerant(world)
    flags = MAP_PRIVATE | calls.MAP_ANONYMOUS | calls.MAP_UNCACHED
    word = world.exporter.mmap(PAGE, flags=flags)
    segid = world.exporter.xpmem_make(word, PAGE, 0o666)
    apid = importer.xpmem_get(segid)
    at = importer.xpmem_attach(apid, 0, PAGE)
    world.exporter.mprotect(word, PAGE, PROT_READ)
    assert importer.load(at, 8) == bytes(8)
    amo = calls.AtomicOp(importer.pid, at, "add", 1)
    assert outcome_of(lambda: cluster.call(1, amo)) != "ok"
    copy = calls.XpmemCopy(importer.pid, apid, 8, apid, 0, 8)
    assert outcome_of(lambda: cluster.call(1, copy)) == "EFAULT"
    assert world.exporter.load(word, 8) == bytes(8)


def test_a_page_cleaned_for_writeback_is_written_by_an_importer_through_a_fault(
    cluster: SimCluster,
) -> None:
    world = World(cluster)
    cluster.call(0, calls.Creat("f", PAGE))
    base = world.exporter.mmap(PAGE, flags=calls.MAP_SHARED, file="f")
    segid = world.exporter.xpmem_make(base, PAGE, 0o666)
    at = world.importer.xpmem_attach(world.importer.xpmem_get(segid), 0, PAGE)
    world.importer.store(at, b"one")
    assert cluster.call(0, calls.Writeback("f")).value == 1
    world.importer.store(at, b"two")
    assert cluster.call(0, calls.Writeback("f")).value == 1
    assert cluster.call(0, calls.Pread("f", 0, 3)).bulk == b"two"
    world.exporter.munmap(base, PAGE)
    cluster.call(0, calls.Unlink("f"))
