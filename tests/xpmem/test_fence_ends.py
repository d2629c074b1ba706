"""Who waits for a fence goes on when nothing is left to move, however it went."""

import numpy as np

from tests.clusters import SMALL
from xpmem_emu.kernel import calls
from xpmem_emu.sim.cluster import SimCluster
from xpmem_emu.units import MILLISECOND, PAGE_SHIFT, PAGE_SIZE, SECOND


def test_a_page_that_goes_between_two_attempts_to_move_it_ends_the_wait() -> None:
    cluster = SimCluster(2, SMALL)
    cluster.run_until_active()
    exporter, importer = cluster.spawn(0), cluster.spawn(1)
    address = exporter.mmap(PAGE_SIZE)
    segid = exporter.xpmem_make(address, PAGE_SIZE, 0o666)
    there = importer.xpmem_attach(importer.xpmem_get(segid), 0, PAGE_SIZE)
    importer.store(there, b"held")
    kernel = cluster.kernels[0]
    task = kernel.tasks.get(exporter.pid)
    assert task is not None
    frame = task.mm.page_table.walk(address >> PAGE_SHIFT) >> 12 & (1 << 38) - 1
    kernel.memory.frames.pin(np.array([frame]))  # so it cannot be moved
    cluster.hang(1)
    remove = exporter.begin(calls.XpmemRemove(exporter.pid, segid))
    cluster.run_until(lambda: bool(len(kernel.xpmem.fence._moved)), 30 * SECOND)
    cluster.run_for(MILLISECOND // 2)
    unmap = exporter.begin(calls.Munmap(exporter.pid, address, PAGE_SIZE))
    cluster.run_until(lambda: unmap.ended)
    cluster.run_for(SECOND)
    assert remove.ended
    kernel.memory.frames.unpin(np.array([frame]))
