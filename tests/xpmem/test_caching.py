"""What a cache of attachments may rely on: the attachment follows the exporter's address."""

from tests.xpmem.world import FIXED, PAGE, PAGES, World, outcome_of
from xpmem_emu.kernel import calls
from xpmem_emu.kernel.breaking import FailpointClear, FailpointSet
from xpmem_emu.kernel.calls import Setuid
from xpmem_emu.sim.cluster import SimCluster
from xpmem_emu.units import MILLISECOND

SIZE = PAGES * PAGE


def test_memory_freed_and_allocated_again_at_the_same_address_is_seen_as_it_is_now(
    cluster: SimCluster,
) -> None:
    world = World(cluster)
    at = world.attached()
    assert world.importer.load(at, 8) == b"exporter"
    world.exporter.munmap(world.base, SIZE)
    world.exporter.mmap(SIZE, flags=FIXED, address=world.base)
    world.exporter.store(world.base, b"new life")
    assert world.importer.load(at, 8) == b"new life"
    world.importer.store(at, b"answered")
    assert world.exporter.load(world.base, 8) == b"answered"


def test_an_attachment_made_before_the_memory_exists_works_once_it_does(
    cluster: SimCluster,
) -> None:
    world = World(cluster)
    empty = 0x20_0000_0000
    segid = world.exporter.xpmem_make(empty, PAGE)
    at = world.importer.xpmem_attach(world.importer.xpmem_get(segid), 0, PAGE)
    assert outcome_of(lambda: world.importer.load(at, 8)) == "SIGBUS"
    world.exporter.mmap(PAGE, flags=FIXED, address=empty)
    assert world.importer.load(at, 8) == bytes(8)


def test_an_attachment_outlives_nothing_but_is_told_so(cluster: SimCluster) -> None:
    """A removed segment's attachment is SIGBUS for ever, even when the memory is exported anew."""
    world = World(cluster)
    at = world.attached()
    world.importer.load(at, 8)
    world.exporter.xpmem_remove(world.segid)
    again = world.exporter.xpmem_make(world.base, SIZE)
    assert again != world.segid
    assert outcome_of(lambda: world.importer.load(at, 8)) == "SIGBUS"
    fresh = world.importer.xpmem_attach(world.importer.xpmem_get(again), 0, SIZE)
    assert world.importer.load(fresh, 8) == b"exporter"


def test_a_permit_is_judged_once(cluster: SimCluster) -> None:
    """Later changes of the importer's uid take nothing away and give nothing."""
    world = World(cluster)
    apid = world.permit()
    world.do(world.importer, Setuid(world.importer.pid, 4711))
    at = world.importer.xpmem_attach(apid, 0, SIZE)
    assert world.importer.load(at, 8) == b"exporter"
    assert outcome_of(lambda: world.importer.xpmem_get(world.segid)) == "EACCES"


def test_a_fork_of_the_importer_leaves_attachments_with_the_parent(cluster: SimCluster) -> None:
    world = World(cluster)
    at = world.attached()
    world.importer.load(at, 8)
    child = world.importer.fork()
    assert outcome_of(lambda: child.load(at, 8)) == "SIGSEGV"
    child.exit()
    assert world.importer.load(at, 8) == b"exporter"


def test_a_fork_of_the_exporter_leaves_importers_with_the_parents_pages(
    cluster: SimCluster,
) -> None:
    world = World(cluster)
    at = world.attached()
    world.importer.load(at, 8)
    child = world.exporter.fork()
    child.store(world.base, b"child's!")
    world.exporter.store(world.base, b"parent's")
    assert world.importer.load(at, 8) == b"parent's"
    world.importer.store(at, b"importer")
    assert world.exporter.load(world.base, 8) == b"importer"
    assert child.load(world.base, 8) == b"child's!"


def test_a_permit_granted_while_its_segment_is_removed_finds_what_others_have_of_it(
    cluster: SimCluster,
) -> None:
    """The entry of a segment that is gone is not made anew: whose pages and faults it knows, those
    would be known to nobody."""
    world = World(cluster)
    at = world.attached()
    world.importer.load(at, PAGE)
    late = world.spawn(1)
    cluster.call(1, FailpointSet("xpmem.get.before_adopt", "1*pause"))
    get = late.begin(calls.XpmemGet(late.pid, world.segid))
    cluster.run_for(MILLISECOND)
    imports = cluster.kernels[1].xpmem.imports
    before = imports.find(world.segid)
    assert before is not None
    world.exporter.xpmem_remove(world.segid)
    assert before.gone
    cluster.call(1, FailpointClear())
    cluster.run_until(lambda: get.ended)
    assert imports.all() == [before]
    assert outcome_of(lambda: world.importer.load(at, 8)) == "SIGBUS"
    apid = get.answer().value
    assert isinstance(apid, int)
    assert outcome_of(lambda: late.xpmem_attach(apid, 0, PAGE)) == "ENOENT"
    late.xpmem_release(apid)
