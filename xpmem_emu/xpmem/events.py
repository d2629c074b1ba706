"""Trace events of cross-partition memory. Pages count from the start of the segment."""

from xpmem_emu.trace import Event


class SegmentMake(Event, frozen=True, tag="xpmem:make"):
    """A segment exists."""

    segid: int
    tgid: int
    vaddr: int
    size: int


class SegmentRemove(Event, frozen=True, tag="xpmem:remove"):
    """A segment is gone; no importer can reach its pages any more."""

    segid: int
    reason: str


class PermitGet(Event, frozen=True, tag="xpmem:get"):
    """The exporter granted a permit to a task of partition `importer`."""

    segid: int
    apid: int
    importer: int


class PermitRelease(Event, frozen=True, tag="xpmem:release"):
    """The exporter forgot a permit."""

    segid: int
    apid: int
    importer: int


class AttachmentMap(Event, frozen=True, tag="xpmem:attach"):
    """An importer mapped part of a segment."""

    segid: int
    apid: int
    address: int
    size: int


class AttachmentFar(Event, frozen=True, tag="xpmem:attach_by_message"):
    """The attachment's home is in another coherence domain: each access of it is a message."""

    segid: int
    address: int
    home: int


class AttachmentUnmap(Event, frozen=True, tag="xpmem:detach"):
    """An importer's attachment is gone."""

    segid: int
    apid: int
    address: int


class FaultBegin(Event, frozen=True, tag="xpmem:fault_begin"):
    """The importer asks the home partition for a window of pages around `touched`."""

    fault: int
    segid: int
    touched: int
    page: int
    count: int


class FaultEnd(Event, frozen=True, tag="xpmem:fault_end"):
    """The fault is over: `installed`, `invalidated` (dropped), or why it failed."""

    fault: int
    segid: int
    pages: int
    outcome: str


class FaultCollision(Event, frozen=True, tag="xpmem:fault_collision"):
    """A recall overtook the answer; the frames are dropped and the fault is tried again."""

    fault: int
    segid: int
    attempt: int


class FaultServe(Event, frozen=True, tag="xpmem:fault_serve"):
    """The exporter answers: these pages are now held by `importer`."""

    segid: int
    importer: int
    page: int
    pages: int
    sequence: int
    extents: list[tuple[int, int, int, int]]


class PageInstall(Event, frozen=True, tag="xpmem:install"):
    """Special PTEs were installed: (page, frame, count, flags) of the home partition."""

    segid: int
    address: int
    extents: list[tuple[int, int, int, int]]


class SequenceBump(Event, frozen=True, tag="xpmem:sequence"):
    """The exporter's address space changed under a segment: [page, page + count)."""

    segid: int
    sequence: int
    page: int
    count: int


class RecallBegin(Event, frozen=True, tag="xpmem:recall_begin"):
    """The holders must drop pages before the frames may go."""

    recall: int
    holders: list[int]
    pages: int


class RecallEnd(Event, frozen=True, tag="xpmem:recall_end"):
    """Every holder acknowledged, was fenced or is gone."""

    recall: int
    pages: int
    fenced: list[int]


class Invalidated(Event, frozen=True, tag="xpmem:invalidate"):
    """The importer dropped pages on request: PTEs cleared, in-flight faults marked."""

    segid: int
    sequence: int
    ranges: list[tuple[int, int]]
    ptes: int
    faults: int
    going_away: str


class PagesEvict(Event, frozen=True, tag="xpmem:evict"):
    """The exporter was told that `importer` holds these pages no longer."""

    segid: int
    importer: int
    ranges: list[tuple[int, int]]


class PagesPin(Event, frozen=True, tag="xpmem:pin"):
    """Frames of the exporter were pinned for a segment."""

    segid: int
    pages: int


class PagesUnpin(Event, frozen=True, tag="xpmem:unpin"):
    """Frames of the exporter were unpinned."""

    segid: int
    pages: int


class FenceBegin(Event, frozen=True, tag="xpmem:fence_begin"):
    """A lost importer may still write these frames: they are quarantined."""

    importer: int
    incarnation: int
    frames: int
    reason: str


class FenceEnd(Event, frozen=True, tag="xpmem:fence_end"):
    """No live page is on a frame that the lost importer can reach."""

    importer: int
    incarnation: int
    moved: int


class QuarantineEmpty(Event, frozen=True, tag="xpmem:quarantine_empty"):
    """The lost importer is known gone: its quarantined frames went back to the allocator."""

    importer: int
    incarnation: int
    frames: int
    proof: str


class ImportLost(Event, frozen=True, tag="xpmem:import_lost"):
    """The home partition of an imported segment is lost: every PTE of it was zapped."""

    segid: int
    reason: str
    ptes: int


class FarAccess(Event, frozen=True, tag="xpmem:access_by_message"):
    """A load or store went to the home in so many messages: `done`, or why it failed."""

    segid: int
    address: int
    size: int
    write: bool
    messages: int
    outcome: str


class BteRetry(Event, frozen=True, tag="xpmem:bte_retry"):
    """A read of a block transfer failed and is asked for again; `at` counts its bytes."""

    transfer: int
    pid: int
    at: int
    cause: str


class BteEnd(Event, frozen=True, tag="xpmem:bte_end"):
    """A block transfer ended: `done`, or why it failed. `arrived` bytes are at the target, of
    `doubtful` more nobody knows."""

    transfer: int
    pid: int
    size: int
    arrived: int
    doubtful: int
    retries: int
    outcome: str


class CopyServe(Event, frozen=True, tag="xpmem:copy_serve"):
    """The home read or stored bytes for `importer`; offset and size in bytes of the segment."""

    segid: int
    importer: int
    offset: int
    size: int
    write: bool
