"""The importer's fault: from a missing page to an installed frame, or SIGBUS with the reason.

        exporter                                    importer
        |                                           | FAULT(page 5) sent, record valid
        |<-------------- FAULT(5) ------------------|
        | page 5 = frame 100                        |
        |-- FAULT_REPLY(100), slow ... \\            |
        | munmap: sequence 7 -> 8       \\           |
        |-------- INVALIDATE(5) ---------\\--------->| no PTE to clear, record marked invalid
        |<------- INVALIDATE_ACK ---------\\---------|
        | frame 100 freed and reused       \\        |
        |                                   `------>| record invalid -> DROPPED, tried again
        |<-------------- FAULT(5) ------------------|
        |--------- hole: FAULT_REPLY(ENOENT) ------>| SIGBUS, which is right

Installing frame 100 would have exposed a stranger's memory (sources T16). The mark is per page:
what the invalidation did not take is installed, so that a neighbour that changes all the time costs
a fault its read-ahead there and nothing else. Only when the touched page is marked is it asked
again.

Invariants: at most one fault in flight per page of a segment and partition; no install of a page
that an invalidation marked; no wait without a deadline; every wait is killable.
"""

import errno
from dataclasses import dataclass

import numpy as np

from xpmem_emu.errors import KernelBug, KernelError, Signal, SignalInfo, Signalled
from xpmem_emu.failpoints.engine import said_so
from xpmem_emu.failpoints.points import FAULT_INSTALL, FAULT_SEND
from xpmem_emu.mm import pte
from xpmem_emu.mm.entries import insert_special
from xpmem_emu.mm.extents import numbers
from xpmem_emu.mm.mm_types import Vma
from xpmem_emu.sched import WaitQueue, Wake
from xpmem_emu.units import PAGE_SHIFT
from xpmem_emu.xpc.messages import EXTENT_READ_ONLY, EXTENT_UNCACHED, Fault, FaultReply
from xpmem_emu.xpc.reasons import Reason
from xpmem_emu.xpc.xpc import XpcError
from xpmem_emu.xpmem import events
from xpmem_emu.xpmem.extents import Extent, Range, around, intersect, outside
from xpmem_emu.xpmem.import_registry import ImportRegistry
from xpmem_emu.xpmem.objects import Attachment, ImportedSegment, InFlight
from xpmem_emu.xpmem.rpc import HomeRpc
from xpmem_emu.xpmem.services import Services


@dataclass(eq=False)
class MappedAttachment(Attachment):
    """Inside a coherence domain: special entries, which faults bring, lead to the home's frames."""

    access = "direct"
    faults: "ImporterFaults"

    async def fault(self, vma: Vma, address: int, write: bool) -> None:
        """Ask the home for frames."""
        await self.faults.resolve(self, vma, address, write)

    def check(self, vma: Vma, address: int) -> None:
        """SIGBUS when the segment is gone, with its home or without."""
        assert vma.ops is self
        if self.imported.gone:
            raise self.sigbus(address, self.imported.gone)


class ImporterFaults:
    """All faults of this partition on imported segments, and the table of those in flight."""

    def __init__(self, services: Services, homes: HomeRpc, imports: ImportRegistry) -> None:
        self._services = services
        self._homes = homes
        self._imports = imports
        self._number = 0
        self._place = WaitQueue(services.scheduler)
        """Who found no place among the faults; woken at each end of one."""
        self.inflight = 0
        """Of all segments together, `_begin` to `_end`; the image bounds it."""
        self._batch = services.image.faults.batch
        self.after = services.image.faults.after
        self.before = services.image.faults.before

    async def resolve(
        self, attachment: MappedAttachment, vma: Vma, address: int, write: bool
    ) -> None:
        """Bring in the page behind `address` and its neighbourhood.

        Raises Signalled (SIGBUS with the reason, a store to what the exporter may only read among
        them; SIGKILL when killed while waiting) and
        KernelError EAGAIN when invalidations kept crossing the answers (sources 2.4).
        """
        imported = attachment.imported
        page = attachment.page_at(address)
        until = self._services.scheduler.now_ns + self._services.image.deadlines.fault_wait_max
        collisions = 0
        while True:
            # Each turn comes after a sleep, and everything may have changed in it: the segment
            # removed, the home lost, the attachment detached, its area cut, the page brought in.
            attachment.require_usable(vma, address)
            # Known as read-only, it is: the exporter's mprotect that changes it recalls it first.
            if write and imported.table.flags_of(page) & EXTENT_READ_ONLY:
                raise attachment.sigbus(address, f"the exporter may only read page {page}")
            if self._install_known(attachment, page):
                return
            # Somebody's answer is on its way, or an EVICT that our FAULT must not overtake.
            if imported.busy((page, 1)):
                await self._wait(imported.changed, until, attachment, address)
                continue
            if self.inflight >= self._services.image.limits.inflight_faults:
                await self._wait(self._place, until, attachment, address)
                continue
            # Not busy, and nothing sleeps until `_begin` has noted the fault: no two ask at once.
            if await self._ask(attachment, address, page, until, collisions):
                return
            collisions += 1
            if collisions > self._services.image.faults.collisions:
                raise KernelError(
                    errno.EAGAIN,
                    f"{collisions} invalidations in a row crossed the answer to the fault",
                    "the exporter is changing this range all the time; try again",
                )

    def invalidate(self, imported: ImportedSegment, ranges: list[Range]) -> int:
        """Atomic: mark these pages in the faults in flight; how many faults are concerned."""
        return len(
            {fault.number for fault in imported.inflight for span in ranges if fault.spoil(span)}
        )

    async def _wait(
        self, queue: WaitQueue, until: int, attachment: MappedAttachment, address: int
    ) -> None:
        why = await queue.wait_killable(until)
        if why is Wake.KILLED:
            raise killed(address)
        if why is Wake.TIMEOUT:
            raise attachment.sigbus(address, "the fault found no place before its deadline")

    async def _ask(
        self, attachment: MappedAttachment, address: int, page: int, until: int, attempt: int
    ) -> bool:
        """One FAULT and its answer; False when an invalidation crossed it."""
        imported = attachment.imported
        fault = self._begin(attachment, page, until)
        failpoints = self._services.failpoints
        outcome = "abandoned"
        pages = 0
        try:
            if failpoints.armed and (number := await failpoints.reached(FAULT_SEND)):
                outcome = str(said_so(FAULT_SEND, number))
                raise attachment.sigbus(address, outcome)
            reply = await self._homes.ask(
                imported.home,
                Fault(attachment.permit.apid, page, *fault.pages),
                imported.incarnation,
            )
            if failpoints.armed:
                await failpoints.reach(FAULT_INSTALL)
            # Meanwhile an INVALIDATE, or the loss of the home, may have marked pages of the fault.
            # From here to the last entry nothing sleeps, so what is not marked now stays good.
            if not isinstance(reply, FaultReply):
                raise KernelBug(f"FAULT answered by {type(reply).__name__}")
            if not fault.valid:
                outcome = "invalidated"
                self._services.tracer.emit(
                    events.FaultCollision(fault=fault.number, segid=imported.segid, attempt=attempt)
                )
                return False
            if not _sensible(reply, page, fault.pages):
                outcome = "nonsense"
                self._services.xpc.condemn(
                    imported.home,
                    imported.incarnation,
                    Reason.BAD_MSG_TYPE,
                    "xpmem/faults: extents nobody asked for",
                )
                raise attachment.sigbus(address, imported.gone)
            if reply.errno:
                outcome = reply.cause
                raise attachment.sigbus(address, f"at the exporter: {reply.cause}")
            pages = self._accept(attachment, fault, page, outside(reply.extents, fault.spoilt))
            outcome = "installed"
            return True
        except XpcError as error:
            outcome = str(error)
            if error.ending.sent:  # an answer may still come: `late_reply` gives its pages back
                imported.left[attachment.permit.apid] += 1
            if error.ending.killed:
                raise killed(address) from None
            raise attachment.sigbus(address, imported.gone or str(error)) from None
        finally:
            self._end(imported, fault, pages, outcome)

    def _begin(self, attachment: MappedAttachment, page: int, until: int) -> InFlight:
        imported = attachment.imported
        assert not imported.busy((page, 1)), "one fault at a time for a page"
        self._number += 1
        fault = InFlight(self._number, page, self._window(attachment, page), until)
        imported.inflight.append(fault)
        self.inflight += 1
        self._services.tracer.emit(
            events.FaultBegin(
                fault=fault.number,
                segid=imported.segid,
                touched=page,
                page=fault.pages[0],
                count=fault.pages[1],
            )
        )
        return fault

    def _end(self, imported: ImportedSegment, fault: InFlight, pages: int, outcome: str) -> None:
        imported.inflight.remove(fault)
        self.inflight -= 1
        imported.changed.wake_all()
        self._imports.reap(imported)
        self._place.wake_all()  # who is woken may need no place any more
        self._services.tracer.emit(
            events.FaultEnd(fault=fault.number, segid=imported.segid, pages=pages, outcome=outcome)
        )

    def _accept(
        self, attachment: MappedAttachment, fault: InFlight, page: int, extents: list[Extent]
    ) -> int:
        """Record a good answer and map it, unless the attachment went meanwhile:

        fault                        detach (`sim explore detach-fault`)
        FAULT(5) sent, asleep
                                     zaps; DETACH gives page 5 back, overtakes the FAULT,
                                     and the home has nothing to take back yet
        the answer: frame 100, valid
        EVICT(5), or the home keeps it pinned for nobody
        """
        imported = attachment.imported
        if not attachment.live:
            self._imports.evict(imported, [fault.pages])
            return 0
        return self._install(attachment, page, extents)

    # -- entries: atomic, and only from frames that are good now: of a valid answer, or known ------

    def _install(self, attachment: MappedAttachment, page: int, extents: list[Extent]) -> int:
        """Note the frames of an answer for all attachments and map them around `page` of this one.
        Returns how many PTEs were installed."""
        table = attachment.imported.table
        for first, frame, count, flags in extents:
            table.record(first, numbers(frame, count), flags & (EXTENT_UNCACHED | EXTENT_READ_ONLY))
        return self._map(attachment, page, extents)

    def _install_known(self, attachment: MappedAttachment, page: int) -> bool:
        """Map `page` and what else is known after it without asking anybody; False when `page` is
        not known here."""
        table = attachment.imported.table
        if not table.has(page):
            return False
        onward = intersect((page, self._batch), attachment.pages)
        assert onward is not None
        self._map(attachment, page, table.extents(*onward))
        return True

    def _map(self, attachment: MappedAttachment, page: int, extents: list[Extent]) -> int:
        """Write special entries where there are none. One is writable when both sides may store
        there: this attachment, and the exporter itself. What the exporter may only read can be a
        page of a file or one that it shares with a forked child: a store must not get there (S5).
        """
        # Looked up again: the fault slept, and the area may have been cut, moved or replaced.
        vma = attachment.mm.vmas.find(attachment.vpn_of(page) << PAGE_SHIFT)
        if vma is None or vma.ops is not attachment:
            return 0
        mapped = (attachment.page_at(vma.start), (vma.end - vma.start) >> PAGE_SHIFT)
        base = attachment.imported.home << pte.PARTID_SHIFT
        installed = []
        ptes = 0
        for first, frame, count, flags in extents:
            part = intersect((first, count), mapped)
            if part is None:
                continue
            frame += part[0] - first
            access = pte.WRITE if vma.writable and not flags & EXTENT_READ_ONLY else 0
            access |= pte.UNCACHED if flags & EXTENT_UNCACHED else 0
            gpfns = numbers(base + frame, part[1])
            ptes += insert_special(vma, attachment.vpn_of(part[0]), gpfns, access)
            installed.append((part[0], frame, part[1], flags))
        self._services.tracer.emit(
            events.PageInstall(
                segid=attachment.imported.segid, address=attachment.address, extents=installed
            )
        )
        return ptes

    # -- the window ------------------------------------------------------------------------

    def _window(self, attachment: MappedAttachment, page: int) -> Range:
        """Fault-around (sources 1.10): 32 after and 16 before. A touch right behind pages that are
        known or being asked for is sequential and asks for twice as many as those, up to the
        image's batch. Stops at pages that are known or busy."""
        imported = attachment.imported
        first, last = page - self.before, page + 1 + self.after
        run = self._run_before(imported, page)
        if run and self.after:
            first, last = page, page + max(min(2 * run, self._batch), 1 + self.after)
        bounds = intersect((max(first, 0), last - max(first, 0)), attachment.pages)
        assert bounds is not None
        return self._clip(imported, page, bounds)

    def _run_before(self, imported: ImportedSegment, page: int) -> int:
        """How many pages right before `page` are known or being asked for, up to a batch."""
        end = page
        for fault in sorted(imported.inflight, key=lambda fault: fault.pages, reverse=True):
            if sum(fault.pages) == page:
                page = fault.pages[0]
        start = max(page - self._batch, 0)
        known = imported.table.known(start, page - start)[::-1]
        gaps = np.flatnonzero(known != page - 1 - np.arange(len(known)))
        return end - page + (int(gaps[0]) if len(gaps) else len(known))

    def _clip(self, imported: ImportedSegment, page: int, bounds: Range) -> Range:
        """The part of `bounds` around `page` that nobody has or is asking for."""
        known = imported.table.known(*bounds)
        index = int(known.searchsorted(page))
        neighbours = known[max(index - 1, 0) : index + 1].tolist()
        taken = [(each, 1) for each in neighbours]
        taken += [fault.pages for fault in imported.inflight]
        taken += [eviction.pages for eviction in imported.evictions]
        return around(page, bounds, taken)


def _sensible(reply: FaultReply, touched: int, pages: Range) -> bool:
    """Whether an answer's extents are ascending, inside of what was asked, and on real frames; a
    good one has the touched page, or the access would fault on it again and again."""
    page, end = pages[0], pages[0] + pages[1]
    found = reply.errno != 0
    for first, frame, count, _ in reply.extents:
        if first < page or first + count > end or not 0 < frame <= pte.LOCAL_MASK - count:
            return False
        page = first + count
        found |= first <= touched < page
    return found


def killed(address: int) -> Signalled:
    """The end of an access whose task got a fatal signal meanwhile."""
    return Signalled(SignalInfo(Signal.SIGKILL, "killed while waiting for a page", address))
