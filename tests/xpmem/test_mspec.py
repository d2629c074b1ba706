"""mspec: fetch-and-op pages, of both ends and of both kinds of attachment (sources T5, T6)."""

import errno
from collections.abc import Callable

import pytest

from tests.xpmem.world import AT, PAGE, World, outcome_of
from xpmem_emu.errors import KernelError, Signalled
from xpmem_emu.kernel import breaking, calls
from xpmem_emu.mm import pte
from xpmem_emu.sim.cluster import SimCluster
from xpmem_emu.sim.task import SimTask

PAGES = 4
SIZE = PAGES * PAGE
MSPEC = calls.MAP_SHARED | calls.MAP_ANONYMOUS | calls.MAP_MSPEC


class Words:
    """Pages of mspec on p0, seen from p1; none is there yet."""

    def __init__(self, cluster: SimCluster) -> None:
        self.cluster = cluster
        self.owner, self.user = cluster.spawn(0, uid=1000), cluster.spawn(1, uid=1000)
        self.base = self.owner.mmap(SIZE, flags=MSPEC)
        self.segid = self.owner.xpmem_make(self.base, SIZE)
        self.at = self.user.xpmem_attach(self.user.xpmem_get(self.segid), 0, SIZE, AT)

    def amo(self, task: SimTask, address: int, operation: str, operand: int = 0) -> object:
        """The word before."""
        call = calls.AtomicOp(task.pid, address, operation, operand)
        return self.cluster.call(task.partid, call).value

    def entry(self, task: SimTask, address: int) -> int:
        """A page-table word."""
        found = self.cluster.kernels[task.partid].tasks.get(task.pid)
        assert found is not None
        return found.mm.page_table.walk(address >> 12)

    def frames(self) -> int:
        """Frames that p0 has in use."""
        return self.cluster.kernels[0].memory.frames.in_use


@pytest.fixture(params=["AA", "AB"])
def words(make_cluster: Callable[..., SimCluster], request: pytest.FixtureRequest) -> Words:
    """Within the coherence domain and beyond it."""
    return Words(make_cluster(domains=request.param))


@pytest.fixture
def near(make_cluster: Callable[..., SimCluster]) -> Words:
    return Words(make_cluster())


def why(action: Callable[[], object]) -> str:
    with pytest.raises(Signalled) as caught:
        action()
    assert caught.value.info.signal.name == "SIGBUS"
    return caught.value.info.reason


def test_words_are_changed_from_both_ends_one_operation_after_the_other(words: Words) -> None:
    assert words.amo(words.owner, words.base, "fetch") == 0
    tickets = [
        task.begin(calls.AtomicOp(task.pid, at, "add", 1))
        for _ in range(20)
        for task, at in ((words.owner, words.base), (words.user, words.at))
    ]
    words.cluster.run_until(lambda: all(ticket.ended for ticket in tickets))
    assert sorted(ticket.answer().value for ticket in tickets) == list(range(40))
    assert words.user.load(words.at, 8) == (40).to_bytes(8, "little")
    assert words.amo(words.user, words.at, "swap", 7) == 40
    assert words.owner.load(words.base, 8) == (7).to_bytes(8, "little")


@pytest.mark.parametrize("what", ["load", "store", "amo", "copy"])
def test_a_hole_is_an_error_for_all_but_the_task_that_mapped_it(words: Words, what: str) -> None:
    user, at = words.user, words.at
    words.owner.store(words.base, b"there")  # the next page is not
    apid = user.xpmem_get(words.segid)
    acts: dict[str, Callable[[], object]] = {
        "load": lambda: user.load(at + PAGE, 8),
        "store": lambda: user.store(at + PAGE, b"nobody"),
        "amo": lambda: words.amo(user, at + PAGE, "add", 1),
        "copy": lambda: words.cluster.call(1, calls.XpmemCopy(user.pid, apid, 0, apid, PAGE, 8)),
    }
    before = words.frames()
    if what == "copy":
        assert outcome_of(acts[what]) == "EFAULT"
    else:
        assert "the task that mapped it must touch it first" in why(acts[what])
    assert words.frames() == before
    words.owner.load(words.base + PAGE, 1)
    assert outcome_of(acts[what]) == "ok"


def test_an_access_stops_at_the_first_hole_and_reads_around_it_only_what_is_there(
    near: Words,
) -> None:
    for page in (0, 2):
        near.owner.store(near.base + page * PAGE, b"there")
    before = near.frames()
    assert near.user.load(near.at, 5) == b"there"
    entries = [near.entry(near.user, near.at + page * PAGE) for page in range(PAGES)]
    assert [bool(entry) for entry in entries] == [True, False, True, False]
    assert "must touch it first" in why(lambda: near.user.load(near.at, SIZE))
    assert near.frames() == before


def test_what_the_owner_has_zapped_is_a_hole_until_it_touches_the_same_page_again(
    words: Words,
) -> None:
    words.owner.store(words.base, b"kept")
    assert words.user.load(words.at, 4) == b"kept"
    words.owner.zap_page_range(words.base, PAGE)
    assert "must touch it first" in why(lambda: words.user.load(words.at, 4))
    assert words.owner.load(words.base, 4) == b"kept"
    assert words.user.load(words.at, 4) == b"kept"


def test_every_entry_of_a_page_is_uncached_and_no_device_gets_one(near: Words) -> None:
    near.owner.store(near.base, b"w")
    near.user.load(near.at, 1)
    for task, at in ((near.owner, near.base), (near.user, near.at)):
        assert near.entry(task, at) & pte.UNCACHED
        task.gru_attach()
        task.mirror_attach(at, SIZE)
        for device in ("gru", "mirror"):
            with pytest.raises(KernelError, match="cached alias") as refused:
                task.device_load(device, at, 1)
            assert refused.value.errno == errno.EFAULT
        held = near.cluster.call(task.partid, calls.Look("devices")).value
        assert [row["translations"] for row in held] == [0, 0]


def test_a_mirror_that_reads_ahead_leaves_uncached_neighbours_out(cluster: SimCluster) -> None:
    task = cluster.spawn(0)
    fixed = calls.MAP_FIXED | calls.MAP_ANONYMOUS
    task.mmap(PAGE, flags=fixed | calls.MAP_PRIVATE, address=AT)
    task.mmap(PAGE, flags=fixed | calls.MAP_SHARED | calls.MAP_MSPEC, address=AT + PAGE)
    task.store(AT, b"m" * 2 * PAGE)
    task.mirror_attach(AT, 2 * PAGE)
    assert task.device_load("mirror", AT, 1) == b"m"
    (row,) = cluster.call(0, calls.Look("devices")).value
    assert row["translations"] == 1


def test_pages_stay_where_they_are_and_are_not_given_up(near: Words) -> None:
    near.owner.store(near.base, b"m" * SIZE)
    entries = [near.entry(near.owner, near.base + page * PAGE) for page in range(PAGES)]
    for advice in (calls.MADV_DONTNEED, calls.MADV_REMOVE, calls.MADV_PAGEOUT):
        with pytest.raises(KernelError, match="its pages stay") as refused:
            near.owner.madvise(near.base, SIZE, advice)
        assert (refused.value.errno, refused.value.remedy) == (
            errno.EINVAL,
            "munmap gives them back",
        )
    assert near.owner.migrate(near.base, SIZE) == 0
    for call in (calls.Reclaim(PAGES), calls.Reclaim(PAGES, near.owner.pid, near.base, SIZE)):
        assert near.cluster.call(0, call).value == 0
    assert entries == [near.entry(near.owner, near.base + page * PAGE) for page in range(PAGES)]
    assert outcome_of(lambda: near.owner.mremap(near.base, SIZE, SIZE + PAGE)) == "EFAULT"


def test_a_lost_importer_is_fenced_from_them_all_the_same(near: Words) -> None:
    near.owner.store(near.base, b"live")
    near.user.store(near.at, b"user")
    before = near.entry(near.owner, near.base)
    near.cluster.crash(1)
    near.cluster.run_until(lambda: near.cluster.kernels[0].xpc.incarnation(1) is None)
    near.cluster.run_for(1_000_000_000)
    assert near.cluster.audit(0)["quarantined"] == 1
    assert near.owner.load(near.base, 4) == b"user"
    assert near.entry(near.owner, near.base) >> pte.FRAME_SHIFT != before >> pte.FRAME_SHIFT
    assert near.entry(near.owner, near.base) & pte.UNCACHED
    near.cluster.prove_gone(1)


def test_munmap_recalls_the_pages_and_gives_them_back(near: Words) -> None:
    before = near.frames()
    near.owner.store(near.base, b"m" * SIZE)
    near.user.load(near.at, SIZE)
    near.owner.munmap(near.base, SIZE)
    assert near.frames() == before
    assert "nothing is mapped" in why(lambda: near.user.load(near.at, 1))
    assert near.cluster.kernels[0].memory.files.fixed == set()


def test_a_forked_child_has_the_same_pages_and_touches_for_itself(near: Words) -> None:
    near.owner.store(near.base, b"both")
    child = near.owner.fork()
    assert near.amo(child, near.base, "fetch") == int.from_bytes(b"both", "little")
    child.store(near.base + PAGE, b"of the child")
    assert "must touch it first" in why(lambda: near.user.load(near.at + PAGE, 1))
    assert near.owner.load(near.base + PAGE, 12) == b"of the child"
    assert near.user.load(near.at + PAGE, 12) == b"of the child"


def test_what_an_owner_may_only_read_nobody_changes(words: Words) -> None:
    words.owner.store(words.base, b"m" * SIZE)
    words.owner.mprotect(words.base, SIZE, calls.PROT_READ)
    assert words.user.load(words.at, 1) == b"m"
    assert outcome_of(lambda: words.amo(words.owner, words.base, "add", 1)) == "SIGSEGV"
    assert outcome_of(lambda: words.amo(words.user, words.at, "add", 1)) == "SIGBUS"


def test_a_word_on_a_bad_frame_kills_who_asks_and_nobody_else(words: Words) -> None:
    words.owner.store(words.base, b"m")
    frame = words.entry(words.owner, words.base) >> pte.FRAME_SHIFT & pte.LOCAL_MASK
    for partid in words.cluster.kernels:
        words.cluster.call(partid, breaking.Poison(0, frame))
    with pytest.raises(Signalled, match="machine check") as caught:
        words.amo(words.user, words.at, "add", 1)
    assert caught.value.info.forced
    other = words.cluster.spawn(1)
    assert outcome_of(lambda: other.mmap(PAGE)) == "ok"
    for partid in words.cluster.kernels:
        words.cluster.call(partid, breaking.Unpoison(0, frame))


@pytest.mark.parametrize(
    ("flags", "prot", "offset", "error", "cause"),
    [
        (calls.MAP_PRIVATE | calls.MAP_ANONYMOUS, 3, 0, "EINVAL", "a cached alias"),
        (calls.MAP_SHARED | calls.MAP_ANONYMOUS, 3, PAGE, "EINVAL", "pages of its own"),
        (calls.MAP_SHARED | calls.MAP_ANONYMOUS, 1, 0, "EPERM", "mspec is for stores"),
        (calls.MAP_SHARED, 3, 0, "EINVAL", "pages of its own"),
    ],
)
def test_what_the_driver_does_not_give_is_refused_with_what_it_gives(
    cluster: SimCluster, flags: int, prot: int, offset: int, error: str, cause: str
) -> None:
    world = World(cluster)
    cluster.call(0, calls.Creat("f", PAGE))
    file = "" if flags & calls.MAP_ANONYMOUS else "f"
    state = world.state()
    with pytest.raises(KernelError, match=cause) as refused:
        world.exporter.mmap(PAGE, prot, flags | calls.MAP_MSPEC, file=file, offset=offset)
    assert errno.errorcode[refused.value.errno] == error
    assert "MAP_SHARED|MAP_ANONYMOUS|MAP_MSPEC" in refused.value.remedy
    assert world.state() == state
