"""The recall: getting pages back from every partition that holds them.

Two phases, after the thread's own conclusion (sources T11, T12):

* `begin` - atomic, under the page-table lock of the exporter's address space: bump the sequence,
  mark the pages in page requests, take the pages out of the PFN table, zap what this very
  partition imported. Nothing sleeps, nothing is sent.
* `settle` - may sleep, after all spinlocks are dropped: one INVALIDATE per holder for everything
  begun, all in parallel; wait for every acknowledgement, each until its deadline. A holder that
  does not answer is deactivated, which fences it (fence.py). Only then are the frames unpinned,
  and only after that may the caller's gather free them (sources T15). What stays in use although a
  holder was given up is `Fence.passed`'s business.

        exporter                                 importer
        | munmap: begin, sequence 7 -> 8
        |------------ INVALIDATE(5) ------------>|
        |                                        | PTE cleared, in-flight fault marked
        |<----------- INVALIDATE_ACK ------------|
        | unpin, then free

Several operations may take pages of one group at the same time; each recall is run once, and
everybody waits for all that concern them:

        munmap of pages 0 to 9                   mprotect of pages 5 to 14
        | begin
        |                                        | begin
        | settle: runs both recalls
        |                                        | settle: none left to run; waits for its own
        | the last ACK: unpin, both end -------->| goes on

It does not know why pages go: munmap, reclaim, remove and all the others look alike here.
"""

from collections.abc import Callable
from itertools import islice

from msgspec.structs import replace

from xpmem_emu.errors import KernelBug
from xpmem_emu.failpoints.engine import said_so
from xpmem_emu.failpoints.points import RECALL_SEND, RECALL_UNPIN
from xpmem_emu.mm.page_cache import unpin_pages
from xpmem_emu.sched import Completion
from xpmem_emu.units import PAGE_MASK, PAGE_SHIFT
from xpmem_emu.xpc.messages import ENTRIES_MAX, Invalidate, RecallEntry
from xpmem_emu.xpc.reasons import Reason
from xpmem_emu.xpc.xpc import XpcError
from xpmem_emu.xpmem import events
from xpmem_emu.xpmem.extents import Range, Vector, intersect
from xpmem_emu.xpmem.objects import Recall, Segment, ThreadGroup
from xpmem_emu.xpmem.services import Services

MEM_CHANNEL = 0

RecallPlan = dict[tuple[int, int], list[RecallEntry]]
"""By holder: partid and session."""


class Recalls:
    """All recalls of one exporting partition."""

    def __init__(self, services: Services, drop_local: Callable[[Invalidate], None]) -> None:
        self._services = services
        self._drop_local = drop_local
        self._number = 0
        self.pinned_total = 0
        self.unpinned_total = 0

    def begin(self, segment: Segment, pages: Range, going_away: str = "") -> None:
        """Take `pages` of `segment` away from everybody; atomic. `settle` must follow."""
        assert intersect(pages, (0, segment.pages)) == pages
        segment.sequence += 1
        self._services.tracer.emit(
            events.SequenceBump(
                segid=segment.segid, sequence=segment.sequence, page=pages[0], count=pages[1]
            )
        )
        # Who pins asleep has not recorded yet. Its mark and the emptied table are one step, so it
        # finds either its pages unmarked and no recall, or the mark.
        for request in segment.requests:
            request.spoil(pages)
        recall = Recall(segment, pages, segment.sequence, segment.table.take(*pages), going_away)
        if not len(recall.taken.frames):
            return  # nobody holds anything: nothing to wait for
        segment.recalls.append(recall)
        segment.group.recalls[recall] = None
        # This partition's own imports need no message and no acknowledgement: they are zapped in
        # this step, under the special_lock of whoever imports, which comes after our lock.
        local = self._entry(recall, recall.taken.holders.pop(self._services.partid, []))
        if local.ranges:
            self._drop_local(Invalidate([local]))

    async def settle(self, group: ThreadGroup, start: int, end: int) -> None:
        """Return when no recall of `group` overlaps [start, end), those begun by others included.

        Bounded: a holder acknowledges, or its deadline passes and it is fenced.
        """
        batch = [recall for recall in group.recalls if not recall.started]
        for recall in batch:
            recall.started = True
        if batch:
            await self._run(batch)
        # A copy: recalls end and begin while this sleeps. One that began later is its owner's to
        # wait for, unless it overlaps: then pages of ours are in it.
        for segment in dict.fromkeys(recall.segment for recall in group.recalls):
            pages = pages_of(segment, start, end)
            while pages is not None and segment.recalled(pages):
                await segment.changed.wait(
                    self._services.scheduler.now_ns + self._services.recall_bound_ns
                )

    def pin(self, segment: Segment, frames: Vector) -> None:
        """Account for frames that were just pinned for `segment`."""
        segment.group.pinned += len(frames)
        self.pinned_total += len(frames)
        if len(frames):
            self._services.tracer.emit(events.PagesPin(segid=segment.segid, pages=len(frames)))

    def unpin(self, segment: Segment, frames: Vector) -> None:
        """Give pinned frames of `segment` back to the allocator."""
        if not len(frames):
            return
        segment.group.pinned -= len(frames)
        self.unpinned_total += len(frames)
        self._services.tracer.emit(events.PagesUnpin(segid=segment.segid, pages=len(frames)))
        unpin_pages(self._services.memory, frames)

    async def _run(self, batch: list[Recall]) -> None:
        self._number += 1
        number = self._number
        # Holders and their sessions are read in one step. A peer that is given up later is taken
        # out of `holders` by the fence, and its INVALIDATE ends with its session.
        plan: RecallPlan = {}
        for recall in batch:
            for partid, ranges in recall.taken.holders.items():
                plan.setdefault(self._session(partid), []).append(self._entry(recall, ranges))
        pages = sum(len(recall.taken.frames) for recall in batch)
        if plan:
            self._services.tracer.emit(
                events.RecallBegin(
                    recall=number, holders=sorted(partid for partid, _ in plan), pages=pages
                )
            )
        fenced = await self._tell(plan)
        if self._services.failpoints.armed:
            await self._services.failpoints.reach(RECALL_UNPIN)
        # Everybody has acknowledged or was given up, and the fence has the frames of those (S2):
        #
        #   recall                           fence of a holder that does not answer
        #   INVALIDATE sent, asleep
        #                                    session over: a reference of its own on the recalled
        #                                    frames, that holder taken out, and then we wake
        #   unpin: freed, but for those
        for recall in batch:
            self.unpin(recall.segment, recall.taken.frames)
            recall.segment.recalls.remove(recall)
            del recall.segment.group.recalls[recall]
            recall.segment.changed.wake_all()
        if plan:
            self._services.tracer.emit(events.RecallEnd(recall=number, pages=pages, fenced=fenced))

    def _session(self, partid: int) -> tuple[int, int]:
        """A holder with the session in which it holds: its INVALIDATE belongs in no other."""
        session = self._services.xpc.incarnation(partid)
        if session is None:
            raise KernelBug(f"p{partid} holds pages and has no session")
        return partid, session

    async def _tell(self, plan: RecallPlan) -> list[int]:
        """Send every holder its INVALIDATE, in parallel; the holders that were fenced."""
        fenced: list[int] = []
        done: list[Completion[None]] = []
        for holder, entries in islice(sorted(plan.items()), 1, None):
            completion: Completion[None] = Completion(self._services.scheduler)
            done.append(completion)
            self._services.scheduler.spawn(
                f"xpmem_recall/p{holder[0]}",
                self._tell_in_thread(*holder, entries, fenced, completion),
            )
        # The first one here: mostly there is but one holder, and it costs no thread.
        for holder, entries in islice(sorted(plan.items()), 1):
            await self._tell_one(*holder, entries, fenced)
        for completion in done:
            await completion.wait()
        return sorted(fenced)

    async def _tell_in_thread(
        self,
        partid: int,
        session: int,
        entries: list[RecallEntry],
        fenced: list[int],
        done: Completion[None],
    ) -> None:
        await self._tell_one(partid, session, entries, fenced)
        done.complete(None)

    async def _tell_one(
        self, partid: int, session: int, entries: list[RecallEntry], fenced: list[int]
    ) -> None:
        """A holder acknowledged, or is given up and so fenced: no signal to the thread for which
        the recall runs, and nothing else that happens here, is a third way out."""
        xpc, patience = self._services.xpc, self._services.recall_patience
        failpoints = self._services.failpoints
        if failpoints.armed and (number := await failpoints.reached(RECALL_SEND)):
            text = str(said_so(RECALL_SEND, number))
            xpc.condemn(partid, session, Reason.TIMEOUT, f"xpmem/recall: {text}")
        try:
            for message in self._messages(entries):
                await xpc.call(partid, MEM_CHANNEL, session, message, patience=patience)
        except XpcError:
            fenced.append(partid)

    def _messages(self, entries: list[RecallEntry]) -> list[Invalidate]:
        """All entries in one message, unless they or their ranges are more than it carries."""
        most = self._services.image.limits.recall_ranges_per_message
        messages: list[list[RecallEntry]] = [[]]
        room = most
        for entry in entries:
            ranges = entry.ranges
            while ranges:
                if not room or len(messages[-1]) == ENTRIES_MAX:
                    messages.append([])
                    room = most
                part, ranges = ranges[:room], ranges[room:]
                room -= len(part)
                messages[-1].append(replace(entry, ranges=part))
        return [Invalidate(message) for message in messages if message]

    def _entry(self, recall: Recall, ranges: list[Range]) -> RecallEntry:
        return RecallEntry(recall.segment.segid, recall.sequence, ranges, recall.going_away)


def pages_of(segment: Segment, start: int, end: int) -> Range | None:
    """The pages of `segment` that lie in [start, end) of its owner's address space."""
    first = start >> PAGE_SHIFT
    last = (end + PAGE_MASK) >> PAGE_SHIFT
    found = intersect((segment.first_vpn, segment.pages), (first, last - first))
    return found and (found[0] - segment.first_vpn, found[1])
