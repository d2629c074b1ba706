"""bte_copy: contained transfers, their timeout and their one retry (sources T17, T18)."""

import errno
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from tests.clusters import SMALL, events_of
from tests.xpmem.world import AT, PAGE, PAGES, World, outcome_of
from xpmem_emu.errors import KernelError, Signalled
from xpmem_emu.image import Bytes, DeadlineSection, Nanoseconds, XpcSection
from xpmem_emu.inject.rules import Fate, Match, Rule
from xpmem_emu.kernel import breaking, calls, device_calls
from xpmem_emu.mm import pte
from xpmem_emu.sim.cluster import SimCluster
from xpmem_emu.sim.task import SimTask
from xpmem_emu.units import MILLISECOND, SECOND
from xpmem_emu.xpmem.events import BteEnd, BteRetry, CopyServe

SIZE = PAGES * PAGE
MADE = b"exporter" * (SIZE // 8)
UNTOUCHED = b"\xa5" * SIZE
IMAGE = replace(
    SMALL,
    xpc=XpcSection(payload=Bytes(PAGE)),
    deadlines=DeadlineSection(bte_timeout=Nanoseconds(28 * SECOND)),
)


class Transfer:
    """The importer's own memory, full of a pattern, and an attachment to the exporter's."""

    def __init__(self, cluster: SimCluster) -> None:
        self.world = World(cluster)
        self.cluster, self.task = cluster, self.world.importer
        self.at = self.world.attached()
        self.own = self.task.mmap(SIZE)
        self.task.store(self.own, UNTOUCHED)

    def refused(self, source: int, target: int, size: int = SIZE) -> KernelError:
        with pytest.raises(KernelError) as caught:
            self.task.bte_copy(source, target, size)
        return caught.value

    def ended(self) -> BteEnd:
        return events_of(self.cluster.trace, BteEnd)[-1]

    def retries(self) -> int:
        return len(events_of(self.cluster.trace, BteRetry))

    def poison(self, page: int) -> int:
        """Page `page` of the exporter goes bad; its frame."""
        found = self.cluster.kernels[0].tasks.get(self.world.exporter.pid)
        assert found is not None
        entry = found.mm.page_table.walk((self.world.base >> 12) + page)
        frame = entry >> pte.FRAME_SHIFT & pte.LOCAL_MASK
        for partid in self.cluster.kernels:
            self.cluster.call(partid, breaking.Poison(0, frame))
        return frame

    def heal(self, frame: int) -> None:
        for partid in self.cluster.kernels:
            self.cluster.call(partid, breaking.Unpoison(0, frame))

    def heal_messages(self) -> None:
        """What was abandoned ends, too."""
        self.cluster.heal()
        self.cluster.run_for(60 * SECOND)

    def lose(self, kind: str, times: int = -1) -> None:
        """Messages of a kind get lost, all or so many."""
        rule = Rule("lost", Fate.DROP, Match(kind=kind))
        if times > 0:
            rule = Rule("lost", Fate.DROP, Match(kind=kind), times=times)
        self.cluster.interconnect.add(rule)


@pytest.fixture(params=["AA", "AB"])
def transfer(make_cluster: Callable[..., SimCluster], request: pytest.FixtureRequest) -> Transfer:
    """Within the coherence domain and beyond it."""
    return Transfer(make_cluster(image=IMAGE, domains=request.param))


@pytest.fixture
def near(make_cluster: Callable[..., SimCluster]) -> Transfer:
    return Transfer(make_cluster(image=IMAGE))


def test_bytes_go_between_addresses_of_a_task_and_nothing_is_mapped_or_pinned(
    transfer: Transfer,
) -> None:
    task = transfer.task
    task.bte_copy(transfer.at + 3, transfer.own + 5, SIZE - 10)
    assert task.load(transfer.own, SIZE) == UNTOUCHED[:5] + MADE[3 : SIZE - 7] + UNTOUCHED[:5]
    task.bte_copy(transfer.own, transfer.at, 5)
    assert transfer.world.exporter.load(transfer.world.base, 5) == UNTOUCHED[:5]
    assert [transfer.cluster.audit(partid)["pins"] for partid in (0, 1)] == [0, 0]
    assert (transfer.ended().arrived, transfer.ended().outcome) == (5, "done")


def test_blocks_are_counted_from_the_beginning_wherever_that_is(transfer: Transfer) -> None:
    for begin in (8, 3):
        before = len(events_of(transfer.cluster.trace, CopyServe))
        transfer.task.bte_copy(transfer.at + begin, transfer.own, 2 * PAGE)
        sizes = [each.size for each in events_of(transfer.cluster.trace, CopyServe)[before:]]
        assert sizes == [PAGE - begin % 8, PAGE, *([begin % 8] if begin % 8 else [])]


def test_source_and_target_may_both_be_of_other_partitions(
    make_cluster: Callable[..., SimCluster],
) -> None:
    world = World(make_cluster(partitions=3, domains="ABC"))
    other, engine = world.spawn(1), world.spawn(2)
    base = other.mmap(SIZE)
    spots = [
        engine.xpmem_attach(engine.xpmem_get(segid), PAGE, SIZE - PAGE)
        for segid in (world.segid, other.xpmem_make(base, SIZE, 0o666))
    ]
    engine.bte_copy(spots[0], spots[1], SIZE - PAGE)
    assert other.load(base, SIZE) == bytes(PAGE) + MADE[PAGE:]


def test_a_source_that_dies_midway_leaves_the_rest_of_the_target_alone(transfer: Transfer) -> None:
    before = len(events_of(transfer.cluster.trace, CopyServe))
    copy = device_calls.BteCopy(transfer.task.pid, transfer.at, transfer.own, SIZE)
    ticket = transfer.task.begin(copy)
    transfer.cluster.run_until(
        lambda: len(events_of(transfer.cluster.trace, CopyServe)) == before + 3
    )
    transfer.cluster.crash(0)
    transfer.cluster.run_until(lambda: ticket.ended)
    with pytest.raises(KernelError, match="bytes arrived") as caught:
        ticket.answer()
    assert caught.value.errno in (errno.ETIMEDOUT, errno.EHOSTDOWN)
    arrived = transfer.ended().arrived
    assert arrived in (2 * PAGE, 3 * PAGE)
    assert caught.value.cause.startswith(f"{arrived} of {SIZE} bytes arrived")
    assert transfer.task.load(transfer.own, SIZE) == MADE[:arrived] + UNTOUCHED[arrived:]
    transfer.cluster.prove_gone(0)


def test_a_bad_frame_is_an_error_of_the_engine_and_the_death_of_who_loads(
    transfer: Transfer,
) -> None:
    transfer.task.load(transfer.at, SIZE)
    frame = transfer.poison(2)
    refused = transfer.refused(transfer.at, transfer.own)
    assert refused.errno == errno.EIO
    assert refused.cause.startswith(f"{2 * PAGE} of {SIZE} bytes arrived: ")
    assert "machine check" in refused.cause
    assert transfer.task.load(transfer.own, SIZE) == MADE[: 2 * PAGE] + UNTOUCHED[2 * PAGE :]
    assert transfer.retries() == 0
    with pytest.raises(Signalled, match="machine check") as caught:
        transfer.task.load(transfer.at, SIZE)
    assert caught.value.info.forced
    assert outcome_of(lambda: transfer.task.load(transfer.own, 1)) == "ESRCH"
    assert all(kernel.stopped is None for kernel in transfer.cluster.kernels.values())
    transfer.heal(frame)


def test_an_unanswered_read_is_repeated_once_and_then_it_is_an_error(transfer: Transfer) -> None:
    before = transfer.cluster.now_ns
    transfer.lose("COPY_REPLY")
    refused = transfer.refused(transfer.at, transfer.own)
    assert refused.errno == errno.ETIMEDOUT
    assert refused.cause.startswith(f"0 of {SIZE} bytes arrived, after a retry: ")
    took = transfer.cluster.now_ns - before
    assert 56 * SECOND <= took < 57 * SECOND
    assert transfer.retries() == transfer.ended().retries == 1
    assert transfer.cluster.kernels[1].xpc.incarnation(0) is not None
    transfer.cluster.heal()
    assert transfer.task.load(transfer.own, SIZE) == UNTOUCHED


def test_one_lost_answer_is_made_good_and_a_second_in_the_same_call_is_not(
    transfer: Transfer,
) -> None:
    transfer.lose("COPY_REPLY", times=1)
    transfer.task.bte_copy(transfer.at, transfer.own, PAGE)
    assert transfer.ended().retries == 1
    transfer.cluster.heal()
    transfer.task.store(transfer.own, UNTOUCHED)
    transfer.lose("COPY_REPLY", times=1)
    copy = device_calls.BteCopy(transfer.task.pid, transfer.at, transfer.own, SIZE)
    ticket = transfer.task.begin(copy)
    transfer.cluster.run_until(lambda: transfer.retries() == 2)
    served = len(events_of(transfer.cluster.trace, CopyServe))
    transfer.cluster.run_until(
        lambda: len(events_of(transfer.cluster.trace, CopyServe)) == served + 3
    )
    transfer.cluster.heal()
    transfer.lose("COPY_REPLY", times=1)
    transfer.cluster.run_until(lambda: ticket.ended)
    assert outcome_of(ticket.answer) == "ETIMEDOUT"
    assert transfer.retries() == 2
    assert transfer.ended().retries == 1
    assert transfer.ended().arrived > 0
    transfer.heal_messages()


def test_an_image_says_how_often_and_how_long(make_cluster: Callable[..., SimCluster]) -> None:
    times = DeadlineSection(bte_timeout=Nanoseconds(MILLISECOND * 100), bte_retries=0)
    transfer = Transfer(make_cluster(image=replace(IMAGE, deadlines=times)))
    before = transfer.cluster.now_ns
    transfer.lose("COPY_REPLY")
    assert "retry" not in transfer.refused(transfer.at, transfer.own).cause
    assert transfer.cluster.now_ns - before < 110 * MILLISECOND
    transfer.heal_messages()


def test_a_write_is_not_repeated_and_what_it_may_have_done_is_told(transfer: Transfer) -> None:
    transfer.lose("COPY_REPLY")
    refused = transfer.refused(transfer.own, transfer.at)
    assert refused.errno == errno.ETIMEDOUT
    assert refused.cause.startswith(f"0 of {SIZE} bytes arrived, {PAGE} more may have: ")
    assert transfer.retries() == 0
    transfer.cluster.heal()
    seen = transfer.world.exporter.load(transfer.world.base, SIZE)
    assert seen == UNTOUCHED[:PAGE] + MADE[PAGE:]


def test_what_the_home_refuses_is_not_repeated(transfer: Transfer) -> None:
    transfer.world.exporter.munmap(transfer.world.base + PAGE, PAGE)
    refused = transfer.refused(transfer.at, transfer.own)
    assert (refused.errno, transfer.ended().arrived) == (errno.EFAULT, PAGE)
    transfer.world.exporter.xpmem_remove(transfer.world.segid)
    assert transfer.refused(transfer.at, transfer.own).errno == errno.ENOENT
    assert transfer.retries() == 0


def test_a_killed_task_waits_for_no_engine(transfer: Transfer) -> None:
    transfer.lose("COPY_REPLY")
    copy = device_calls.BteCopy(transfer.task.pid, transfer.at, transfer.own, SIZE)
    ticket = transfer.task.begin(copy)
    transfer.cluster.run_for(MILLISECOND)
    before = transfer.cluster.now_ns
    transfer.task.kill()
    assert outcome_of(ticket.answer) == "SIGKILL"
    assert transfer.cluster.now_ns - before < MILLISECOND
    transfer.heal_messages()


def test_an_attachment_that_is_given_up_meanwhile_ends_the_transfer(transfer: Transfer) -> None:
    copy = device_calls.BteCopy(transfer.task.pid, transfer.at, transfer.own, SIZE)
    ticket = transfer.task.begin(copy)
    transfer.cluster.run_until(lambda: len(events_of(transfer.cluster.trace, CopyServe)) > 1)
    transfer.task.xpmem_detach(transfer.at)
    assert outcome_of(ticket.answer) == "EFAULT"
    arrived = transfer.ended().arrived
    assert transfer.task.load(transfer.own, SIZE) == MADE[:arrived] + UNTOUCHED[arrived:]


def test_own_memory_on_a_bad_frame_is_an_error_too(near: Transfer) -> None:
    exporter: SimTask = near.world.exporter
    target = exporter.mmap(SIZE)
    frame = near.poison(1)
    with pytest.raises(KernelError, match="machine check") as caught:
        exporter.bte_copy(near.world.base, target, SIZE)
    assert caught.value.errno == errno.EIO
    assert exporter.load(target, 8) == b"exporter"
    near.heal(frame)


@pytest.mark.parametrize(
    ("source", "target", "size", "error", "cause"),
    [
        ("at", "own", 0, "EINVAL", "give a size above 0"),
        ("own", "own+8", 16, "EINVAL", "do not overlap"),
        ("nothing", "own", 8, "EFAULT", "nothing is mapped at 0x10000"),
        ("at", "nothing", 8, "EFAULT", "nothing is mapped at 0x10000"),
        ("at", "own", SIZE + 1, "EFAULT", "get attachments"),
        ("at+1", "own", SIZE, "EFAULT", "get attachments"),
        ("own", "read", 8, "EACCES", "XPMEM_RDWR"),
    ],
)
def test_what_cannot_be_copied_is_refused_with_a_remedy(
    near: Transfer, source: str, target: str, size: int, error: str, cause: str
) -> None:
    read = near.task.mmap(PAGE, calls.PROT_READ)
    places = {"at": near.at, "own": near.own, "nothing": 0x10000, "read": read}

    def place(text: str) -> int:
        name, _, more = text.partition("+")
        return places[name] + int(more or 0)

    state = near.world.state()
    refused = near.refused(place(source), place(target), size)
    assert errno.errorcode[refused.errno] == error
    assert cause in f"{refused.cause} {refused.remedy}"
    assert near.world.state() == state
    assert near.task.load(near.own, SIZE) == UNTOUCHED
    assert near.at == AT
