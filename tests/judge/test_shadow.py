"""S13 and S14: the model of rights and contents sees each kind of fault, and invents none."""

from collections.abc import Callable
from contextlib import suppress

import pytest

from xpmem_emu.errors import KernelError, Signalled
from xpmem_emu.judge.shadow.world import Backing, File, ShadowPage, doubt
from xpmem_emu.kernel import calls
from xpmem_emu.kernel.breaking import FailpointSet
from xpmem_emu.sim.mutations.table import mutated
from xpmem_emu.sim.task import SimTask
from xpmem_emu.units import PAGE_SIZE

from .judged import Shared, World, judged, share

Story = Callable[[World], None]
Turn = Callable[[Shared, World], None]


def ok(do: Callable[[], object]) -> None:
    """Do something that may well be refused."""
    with suppress(KernelError, Signalled):
        do()


def fork_and_store(world: World) -> None:
    parent = world.cluster.spawn(0)
    address = parent.mmap(2 * PAGE_SIZE)
    parent.store(address, b"before" * 1000)
    child = parent.fork()
    child.store(address + 8, b"the child's")
    parent.store(address + 64, b"the parent's")
    for task in (parent, child):
        task.load(address, 2 * PAGE_SIZE)
    child.exit()


def child_of_an_exporter(world: World) -> None:
    shared = share(world.cluster)
    shared.exporter.store(shared.address, b"exported")
    shared.importer.load(shared.there, 8)
    child = shared.exporter.fork()
    shared.importer.store(shared.there, b"imported")
    assert shared.exporter.load(shared.address, 8) == b"imported"
    child.load(shared.address, 8)


def file_out_of_the_cache(world: World) -> None:
    task = world.cluster.spawn(0)
    world.cluster.call(0, calls.Creat("f", 3 * PAGE_SIZE))
    address = task.mmap(3 * PAGE_SIZE, flags=calls.MAP_SHARED, file="f")
    task.store(address, b"kept" * 3000)
    world.cluster.call(0, calls.Reclaim(1000))
    world.cluster.call(0, calls.Pread("f", 0, 3 * PAGE_SIZE))
    task.load(address, PAGE_SIZE)


def growing_file(world: World) -> None:
    task = world.cluster.spawn(0)
    world.cluster.call(0, calls.Creat("f", 100))
    address = task.mmap(PAGE_SIZE, flags=calls.MAP_SHARED, file="f")
    task.store(address, b"x" * PAGE_SIZE)
    world.cluster.call(0, calls.Truncate("f", 2 * PAGE_SIZE))
    world.cluster.call(0, calls.Pread("f", 0, 2 * PAGE_SIZE))


def store_without_right(world: World) -> None:
    task = world.cluster.spawn(0)
    address = task.mmap(2 * PAGE_SIZE, prot=calls.PROT_READ)
    task.load(address, 8)
    ok(lambda: task.store(address, b"forbidden"))
    task.munmap(address, PAGE_SIZE)
    ok(lambda: task.load(address, 8))


def stranger_gets(world: World) -> None:
    owner = world.cluster.spawn(0, uid=1000, gids=[100])
    segid = owner.xpmem_make(owner.mmap(PAGE_SIZE), PAGE_SIZE, 0o640)
    stranger = world.cluster.spawn(1, uid=1001)
    ok(lambda: stranger.xpmem_get(segid))
    friend = world.cluster.spawn(1, uid=1001, gids=[100])
    friend.xpmem_get(segid, flags=1)


def readonly_permit(world: World) -> None:
    shared = share(world.cluster)
    apid = shared.importer.xpmem_get(shared.segid, flags=1)
    ok(lambda: shared.importer.xpmem_attach(apid, 0, PAGE_SIZE))


def word_of_cached_memory(world: World) -> None:
    task = world.cluster.spawn(0)
    address = task.mmap(PAGE_SIZE)
    ok(lambda: world.cluster.call(0, calls.AtomicOp(task.pid, address, "add", 1)))
    uncached = task.mmap(PAGE_SIZE, flags=0x22 | calls.MAP_UNCACHED)
    for _ in range(3):
        world.cluster.call(0, calls.AtomicOp(task.pid, uncached, "add", 1))
    assert task.load(uncached, 8) == (3).to_bytes(8, "little")


def root_no_more(world: World) -> None:
    owner = world.cluster.spawn(0, uid=1000)
    segid = owner.xpmem_make(owner.mmap(PAGE_SIZE), PAGE_SIZE, 0o600)
    importer = world.cluster.spawn(1)
    importer.xpmem_get(segid)
    world.cluster.call(1, calls.Setuid(importer.pid, 1001))
    ok(lambda: importer.xpmem_get(segid))


STORIES: list[tuple[str, Story, str]] = [
    ("cow_copies_nothing", fork_and_store, "S14"),
    ("fork_shares_writable", fork_and_store, "S14"),
    ("fork_without_recall", child_of_an_exporter, "S14"),
    ("dirty_forgotten", file_out_of_the_cache, "S14"),
    ("tail_shows", growing_file, "S14"),
    ("anybody_stores", store_without_right, "S13"),
    ("everybody_permitted", stranger_gets, "S13"),
    ("readonly_attached", readonly_permit, "S13"),
    ("cached_words", word_of_cached_memory, "S13"),
    ("setuid_keeps_capability", root_no_more, "S13"),
]


@pytest.mark.parametrize(("mutant", "story", "invariant"), STORIES)
def test_the_model_sees(mutant: str, story: Story, invariant: str) -> None:
    with mutated(mutant):
        world = judged()
        story(world)
        world.watch.shadow.settled()
    assert invariant in world.invariants


def front_of_a_cut_attachment(world: World) -> None:
    shared = share(world.cluster)
    shared.importer.mprotect(shared.there + PAGE_SIZE, PAGE_SIZE, calls.PROT_READ)
    shared.importer.store(shared.there, b"in front of the cut")
    assert shared.exporter.load(shared.address, 8) == b"in front"


def mapped_twice(world: World, private: bool = False) -> tuple[SimTask, int, SimTask, int]:
    """Two tasks that map three pages of a file, one of them perhaps for itself."""
    world.cluster.call(0, calls.Creat("f", 3 * PAGE_SIZE))
    one, two = world.cluster.spawn(0), world.cluster.spawn(0)
    flags = calls.MAP_PRIVATE if private else calls.MAP_SHARED
    return (
        one,
        one.mmap(3 * PAGE_SIZE, flags=calls.MAP_SHARED, file="f"),
        two,
        two.mmap(3 * PAGE_SIZE, flags=flags, file="f"),
    )


def hole_beside_another_change(world: World) -> None:
    """Chaos-files, seed 66: mprotect waits for an importer, and the hole comes meanwhile."""
    one, address, two, there = mapped_twice(world)
    importer = world.cluster.spawn(1)
    apid = importer.xpmem_get(one.xpmem_make(address, 3 * PAGE_SIZE, 0o666))
    importer.store(importer.xpmem_attach(apid, 0, 3 * PAGE_SIZE), b"before" * 1000)
    change = one.begin(calls.Mprotect(one.pid, address, PAGE_SIZE, 3))
    hole = one.begin(calls.Madvise(one.pid, address, PAGE_SIZE, calls.MADV_REMOVE))
    world.cluster.run_until(lambda: change.ended and hole.ended)
    two.load(there, 3 * PAGE_SIZE)


def cut_off_under_a_copy(world: World) -> None:
    """Chaos-files, seed 69: a file ends before a page that somebody has a copy of."""
    *_, two, there = mapped_twice(world, private=True)
    two.store(there + 2 * PAGE_SIZE, b"a copy of its own")
    importer = world.cluster.spawn(1)
    apid = importer.xpmem_get(two.xpmem_make(there, 3 * PAGE_SIZE, 0o666))
    importer.load(importer.xpmem_attach(apid, 0, 3 * PAGE_SIZE), 3 * PAGE_SIZE)
    world.cluster.call(0, FailpointSet("mm.gather.before_free", "delay(1ms)"))
    cut = world.cluster.submit(0, calls.Truncate("f", PAGE_SIZE))
    while not cut.ended:
        ok(lambda: two.load(there + 2 * PAGE_SIZE, 8))
        world.cluster.run_for(50_000)


UNDAMAGED: list[Story] = [
    *{story for _, story, _ in STORIES},
    front_of_a_cut_attachment,
    hole_beside_another_change,
    cut_off_under_a_copy,
]


@pytest.mark.parametrize("story", UNDAMAGED, ids=lambda s: s.__name__)
def test_the_model_invents_nothing(story: Story) -> None:
    world = judged()
    story(world)
    world.watch.shadow.settled()
    assert world.invariants == set(), world.said()


def cut(shared: Shared, world: World) -> None:
    """Chaos-borders, seed 24."""
    shared.importer.mprotect(shared.there + PAGE_SIZE, PAGE_SIZE, calls.PROT_READ)


def boot_over(shared: Shared, world: World) -> None:
    """Chaos-supersede, seed 23."""
    world.cluster.hang(1)
    world.cluster.supersede(1)


def nothing(shared: Shared, world: World) -> None:
    """All goes on."""


@pytest.mark.parametrize(("before", "meanwhile"), [(cut, nothing), (nothing, boot_over)])
@pytest.mark.parametrize(("beside", "wrong"), [(0, set()), (1, {"S14"})])
def test_a_late_store_may_change_the_bytes_that_it_goes_to_and_no_other(
    before: Turn, meanwhile: Turn, beside: int, wrong: set[str]
) -> None:
    world = judged()
    shared = share(world.cluster)
    shared.importer.store(shared.there, bytes(PAGE_SIZE))
    entry = (
        world.cluster.kernels[0]
        .tasks.find(shared.exporter.pid)
        .mm.page_table.walk(shared.address >> 12)
    )
    before(shared, world)
    landed = world.watch.shadow.caught(1, shared.importer.pid, shared.there + 64, 8)
    meanwhile(shared, world)
    world.cluster.kernels[0].memory.frames.pages[entry >> 12][64 + beside : 72 + beside] = 7
    landed()
    shared.exporter.load(shared.address, PAGE_SIZE)
    assert world.invariants == wrong, world.said()


def moved(task: SimTask, address: int, length: int, new: int) -> int:
    answer = task.cluster.call(
        task.partid, calls.Mremap(task.pid, address, length, new, calls.MREMAP_MAYMOVE)
    ).value
    assert isinstance(answer, int)
    return answer


def test_memory_is_read_raw_when_all_is_quiet() -> None:
    world = judged()
    task = world.cluster.spawn(0)
    address = moved(task, task.mmap(2 * PAGE_SIZE), 2 * PAGE_SIZE, 4 * PAGE_SIZE)
    task.store(address, b"a" * 3 * PAGE_SIZE)
    world.watch.shadow.settled()
    assert world.invariants == set(), world.said()
    kernel = world.cluster.kernels[0]
    entry = kernel.tasks.find(task.pid).mm.page_table.walk((address >> 12) + 1)
    kernel.memory.frames.pages[entry >> 12][77] = 0
    world.watch.shadow.settled()
    assert world.invariants == {"S14"}


def test_what_a_lost_page_may_be_is_only_what_the_model_can_follow() -> None:
    """Chaos-files, seed 244: a mapping of a file that the model knows nothing of."""
    unknown, known = ShadowPage(Backing.SHARED), ShadowPage(Backing.SHARED, file=File(PAGE_SIZE))
    assert doubt(unknown, ShadowPage(Backing.PRIVATE), None).perhaps == ()
    assert doubt(doubt(unknown, known), known).perhaps == (known,)
