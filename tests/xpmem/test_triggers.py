"""Every event that takes a page away (sources T23), on one page and on ten thousand.

Each must bump the sequence, tell every holder once and nobody else, wait for the
acknowledgements, and free frames only after them. The importer's next touch sees the page as it
is now, or SIGBUS where there is none.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.clusters import LARGE, SMALL, events_of
from tests.xpmem.world import PAGE
from xpmem_emu.errors import Signalled
from xpmem_emu.kernel import calls
from xpmem_emu.kernel.calls import MADV_DONTNEED, MAP_SHARED, PROT_READ, PROT_WRITE
from xpmem_emu.mm.events import FramesFree
from xpmem_emu.mm.transit import TRANSIT_BATCH
from xpmem_emu.sim.cluster import SimCluster
from xpmem_emu.sim.task import SimTask
from xpmem_emu.trace import Record
from xpmem_emu.xpc.events import Received, Sent
from xpmem_emu.xpmem.events import FaultServe, Invalidated

OLD, NEW = b"old page", b"new page"


@dataclass
class Sharing:
    """p0 exports `pages` pages of a file mapping or of anonymous memory; p1 holds all of them,
    p2 holds a permit and an attachment but no page."""

    cluster: SimCluster
    pages: int
    file: str
    exporter: SimTask
    base: int
    segid: int
    holder: SimTask
    at: int

    @property
    def size(self) -> int:
        return self.pages * PAGE


def share(cluster: SimCluster, pages: int, file: str) -> Sharing:
    exporter = cluster.spawn(0)
    if file:
        cluster.call(0, calls.Creat(file, pages * PAGE))
        base = exporter.mmap(pages * PAGE, flags=MAP_SHARED, file=file)
    else:
        base = exporter.mmap(pages * PAGE)
    exporter.store(base, OLD * (pages * PAGE // len(OLD)))
    segid = exporter.xpmem_make(base, pages * PAGE)
    holder, bystander = cluster.spawn(1), cluster.spawn(2)
    at = holder.xpmem_attach(holder.xpmem_get(segid), 0, pages * PAGE)
    bystander.xpmem_attach(bystander.xpmem_get(segid), 0, pages * PAGE)
    assert holder.load(at, pages * PAGE) == OLD * (pages * PAGE // len(OLD))
    assert cluster.audit(0)["pins"] == pages
    return Sharing(cluster, pages, file, exporter, base, segid, holder, at)


def fork_then_write(s: Sharing) -> None:
    child = s.exporter.fork()
    s.exporter.store(s.base, NEW * (s.size // len(NEW)))
    assert child.load(s.base, 8) == OLD


def migrate(s: Sharing) -> None:
    moved = s.cluster.call(0, calls.Migrate(s.exporter.pid, s.base, s.size)).value
    assert moved == s.pages


def reclaim(s: Sharing) -> None:
    call = calls.Reclaim(s.pages, s.exporter.pid, s.base, s.size)
    assert s.cluster.call(0, call).value == s.pages


def mkclean(s: Sharing) -> None:
    assert s.cluster.call(0, calls.Writeback(s.file)).value == s.pages


def mremap(s: Sharing) -> None:
    call = calls.Mremap(s.exporter.pid, s.base, s.size, s.size, 3, s.base - 4 * s.size)
    s.cluster.call(0, call)


@dataclass(frozen=True)
class Trigger:
    """What is done, what the importer sees afterwards (None: SIGBUS), and what frees frames."""

    do: Callable[[Sharing], object]
    sees: bytes | None
    frees: bool
    file: str = ""


TRIGGERS = {
    "munmap": Trigger(lambda s: s.exporter.munmap(s.base, s.size), None, True),
    "mprotect": Trigger(lambda s: s.exporter.mprotect(s.base, s.size, PROT_READ), OLD, False),
    "madvise": Trigger(lambda s: s.exporter.madvise(s.base, s.size, MADV_DONTNEED), bytes(8), True),
    "mremap": Trigger(mremap, None, False),
    "fork then write": Trigger(fork_then_write, NEW, False),
    "exit": Trigger(lambda s: s.exporter.exit(), None, True),
    "truncate": Trigger(lambda s: s.cluster.call(0, calls.Truncate("f", 0)), None, True, "f"),
    "reclaim": Trigger(reclaim, OLD, True),
    "migrate": Trigger(migrate, OLD, True),
    "page_mkclean": Trigger(mkclean, OLD, False, "f"),
    "segment remove": Trigger(lambda s: s.exporter.xpmem_remove(s.segid), None, False),
}


def named(trace: list[Record], name: str) -> list[Record]:
    return [record for record in trace if record.name == name]


def sent(trace: list[Record], partid: int, kind: str) -> list[Sent]:
    sends = events_of((r for r in trace if r.partid == partid), Sent)
    return [each for each in sends if each.kind == kind]


@pytest.mark.parametrize("pages", [1, 10_000])
@pytest.mark.parametrize("name", TRIGGERS)
def test_trigger(make_cluster: Callable[..., SimCluster], name: str, pages: int) -> None:
    trigger = TRIGGERS[name]
    cluster = make_cluster(3, LARGE if pages > 1 else SMALL)
    sharing = share(cluster, pages, trigger.file)
    held = {
        frame
        for served in events_of(cluster.trace, FaultServe)
        for _, first, count, _ in served.extents
        for frame in range(first, first + count)
    }
    assert len(held) == pages
    start = len(cluster.trace)
    trigger.do(sharing)
    trace = cluster.trace[start:]

    assert named(trace, "xpmem:sequence"), "the sequence moved"
    invalidates = sent(trace, 0, "INVALIDATE")
    # Reclaim lets others have their turn after each batch; all else is one recall.
    recalls = -(-pages // TRANSIT_BATCH) if name == "reclaim" else 1
    assert [each.peer for each in invalidates] == [1] * recalls, "one for each, to the holder alone"
    acks = [
        r
        for r in trace
        if isinstance(r.event, Received) and r.partid == 0 and r.event.kind == "INVALIDATE_ACK"
    ]
    assert len(acks) == recalls
    freed = {
        frame
        for record in trace
        if isinstance(record.event, FramesFree) and record.partid == 0
        for first, count in record.event.extents
        for frame in range(first, first + count)
    }
    early = [
        r
        for r in trace
        if isinstance(r.event, FramesFree)
        and r.partid == 0
        and r.sequence < acks[0].sequence
        and held & {f for a, n in r.event.extents for f in range(a, a + n)}
    ]
    assert not early, "no held frame is free before the acknowledgement (S2)"
    assert (held <= freed) == trigger.frees
    assert cluster.audit(0)["pins"] == 0
    assert cluster.audit(1)["imported_pages"] == 0

    last = sharing.at + sharing.size - PAGE
    for address in (sharing.at, last):
        if trigger.sees is None:
            with pytest.raises(Signalled) as signalled:
                sharing.holder.load(address, 8)
            assert signalled.value.info.signal.name == "SIGBUS"
            assert signalled.value.info.reason
        else:
            assert sharing.holder.load(address, 8) == trigger.sees


def test_only_the_touched_part_is_recalled(make_cluster: Callable[..., SimCluster]) -> None:
    cluster = make_cluster(3)
    sharing = share(cluster, 64, "")
    start = len(cluster.trace)
    sharing.exporter.munmap(sharing.base + 10 * PAGE, 4 * PAGE)
    dropped = events_of(cluster.trace[start:], Invalidated)
    assert [each.ranges for each in dropped] == [[(10, 4)]]
    assert cluster.audit(0)["pins"] == 60


def test_a_recall_of_nothing_sends_nothing(make_cluster: Callable[..., SimCluster]) -> None:
    cluster = make_cluster(3)
    sharing = share(cluster, 4, "")
    sharing.holder.xpmem_detach(sharing.at)
    start = len(cluster.trace)
    sharing.exporter.munmap(sharing.base, sharing.size)
    assert not named(cluster.trace[start:], "xpc:send")


def test_an_address_space_without_xpmem_pays_nothing(cluster: SimCluster) -> None:
    plain = cluster.call(0, calls.Spawn()).value
    task = SimTask(cluster, 0, plain)
    base = task.mmap(8 * PAGE)
    task.store(base, b"x")
    assert not cluster.kernels[0].tasks.find(plain).mm.notifiers.registered
    start = len(cluster.trace)
    task.mprotect(base, PAGE, PROT_READ | PROT_WRITE)
    task.munmap(base, 8 * PAGE)
    assert not [r for r in cluster.trace[start:] if r.name.startswith(("xpmem:", "xpc:"))]
