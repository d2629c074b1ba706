"""An attach that still waits for the recall of what it replaces, and what other calls of its task
do meanwhile. The first was found by `sim explore remove-attach`."""

from dataclasses import dataclass

from tests.clusters import SMALL, leftovers
from xpmem_emu.errors import errno_name
from xpmem_emu.kernel import calls
from xpmem_emu.kernel.calls import MAP_ANONYMOUS, MAP_SHARED, MAP_UNCACHED
from xpmem_emu.kernel.interface import Done, Failed
from xpmem_emu.sim.cluster import SimCluster
from xpmem_emu.sim.task import SimTask
from xpmem_emu.sim.ticket import Ticket
from xpmem_emu.units import MILLISECOND, PAGE_SIZE


@dataclass
class Stage:
    """The attach is in the middle: its area is there, p2 still has what was there before."""

    cluster: SimCluster
    exporter: SimTask
    base: int
    importer: SimTask
    apid: int
    place: int
    attach: Ticket


def stage() -> Stage:
    cluster = SimCluster(3, SMALL)
    cluster.run_until_active()
    exporter, importer, third = (cluster.spawn(partid) for partid in range(3))
    base = exporter.mmap(PAGE_SIZE, flags=MAP_SHARED | MAP_ANONYMOUS | MAP_UNCACHED)
    apid = importer.xpmem_get(exporter.xpmem_make(base, PAGE_SIZE, 0o666))
    place = importer.mmap(PAGE_SIZE)  # held by p2, so that replacing it has to recall it
    held = third.xpmem_get(importer.xpmem_make(place, PAGE_SIZE, 0o666))
    third.store(third.xpmem_attach(held, 0, PAGE_SIZE), b"held")
    cluster.latency_ns = lambda src, dst: (5 if 2 in (src, dst) else 1) * MILLISECOND
    attach = importer.begin(calls.XpmemAttach(importer.pid, apid, 0, PAGE_SIZE, place))
    cluster.run_for(4 * MILLISECOND)
    assert not attach.ended
    return Stage(cluster, exporter, base, importer, apid, place, attach)


def end(at: Stage, call: calls.Call) -> Ticket:
    """Begin `call` in the importer, and have it and the attach end."""
    other = at.importer.begin(call)
    at.cluster.run_until(lambda: at.attach.ended and other.ended)
    return other


def test_a_permit_released_while_attach_waits_for_what_it_replaces_leaves_no_mapping() -> None:
    """The release waited for ever for an attachment that nobody took down."""
    at = stage()
    release = end(at, calls.XpmemRelease(at.importer.pid, at.apid))
    assert isinstance(release.outcome, Done)
    assert isinstance(at.attach.outcome, Failed)
    assert errno_name(at.attach.outcome.errno) == "ENOENT"
    task = at.cluster.kernels[1].tasks.get(at.importer.pid)
    assert task is not None
    assert task.mm.vmas.find(at.place) is None
    assert leftovers(at.cluster) == {}


def test_a_detach_while_attach_waits_for_what_it_replaces_comes_after_it() -> None:
    """It panicked the kernel: the area was there, the attachment not noted yet."""
    at = stage()
    detach = end(at, calls.XpmemDetach(at.importer.pid, at.place))
    assert [type(call.outcome) for call in (at.attach, detach)] == [Done, Done]
    task = at.cluster.kernels[1].tasks.get(at.importer.pid)
    assert task is not None
    assert task.mm.vmas.find(at.place) is None


def test_an_atomic_operation_while_attach_waits_for_what_it_replaces_comes_after_it() -> None:
    """It was sent for a word far behind the segment: the attachment had no address yet."""
    at = stage()
    amo = end(at, calls.AtomicOp(at.importer.pid, at.place, "add", 7))
    assert isinstance(amo.outcome, Done)
    assert at.exporter.load(at.base, 8) == (7).to_bytes(8, "little")
