"""The objects of cross-partition memory and what belongs to whom.

Exporter's side:  ThreadGroup --makes--> Segment --grants--> Grant (one per permit of anybody)
Importer's side:  ThreadGroup --got--> Permit --maps--> Attachment;  Permit --of--> ImportedSegment

`ImportedSegment` is this partition's view of one segment (the proxy segment of 2008): which frames
it was told, which faults are in flight. All permits and attachments of the partition share it, so
that fifty tasks that touch one page make one FAULT. A segment of this very partition is
imported in the same way; only the messages are function calls.

Plain state with no behaviour beyond bookkeeping; no method here sleeps. No lock guards it: whoever
changes an object changes both ends of the relation before it sleeps, and `audit` compares them at
each sleep. What is said of a field below is who writes it; everybody may read it, and whoever slept
reads it again. A recall begins under the page-table lock of the exporter, where nobody may sleep:
segment, table and requests, and this partition's own imports of them, change there in one step.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from xpmem_emu.errors import Signal, SignalInfo, Signalled
from xpmem_emu.mm.mm_types import AddressSpace, Vma
from xpmem_emu.mm.vma_ops import DeadOps
from xpmem_emu.sched import WaitQueue
from xpmem_emu.units import PAGE_SHIFT
from xpmem_emu.xpc.xpc import XpcError
from xpmem_emu.xpmem.extents import Range, around, overlaps
from xpmem_emu.xpmem.ids import LastUniq
from xpmem_emu.xpmem.pfn_table import PfnTable, Taken
from xpmem_emu.xpmem.states import LIFECYCLE, LifecycleEvent, LifecycleState

CUT_OFF = "this piece was cut off from its attachment by a partial change of the mapping"


class XpmemTask(Protocol):
    """A task as XPMEM sees it."""

    pid: int
    uid: int
    gids: Sequence[int]
    cap_ipc_owner: bool
    mm: AddressSpace
    last_uniq: LastUniq


class Lifecycle:
    """Something that is made, is destroyed once, and knows that it is being destroyed."""

    life: LifecycleState = LIFECYCLE.initial
    """Who moves it to DESTROYING does the teardown; all others find it, and wait or leave."""

    @property
    def live(self) -> bool:
        """Whether nobody started to destroy it."""
        return self.life is LifecycleState.LIVE

    def destroy(self) -> None:
        """Begin the teardown: nothing new may start on it."""
        self.life = LIFECYCLE.next(self.life, LifecycleEvent.DESTROY)

    def torn_down(self) -> None:
        """The teardown is complete."""
        self.life = LIFECYCLE.next(self.life, LifecycleEvent.TORN_DOWN)


@dataclass(eq=False)
class ThreadGroup(Lifecycle):
    """The xpmem state of a process (tg): from opening the device until close, exec or exit."""

    tgid: int
    uid: int
    gid: int
    mm: AddressSpace
    last_uniq: LastUniq
    """The task's, which outlives the group."""
    changed: WaitQueue
    """Woken when an attachment, permit or segment of the group, or the group, is torn down."""
    segments: dict[int, "Segment"] = field(default_factory=dict)
    permits: dict[int, "Permit"] = field(default_factory=dict)
    """Like segments, in here until they are torn down: who ends the group can wait for them."""
    recalls: dict["Recall", None] = field(default_factory=dict)
    """Those of its segments: who waits for them looks at no other segment. From `Recalls.begin` to
    the unpin."""
    getting: int = 0
    """Permits that are being asked for: places of the limit that are taken already."""
    pinned: int = 0
    """Pages of this exporter pinned by anyone. `Recalls.pin` and `unpin` only."""
    pinning: int = 0
    """Pages that faults are about to pin, at most: places of the limit that are taken already."""
    requests: list["PageRequest"] = field(default_factory=list)
    """Whose pages those are; of segments, too, that were removed while they were being pinned."""
    fork_depth: int = 0
    """Greater than 0 between fork_begin and fork_end: faults wait. A teardown ends it."""


@dataclass(eq=False)
class PageRequest:
    """Exporter's side of a fault: pages being pinned. A recall marks those that it takes; they
    must not be recorded, the others may (sources 2.4)."""

    pages: Range
    spoilt: list[Range] = field(default_factory=list)
    """Written by `Recalls.begin`, read by `Exporter._pin` when it has slept."""

    def spoil(self, pages: Range) -> None:
        """A recall of `pages` has begun."""
        if overlaps(self.pages, pages):
            self.spoilt.append(pages)


@dataclass(eq=False)
class Recall:
    """Pages taken out of a segment's table whose holders have not all acknowledged yet."""

    segment: "Segment"
    pages: Range
    sequence: int
    taken: Taken
    """Its frames stay pinned until the end. The fence takes lost holders out of its `holders`."""
    going_away: str
    started: bool = False
    """Somebody sends the messages of it; all others wait."""


@dataclass(eq=False)
class Segment(Lifecycle):
    """A range of its owner's address space that others may attach."""

    segid: int
    group: ThreadGroup
    vaddr: int
    size: int
    mode: int
    name: str
    changed: WaitQueue
    """Woken when a recall or page request of the segment ends, or when forking ends."""
    sequence: int = 0
    """Bumped by every invalidation that overlaps the segment; it never goes back."""
    table: PfnTable = field(default_factory=PfnTable)
    """What is pinned for importers. A page is either known here or in `recalls`, never in both."""
    requests: list[PageRequest] = field(default_factory=list)
    recalls: list[Recall] = field(default_factory=list)
    grants: dict[tuple[int, int], "Grant"] = field(default_factory=dict)
    """By (importing partition, apid). The firewall's, which has them of all segments."""
    pages: int = field(init=False)
    """Length in pages."""
    first_vpn: int = field(init=False)
    """Page number of the segment's start in its owner's address space."""

    def __post_init__(self) -> None:
        self.pages, self.first_vpn = self.size >> PAGE_SHIFT, self.vaddr >> PAGE_SHIFT

    def recalled(self, pages: Range) -> bool:
        """Whether a recall in progress overlaps `pages`."""
        return any(overlaps(recall.pages, pages) for recall in self.recalls)

    def requested(self, pages: Range) -> bool:
        """Whether pages of the range are being pinned for somebody else."""
        return any(overlaps(request.pages, pages) for request in self.requests)

    def invalidated(self, pages: Range) -> bool:
        """Whether pages of the range change at home, between a start and an end (mm.designs)."""
        return any(overlaps(span, pages) for span in self._invalid())

    def _invalid(self) -> list[Range]:
        return [
            ((start >> PAGE_SHIFT) - self.first_vpn, (end - start) >> PAGE_SHIFT)
            for start, end in self.group.mm.notifiers.active
        ]

    def undisturbed(self, page: int, pages: Range) -> Range:
        """The part of `pages` around `page`, which nobody recalls or pins, where nobody does."""
        taken = [recall.pages for recall in self.recalls] + self._invalid()
        return around(page, pages, [*taken, *(request.pages for request in self.requests)])


@dataclass(eq=False)
class Grant(Lifecycle):
    """Exporter's side of a permit: partition `importer` may map the segment."""

    apid: int
    importer: int
    segment: Segment
    writable: bool
    attachments: dict[int, Range] = field(default_factory=dict)
    """What the importer told of them: shown and counted, never relied on."""


@dataclass(eq=False)
class InFlight:
    """A fault whose answer has not arrived (sources T16). An invalidation marks the pages that it
    takes: of those the answer may not be used, whatever it says."""

    number: int
    touched: int
    """The page that the fault is about; the rest is read ahead."""
    pages: Range
    until_ns: int
    """Deadline of the fault, absolute."""
    spoilt: list[Range] = field(default_factory=list)

    @property
    def valid(self) -> bool:
        """Whether the answer for the touched page may still be used."""
        return not any(overlaps((self.touched, 1), span) for span in self.spoilt)

    def spoil(self, pages: Range) -> bool:
        """An invalidation takes `pages`; whether it concerns this fault."""
        concerned = overlaps(self.pages, pages)
        if concerned:
            self.spoilt.append(pages)
        return concerned


@dataclass(eq=False)
class Eviction:
    """Pages being given back; faults on them wait until the exporter knows."""

    pages: Range


@dataclass(eq=False)
class ImportedSegment:
    """This partition's view of a segment."""

    segid: int
    home: int
    incarnation: int
    """Session with the home partition in which the frames are good."""
    size: int
    changed: WaitQueue
    """Woken when an in-flight fault or an eviction ends."""
    gone: str = ""
    """Why the segment can no longer be reached; empty while it can, never again. Set in the step
    in which its entries are zapped: each access asks it instead of the session."""
    sequence: int = 0
    """Newest sequence that an invalidation brought."""
    table: PfnTable = field(default_factory=PfnTable)
    """Frames that we hold and may map without asking; a page leaves it before we say so."""
    inflight: list[InFlight] = field(default_factory=list)
    evictions: list[Eviction] = field(default_factory=list)
    """Both keep a page for themselves: no fault begins on a page that is in one of them."""
    permits: set["Permit"] = field(default_factory=set)
    attachments: dict[int, "Attachment"] = field(default_factory=dict)
    """By number, from the end of mmap to the first step of the detach: what an INVALIDATE zaps."""
    left: Counter[int] = field(default_factory=Counter)
    """By permit, how many questions for pages are unanswered that nobody waits for any more: an
    answer may come when the permit is gone, and what it brings must be given back all the same."""
    last_failure: str = ""

    def busy(self, pages: Range) -> bool:
        """Whether a fault or an eviction in progress overlaps `pages`."""
        return any(overlaps(fault.pages, pages) for fault in self.inflight) or any(
            overlaps(eviction.pages, pages) for eviction in self.evictions
        )


@dataclass(eq=False)
class Permit(Lifecycle):
    """What xpmem_get returned to a task: an apid."""

    apid: int
    group: ThreadGroup
    imported: ImportedSegment
    flags: int
    attachments: list["Attachment"] = field(default_factory=list)
    """Those being mapped or unmapped included; until they are mapped, the segment has them not."""


@dataclass(eq=False)
class Attachment(Lifecycle, ABC):
    """One mapping of a segment, the `ops` of its VMA. `pages`: the segment's pages that it shows.

    The mapping is shared, not inherited by fork, not dumped, cannot grow and has no struct pages
    behind it (sources 1.7). When the importer itself unmaps or moves part of it, XPMEM kills the
    process, as the real driver does (sources 1.11); a VMA cut off from it (by a partial mprotect)
    leads nowhere: every access to that piece is SIGBUS.
    """

    access: ClassVar[str]
    """How loads and stores get there."""

    number: int
    permit: Permit
    mm: AddressSpace
    address: int
    """0 until mmap has returned; its area is in the list before that, under the mmap_lock."""
    pages: Range
    kill: Callable[[int, SignalInfo], None]
    imported: ImportedSegment = field(init=False)
    """The segment as this partition sees it."""

    def __post_init__(self) -> None:
        self.imported = self.permit.imported

    @property
    def end(self) -> int:
        """First address after the mapping."""
        return self.address + (self.pages[1] << PAGE_SHIFT)

    def page_at(self, address: int) -> int:
        """The segment's page behind an address of the mapping."""
        return self.pages[0] + ((address - self.address) >> PAGE_SHIFT)

    def vpn_of(self, page: int) -> int:
        """The virtual page number at which a page of the segment is mapped."""
        return (self.address >> PAGE_SHIFT) + page - self.pages[0]

    def sigbus(self, address: int, reason: str, *, forced: bool = False) -> Signalled:
        """The signal that an access at `address` gets, with everything that is known. A machine
        check is `forced`: it kills, whatever the task handles (sources T17)."""
        self.imported.last_failure = reason
        page = self.page_at(address)
        segid, home = self.imported.segid, self.imported.home
        return Signalled(SignalInfo(Signal.SIGBUS, reason, address, segid, home, page, forced))

    def unanswered(self, address: int, error: XpcError) -> Signalled:
        """The signal for a store or an atomic operation that got no answer."""
        return self.sigbus(address, self.imported.gone or str(error))

    def require_usable(self, vma: Vma, address: int) -> None:
        """Raise SIGBUS for reasons that are known here (sources 1.10 a to d, i, j)."""
        if self.imported.gone:
            raise self.sigbus(address, self.imported.gone)
        if not self.live or not self.permit.live or vma.ops is not self:
            raise self.sigbus(address, "the attachment is being detached")

    # -- VmaOps ----------------------------------------------------------------------------

    @abstractmethod
    async def fault(self, vma: Vma, address: int, write: bool) -> None:
        """Resolve a missing page; called with no lock held, may sleep for long."""

    @abstractmethod
    def check(self, vma: Vma, address: int) -> None:
        """Raise SIGBUS when the entry that was found may not be used any more."""

    def unmapped(self, vma: Vma, start: int, end: int) -> None:
        """The importer unmapped or moved [start, end) behind XPMEM's back."""
        assert vma.start <= start < end <= vma.end
        reason = (
            f"the process unmapped or moved [{start:#x}, {end:#x}) of an xpmem attachment "
            "itself; xpmem_detach is the way"
        )
        self.kill(self.permit.group.tgid, SignalInfo(Signal.SIGKILL, reason, start))

    def split(self, vma: Vma, tail: Vma) -> None:
        """The VMA was cut in two; the piece behind the cut loses its attachment."""
        assert (tail.ops, tail.start) == (self, vma.end)
        tail.ops = Severed(CUT_OFF, self)

    def owns(self, vma: Vma) -> bool:
        """Whether this area is the attachment's mapping, or a piece that was cut off from it."""
        return vma.ops is self or (isinstance(vma.ops, Severed) and vma.ops.attachment is self)


class Severed(DeadOps):
    """A piece of an attachment that shows nothing any more, and is unmapped with it."""

    def __init__(self, reason: str, attachment: Attachment) -> None:
        super().__init__(reason)
        self.attachment = attachment
