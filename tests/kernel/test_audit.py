"""Every index and count that the audit compares: each is falsified in turn, and is noticed."""

from collections.abc import Callable, Iterable

import numpy as np
import pytest

from tests.clusters import SMALL
from tests.xpmem.world import PAGE, PAGES, World
from xpmem_emu.errors import KernelBug
from xpmem_emu.kernel import calls
from xpmem_emu.kernel.admission import Purpose
from xpmem_emu.kernel.audit import check_kernel
from xpmem_emu.kernel.interface import Panic, Tick
from xpmem_emu.kernel.kernel import Kernel
from xpmem_emu.mm import pte
from xpmem_emu.mm.extents import Frames, numbers
from xpmem_emu.mm.mm_types import FrameOwner
from xpmem_emu.mm.vma_flags import Prot
from xpmem_emu.sim.cluster import SimCluster
from xpmem_emu.xpc.slots import SendRing
from xpmem_emu.xpmem.extents import Range
from xpmem_emu.xpmem.objects import Recall
from xpmem_emu.xpmem.pfn_table import Taken

SIZE = PAGES * PAGE


class Stage(World):
    """The usual cast, a file that is mapped, a page in swap, and a copy that a child shares."""

    def __init__(self, cluster: SimCluster) -> None:
        super().__init__(cluster)
        self.at = self.attached()
        self.importer.load(self.at, SIZE)
        cluster.call(0, calls.Creat("f", 2 * PAGE))
        self.file = self.exporter.mmap(2 * PAGE, flags=calls.MAP_SHARED, file="f")
        self.exporter.store(self.file, b"x" * 2 * PAGE)
        self.swapped = self.exporter.mmap(PAGE)
        self.exporter.store(self.swapped, b"swapped")
        cluster.call(0, calls.Reclaim(1, self.exporter.pid, self.swapped, PAGE))
        self.home, self.away = cluster.kernels[0], cluster.kernels[1]
        self.task = self.home.tasks.find(self.exporter.pid)
        self.mm, self.frames = self.task.mm, self.home.memory.frames
        self.frame = self.mm.page_table.walk(self.base >> 12) >> 12 & pte.LOCAL_MASK
        self.segment = self.home.xpmem.exporter.segments[self.segid]
        self.imported = self.away.xpmem.imports.all()[0]
        self.inode = self.home.memory.files.by_name["f"]
        area, file_area = self.mm.vmas.find(self.base), self.mm.vmas.find(self.file)
        assert area is not None
        assert file_area is not None
        self.area, self.file_area = area, file_area


def put(place: object, name: str, value: object) -> None:
    setattr(place, name, value)


def bump(vector: object, index: int = 1) -> None:
    vector[index] += 1  # type: ignore[index]


def refer(stage: Stage, why: object) -> None:
    """A reference to the frame, for this reason: neither is there."""
    bump(why, stage.frame)
    bump(stage.frames.refcount, stage.frame)


def anon_vma(stage: Stage) -> FrameOwner:
    assert stage.area.anon_vma is not None
    return stage.area.anon_vma


FALSE: dict[str, tuple[Callable[[Stage], object], str]] = {
    "references": (lambda s: bump(s.frames.refcount, s.frame), "refcount"),
    "mappings": (lambda s: bump(s.frames.mapcount, s.frame), "mapcount"),
    "pins": (lambda s: refer(s, s.frames.pins), "pins"),
    "quarantine": (lambda s: refer(s, s.frames.quarantined), "quarantine"),
    "swap slots": (lambda s: bump(s.home.memory.swap.count, 0), "swap slot"),
    "resident pages": (lambda s: put(s.mm, "rss", s.mm.rss + 1), "rss"),
    "number of free frames": (lambda s: put(s.frames, "free", s.frames.free - 1), "free"),
    "the free list": (lambda s: bump(s.frames._stack, 0), "free frame"),
    "owner of a frame": (lambda s: bump(s.frames.owner, s.frame), "not found by its frame"),
    "index of a frame": (lambda s: bump(s.frames.index, s.frame), "found elsewhere"),
    "a dirty page": (lambda s: s.inode.dirty.fill(False), "clean"),
    "the page cache": (lambda s: s.inode.frames.fill(0), "mapcount|refcount|dirty"),
    "the disk": (lambda s: put(s.home.memory.files, "used", 1), "disk"),
    "order of areas": (lambda s: s.mm.vmas._starts.reverse(), "not indexed"),
    "overlap of areas": (lambda s: put(s.area, "end", s.area.end + (1 << 44)), "begins before"),
    "an area without entries": (lambda s: put(s.area, "end", s.area.end - PAGE), "in areas"),
    "rights of an area": (lambda s: put(s.area, "prot", Prot.READ), "may be stored to"),
    "an area's owner": (lambda s: anon_vma(s).vmas.clear(), "list of its owner|kept by"),
    "a file's areas": (
        lambda s: s.home.memory.owners[s.inode.id].vmas.clear(),
        "list of its owner",
    ),
    "a foreign entry at home": (
        lambda s: s.mm.page_table.write(
            pages(s.base), pte.make(pages(s.base), pte.PRESENT | pte.SPECIAL)
        ),
        "rss|wrong kind",
    ),
    "pinned pages of a group": (lambda s: put(s.segment.group, "pinned", 1), "pinned"),
    "places for pins": (lambda s: put(s.segment.group, "pinning", 1), "being pinned"),
    "places for permits": (lambda s: put(s.segment.group, "getting", 1), "asked for"),
    "rights of what is not known": (
        lambda s: bump(next(iter(s.imported.table.radix.leaves(0, 1)))[1].flags, PAGES),
        "with rights",
    ),
    "a page that nothing shows": (
        lambda s: put(next(iter(s.imported.attachments.values())), "pages", (0, 1)),
        "no attachment shows",
    ),
    "an area of another permit": (
        lambda s: put(next(iter(s.imported.permits)), "apid", 1),
        "outlived permit",
    ),
    "a page in transit": (
        lambda s: s.mm.page_table.write(
            pages(s.file), pte.busy(s.mm.page_table.read(pages(s.file)))
        ),
        "nobody moves",
    ),
    "the PFN table's count": (lambda s: put(s.segment.table, "pages", 1), "known|pinned"),
    "a holder without a permit": (lambda s: s.segment.table.hold(3, 0, 1), "without a permit"),
    "a page that nobody holds": (lambda s: forget_holder(s), "held"),
    "a page that moved": (
        lambda s: s.mm.page_table.write(pages(s.base), s.mm.page_table.read(pages(s.base + PAGE))),
        "mapcount|frame",
    ),
    "a page that is known while it is recalled": (lambda s: recall(s, (0, 1), {}), "known again"),
    "a recall from who is lost": (
        lambda s: recall(s, (PAGES, 1), {9: []}),
        "from p9, which is lost",
    ),
    "a segment of no group": (lambda s: s.segment.group.segments.clear(), "pinned|segments"),
    "a grant of no segment": (lambda s: s.segment.grants.clear(), "grants"),
    "a group that is not told": (lambda s: s.mm.notifiers.registered.clear(), "not told"),
    "a group that is not found": (lambda s: s.home.xpmem.device.groups.clear(), "found"),
    "a thread of no task": (
        lambda s: s.task.threads.update({next(iter(s.home.scheduler.threads)): None}),
        "not of task",
    ),
    "a task's address space": (
        lambda s: put(s.task, "mm", s.home.memory.new_address_space(9)),
        "of no task",
    ),
    "an address space of nobody": (lambda s: s.home.memory.new_address_space(9), "of no task"),
    "an imported page": (lambda s: s.imported.table.take(0, 1), "mapped at"),
    "faults in flight": (lambda s: put(s.away.xpmem.faults, "inflight", 3), "faults in flight"),
    "a segment that is gone": (lambda s: put(s.imported, "gone", "made up"), "is gone"),
    "a segment of a session that is over": (
        lambda s: put(s.imported, "incarnation", 1),
        "its session is over",
    ),
    "a permit of no group": (lambda s: s.imported.permits.clear(), "permits"),
    "an attachment of no permit": (
        lambda s: next(iter(s.imported.permits)).attachments.clear(),
        "no permit|attachments",
    ),
    "a frame that another stores into": (lambda s: store_into_shared(s), "others map its frame"),
    "the vectors of a file": (lambda s: put(s.inode, "dirty", s.inode.dirty[:1]), "lengths"),
    "a spinlock held asleep": (
        lambda s: next(iter(s.home.scheduler.threads)).held.append(s.mm.special_lock),
        "sleeps with special_lock",
    ),
    "an exec of another": (
        lambda s: put(s.task, "executing", next(iter(s.home.scheduler.threads))),
        "no call of it",
    ),
    "a call that was let in": (
        lambda s: s.home._admission.under_way.update({Purpose.WORK: 1}),
        "let in",
    ),
    "a slot that is lost": (lambda s: sender(s)._free[0].pop(), "slots free"),
}


def pages(address: int) -> Frames:
    return numbers(address >> 12, 1)


def store_into_shared(stage: Stage) -> None:
    stage.exporter.fork()
    shared = stage.mm.page_table.read(pages(stage.base))
    stage.mm.page_table.write(pages(stage.base), shared | np.uint64(pte.WRITE))


def recall(stage: Stage, pages: Range, holders: dict[int, list[Range]]) -> None:
    nothing = numbers(0, 0)
    one = Recall(stage.segment, pages, 1, Taken(nothing, nothing, holders), "")
    stage.segment.recalls.append(one)
    stage.segment.group.recalls[one] = None


def forget_holder(stage: Stage) -> None:
    for leaf in stage.segment.table.radix._walk(stage.segment.table.radix._root, 0, 0, 0, 512):
        for mask in leaf[1].holders.values():
            mask[0] = False


def sender(stage: Stage) -> SendRing:
    partition = stage.home.xpc.partitions[1]
    assert partition.session is not None
    opening = partition.session.channels[0].opening
    assert opening is not None
    return opening.sender


def check_all(kernels: Iterable[Kernel]) -> None:
    for kernel in kernels:
        check_kernel(kernel)


@pytest.mark.parametrize("what", FALSE)
def test_a_false_count_is_noticed(what: str) -> None:
    cluster = SimCluster(2, SMALL)
    cluster.run_until_active()
    stage = Stage(cluster)
    kernels = (stage.home, stage.away)
    check_all(kernels)
    falsify, said = FALSE[what]
    falsify(stage)
    with pytest.raises(KernelBug, match=f"audit.*({said})"):
        check_all(kernels)


def test_a_kernel_with_audits_panics_at_the_step_that_made_it_false(cluster: SimCluster) -> None:
    world = World(cluster)
    kernel: Kernel = cluster.kernels[0]
    bump(kernel.memory.frames.pins)
    assert kernel.step(cluster.now_ns, Tick()).stopped is None, "nothing happened in this step"
    ticket = world.exporter.begin(calls.Mmap(world.exporter.pid, PAGE))
    assert isinstance(kernel.stopped, Panic)
    assert "refcount" in kernel.stopped.reason or "pins" in kernel.stopped.reason
    assert "audit.py" in kernel.stopped.place
    assert ticket.ended
