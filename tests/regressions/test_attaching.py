"""Found by `sim explore remove-attach`: an attach that still waits when its permit is released."""

from tests.clusters import SMALL, leftovers
from xpmem_emu.errors import errno_name
from xpmem_emu.kernel import calls
from xpmem_emu.kernel.interface import Done, Failed
from xpmem_emu.sim.cluster import SimCluster
from xpmem_emu.units import MILLISECOND, PAGE_SIZE


def test_a_permit_released_while_attach_waits_for_what_it_replaces_leaves_no_mapping() -> None:
    """The release waited for ever for an attachment that nobody took down."""
    cluster = SimCluster(3, SMALL)
    cluster.run_until_active()
    exporter, importer, third = (cluster.spawn(partid) for partid in range(3))
    segid = exporter.xpmem_make(exporter.mmap(PAGE_SIZE), PAGE_SIZE, 0o666)
    apid = importer.xpmem_get(segid)
    place = importer.mmap(PAGE_SIZE)  # held by p2, so that replacing it has to recall it
    held = third.xpmem_get(importer.xpmem_make(place, PAGE_SIZE, 0o666))
    third.store(third.xpmem_attach(held, 0, PAGE_SIZE), b"held")
    cluster.latency_ns = lambda src, dst: (5 if 2 in (src, dst) else 1) * MILLISECOND
    attach = importer.begin(calls.XpmemAttach(importer.pid, apid, 0, PAGE_SIZE, place))
    cluster.run_for(4 * MILLISECOND)
    release = importer.begin(calls.XpmemRelease(importer.pid, apid))
    cluster.run_until(lambda: attach.ended and release.ended)
    assert isinstance(release.outcome, Done)
    assert isinstance(attach.outcome, Failed)
    assert errno_name(attach.outcome.errno) == "ENOENT"
    task = cluster.kernels[1].tasks.get(importer.pid)
    assert task is not None
    assert task.mm.vmas.find(place) is None
    assert [leftovers(cluster, partid) for partid in range(3)] == [{}, {}, {}]
