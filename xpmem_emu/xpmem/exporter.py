"""The home side: answers what importers ask about segments made here.

Every request names its permit; what a permit does not allow is refused, whoever asks (firewall).
A refusal is an errno and a cause in the reply, which the importer turns into the errno of the
call or the SIGBUS of the access. Nothing here knows at which address anybody maps a page. Frames
are for partitions of this coherence domain; whoever is beyond it gets bytes (access_server.py).

The fault, exporter's side (sources 2.3, 2.4; docs/protocol.md):

    wait while a recall, another page request or a fork has the touched page
    request = pages around it that nobody recalls or pins
    pin them (this may sleep: swap-in, demand-zero, COW break)
    a recall came meanwhile -> it marked its pages in the request: drop their pins
    the touched page is marked -> again, that page alone, a bounded number of times
    else, with no sleep in between: record in the PFN table, note the holder, answer

    fault of an importer                     recall
    | request for pages 4 to 6; pins, asleep
    |                                        | marks page 5 in the request
    |                                        | nobody holds it: nothing to wait for
    | pinned 4, 5 and 6: records 4 and 6,
    | drops the pin of 5

What was asked for is answered; read-ahead may fall away. A neighbour that is replaced all the time,
or that a stopped partition holds, neither fails a fault nor makes it wait.
"""

import errno

from xpmem_emu.errors import KernelError
from xpmem_emu.failpoints.engine import said_so
from xpmem_emu.failpoints.points import FAULT_REPLY, FAULT_SERVE
from xpmem_emu.fields import WINDOW_MAX
from xpmem_emu.mm.gup import pin_pages
from xpmem_emu.sched import Wake
from xpmem_emu.text import text
from xpmem_emu.xpc.messages import (
    Ack,
    Amo,
    Attach,
    Detach,
    Evict,
    Fault,
    FaultReply,
    FindName,
    FindNameReply,
    Get,
    Message,
    Release,
)
from xpmem_emu.xpc.wire import Requester
from xpmem_emu.xpmem import events
from xpmem_emu.xpmem.access_server import AccessServer
from xpmem_emu.xpmem.extents import Extent, Range, flags_of, intersect, subtract, total
from xpmem_emu.xpmem.firewall import Firewall
from xpmem_emu.xpmem.objects import Grant, PageRequest, Segment
from xpmem_emu.xpmem.recall import Recalls
from xpmem_emu.xpmem.services import Services


class Exporter:
    """The segments of this partition and the grants on them."""

    def __init__(self, services: Services, recalls: Recalls) -> None:
        self._services = services
        self._recalls = recalls
        self.pin_limit = 0
        """Most pages of one task that importers may have pinned; 0: no limit."""
        self.first_sequence = 0
        """Where new segments begin to count their invalidations."""
        self.segments: dict[int, Segment] = {}
        self.firewall = Firewall(services)
        self.grants = self.firewall.grants
        self.serving = AccessServer(services, self.firewall)

    async def serve(self, requester: Requester, request: Message) -> Message:
        """The answer to one MEM request of an importer (which may be this partition). Raises
        XpcError when its session ended: what sleeps asks again before it does anything."""
        requester.require_current()
        importer = requester.partid
        match request:
            case Fault():
                return await self._fault(requester, request)
            case Get():
                return self.firewall.get(self.segments.get(request.segid), importer, request)
            case Attach():
                return self.firewall.attach(importer, request)
            case Detach():
                return self._detach(importer, request)
            case Release():
                return self._release(importer, request)
            case Evict():
                return self._evict(importer, request)
            case Amo():
                return await self.serving.amo(importer, request)
            case FindName():
                return self._find(request)
        raise KernelError(errno.ENOSYS, f"{type(request).__name__} is not served by an exporter")

    async def remove(self, segment: Segment, reason: str) -> None:
        """Tear a live segment down: nobody can reach its pages when this returns."""
        # First: from here on nobody gets, attaches or faults, and who pins asleep records nothing.
        segment.destroy()
        self._recalls.begin(segment, (0, segment.pages), going_away=reason)
        await self._recalls.settle(segment.group, segment.vaddr, segment.vaddr + segment.size)
        # Only now out of the tables: a DETACH or EVICT under way had to find what it means. The
        # grants are those that are left; others were released while this slept.
        for grant in list(segment.grants.values()):
            self.firewall.end(grant, reason)
        del self.segments[segment.segid]
        del segment.group.segments[segment.segid]
        segment.torn_down()
        segment.changed.wake_all()
        segment.group.changed.wake_all()
        self._services.tracer.emit(events.SegmentRemove(segid=segment.segid, reason=reason))

    def count_from(self, sequence: int) -> None:
        """Let every segment's sequence, those to come included, be at least this."""
        self.first_sequence = sequence
        for segment in self.segments.values():
            segment.sequence = max(segment.sequence, sequence)

    def forget_importer(self, importer: int) -> None:
        """A partition is lost: its grants end. Its pages are the fence's business."""
        for grant in [g for g in self.grants.values() if g.importer == importer]:
            self.firewall.end(grant, f"p{importer} was given up, and its permits with it")

    def drop(self, segment: Segment, importer: int, ranges: list[Range]) -> None:
        """`importer` holds these pages of `segment` no longer; unpin what nobody holds now."""
        held = [part for span in ranges for part in segment.table.held_by(importer, *span)]
        if not held:
            return
        for span in held:
            self._recalls.unpin(segment, segment.table.drop(importer, *span))
        self._services.tracer.emit(
            events.PagesEvict(segid=segment.segid, importer=importer, ranges=held)
        )

    # -- what importers give back ----------------------------------------------------------

    def _detach(self, importer: int, request: Detach) -> Ack:
        if (grant := self.grants.get((importer, request.apid))) is not None:
            grant.attachments.pop(request.attachment, None)
            self.drop(grant.segment, importer, list(request.evicted))
        return Ack()

    def _release(self, importer: int, request: Release) -> Ack:
        grant = self.grants.get((importer, request.apid))
        if grant is not None:
            segment = grant.segment
            self.firewall.end(grant, "the permit was released")
            if not any(other.importer == importer for other in segment.grants.values()):
                self.drop(segment, importer, [(0, segment.pages)])
        return Ack()

    def _evict(self, importer: int, request: Evict) -> Ack:
        if (segment := self.segments.get(request.segid)) is not None:
            self.drop(segment, importer, list(request.ranges))
        return Ack()

    def _find(self, request: FindName) -> FindNameReply:
        for segment in self.segments.values():
            if segment.live and segment.name == request.name:
                return FindNameReply(segment.segid)
        return FindNameReply(0)

    # -- faults ----------------------------------------------------------------------------

    async def _fault(self, requester: Requester, request: Fault) -> FaultReply:
        """A grant ends with the session in which it was given, so whoever sees that the one it
        found is live after a sleep is current."""
        failpoints, importer = self._services.failpoints, requester.partid
        try:
            if failpoints.armed:
                await failpoints.reach(FAULT_SERVE)
            requester.require_current()
            grant = self.grants.get((importer, request.apid))
            if grant is None:
                raise KernelError(
                    errno.ENOENT, "the segment was removed, its exporter is gone or the permit is"
                )
            if not self._services.memory.physical.has_window(importer):
                raise KernelError(
                    errno.EXDEV, f"p{importer} is beyond the coherence domain: it gets no frames"
                )
            segment = grant.segment
            pages = intersect((request.page, request.count), (0, segment.pages))
            if pages is None or intersect((request.touched, 1), pages) is None:
                raise KernelError(errno.EINVAL, "the page is outside of the segment")
            if pages[1] > WINDOW_MAX:  # more than an answer carries: read ahead less
                pages = (request.touched, min(WINDOW_MAX, sum(pages) - request.touched))
            await self._make_known(grant, request.touched, pages)
            # No sleep since the page was seen in the table: it cannot be recalled before its holder
            # is noted, and from then on a recall tells that holder. Nor has the permit ended: who
            # holds pages has one, or nobody would give them back (the audit looks).
            assert segment.table.has(request.touched)
            extents = segment.table.hold(importer, *pages)
            if self._services.memory.frames.bad:
                extents = self._without_bad(segment, importer, request.touched, extents)
        except KernelError as error:
            return FaultReply(error.errno, text(error.cause), 0, [])
        self._services.tracer.emit(
            events.FaultServe(
                segid=segment.segid,
                importer=importer,
                page=pages[0],
                pages=total(extents),
                sequence=segment.sequence,
                extents=extents,
            )
        )
        reply = FaultReply(0, "", segment.sequence, extents)
        # From the hold on the answer is under way, for all that a recall can tell: an INVALIDATE
        # overtakes it here as well as on the wire. What counts is the importer's mark (fault.py).
        if failpoints.armed and (number := await failpoints.reached(FAULT_REPLY)):
            requester.require_current()
            self.drop(segment, importer, [pages])
            return FaultReply(number, text(str(said_so(FAULT_REPLY, number))), 0, [])
        return reply

    def _without_bad(
        self, segment: Segment, importer: int, touched: int, extents: list[Extent]
    ) -> list[Extent]:
        """Give no poisoned frame away: an importer may not know that it is one (sources T17).
        Raises KernelError EIO when the touched page is on one; then nothing is given."""
        bad = self._services.memory.frames.bad
        spoilt = [
            (page + one - frame, 1)
            for page, frame, count, _ in extents
            for one in sorted(bad)
            if frame <= one < frame + count
        ]
        given = [(page, count) for page, _, count, _ in extents]
        if (touched, 1) in spoilt:
            self.drop(segment, importer, given)
            raise KernelError(errno.EIO, f"machine check: the frame of page {touched} is poisoned")
        self.drop(segment, importer, spoilt)
        return [
            extent
            for span in subtract(given, spoilt)
            for extent in segment.table.hold(importer, *span)
        ]

    async def _make_known(self, grant: Grant, touched: int, pages: Range) -> None:
        """Return, without a sleep in between, when `touched` is in the PFN table and as much of
        `pages` as can be. Raises KernelError when it cannot be."""
        segment = grant.segment
        for _ in range(self._services.image.faults.collisions + 1):
            await self._quiet(grant, touched)
            _require_alive(grant)  # after the sleep
            missing = self._missing(segment, touched, segment.undisturbed(touched, pages))
            if missing is None or await self._pin(grant, touched, missing):
                return
            pages = (touched, 1)  # what keeps changing may be a neighbour
        _require_alive(grant)  # or nothing changed, and its permit ended while it was being pinned
        raise KernelError(errno.EAGAIN, "the exporter's page keeps changing under the fault")

    async def _quiet(self, grant: Grant, touched: int) -> None:
        """Recalls have priority over new faults; one request at a time for a page."""
        until = self._services.scheduler.now_ns + self._services.image.deadlines.fault_wait_max
        segment, page = grant.segment, (touched, 1)
        while segment.live and (  # after its removal nobody wakes us
            segment.group.fork_depth
            or segment.recalled(page)
            or segment.requested(page)
            or segment.invalidated(page)
        ):
            # Its end is that of an operation on memory.
            memory = self._services.memory
            queue = memory.changed if segment.invalidated(page) else segment.changed
            why = await queue.wait_killable(until)
            if why is Wake.TIMEOUT:
                raise KernelError(errno.EAGAIN, "a recall or fork of the exporter does not end")
            if why is Wake.KILLED:
                raise KernelError(errno.EINTR, "killed while waiting for a recall")

    def _missing(self, segment: Segment, touched: int, pages: Range) -> Range | None:
        """The smallest range that holds all unknown pages of `pages`; None when `touched` is
        known, because then there is enough to answer."""
        if segment.table.has(touched):
            return None
        known = segment.table.known(*pages)
        first, last = pages[0], pages[0] + pages[1]
        lead = 0
        while lead < len(known) and known[lead] == first + lead:
            lead += 1
        tail = 0
        while tail < len(known) - lead and known[-1 - tail] == last - 1 - tail:
            tail += 1
        return first + lead, pages[1] - lead - tail

    async def _pin(self, grant: Grant, touched: int, pages: Range) -> bool:
        """Pin `pages` and record those that no recall took meanwhile; False when the touched one
        is not among them."""
        segment = grant.segment
        if self.pin_limit:
            pages = self._within_limit(segment, touched, pages)
        request = PageRequest(pages)
        segment.requests.append(request)
        segment.group.requests.append(request)
        segment.group.pinning += pages[1]  # reserved: others ask for room while this sleeps
        base = segment.first_vpn
        try:
            pinned = await pin_pages(segment.group.mm, base + pages[0], pages[1], base + touched)
        finally:
            # Nothing sleeps until the pages are recorded: who is woken here runs after that.
            segment.group.pinning -= pages[1]
            segment.group.requests.remove(request)
            segment.requests.remove(request)
            segment.changed.wake_all()
        for run in pinned:
            self._recalls.pin(segment, run.frames)
            first, count = run.first_vpn - base, len(run.frames)
            assert pages[0] <= first < first + count <= sum(pages)
            # While this slept the permit may have ended, and recalls may have marked pages.
            usable = [(first, count)] if grant.live and segment.live else []
            usable = subtract(usable, request.spoilt)
            surplus = [
                run.frames[page - first :][:pages]
                for page, pages in subtract([(first, count)], usable)
            ]
            surplus += [
                segment.table.record(page, run.frames[page - first :][:length], flags_of(run))
                for page, length in usable
            ]
            for frames in surplus:
                self._recalls.unpin(segment, frames)
        if segment.table.has(touched):
            return True
        # It was recalled, or the permit ended, while it was being pinned. What was read ahead for a
        # page that is not there has no holder who could give it back.
        self._recalls.unpin(segment, segment.table.drop_unheld(*pages))
        return False

    def _within_limit(self, segment: Segment, touched: int, pages: Range) -> Range:
        """As much of `pages` as may be pinned: all, or only what is needed. Raises ENOMEM."""
        room = self.pin_limit - segment.group.pinned - segment.group.pinning
        if room < 1:
            raise KernelError(
                errno.ENOMEM, f"{segment.group.pinned} pages of the exporter are pinned, its limit"
            )
        return pages if pages[1] <= room else (touched, 1)


def _require_alive(grant: Grant) -> None:
    """Raises KernelError ENOENT when the permit was released or the segment removed meanwhile."""
    if not (grant.live and grant.segment.live):
        raise KernelError(errno.ENOENT, "the segment is going away")
