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
from collections.abc import Callable
from functools import partial

import numpy as np

from xpmem_emu.errors import KernelBug, KernelError, Signal, SignalInfo, Signalled
from xpmem_emu.failpoints.engine import said_so
from xpmem_emu.failpoints.points import FAULT_INSTALL, FAULT_SEND
from xpmem_emu.fields import RANGES_MAX
from xpmem_emu.mm.mm_types import Vma
from xpmem_emu.mm.pte import LOCAL_MASK
from xpmem_emu.sched import Completion, WaitQueue, Wake
from xpmem_emu.xpc.messages import EXTENT_READ_ONLY, Evict, Fault, FaultReply, Message
from xpmem_emu.xpc.reasons import Reason
from xpmem_emu.xpc.xpc import XpcError
from xpmem_emu.xpmem import events
from xpmem_emu.xpmem.attachment import MappedAttachment
from xpmem_emu.xpmem.extents import Extent, Range, around, cut_ranges, intersect, outside, subtract
from xpmem_emu.xpmem.import_registry import ImportRegistry
from xpmem_emu.xpmem.install import install, install_known
from xpmem_emu.xpmem.objects import Eviction, ImportedSegment, InFlight
from xpmem_emu.xpmem.rpc import HomeRpc
from xpmem_emu.xpmem.services import Services
from xpmem_emu.xpmem.states import InflightEvent


class ImporterFaults:
    """All faults of this partition on imported segments, and the table of those in flight."""

    def __init__(self, services: Services, homes: HomeRpc, imports: ImportRegistry) -> None:
        self._services = services
        self._homes = homes
        self._imports = imports
        self._number = 0
        self._place = WaitQueue(services.scheduler)
        self.inflight = 0
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
            if install_known(self._services, attachment, page, self._batch):
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

    def evict(self, imported: ImportedSegment, ranges: list[Range]) -> None:
        """Tell the exporter about pages that no attachment shows any more.

        Faults on them wait meanwhile: an EVICT must never overtake a later FAULT.
        """
        shown = [attachment.pages for attachment in imported.attachments.values()]
        unseen = subtract(ranges, shown)
        if unseen:
            self.give_back(imported, unseen, partial(Evict, imported.segid))

    def give_back(
        self,
        imported: ImportedSegment,
        ranges: list[Range],
        message: Callable[[list[Range]], Message],
    ) -> Completion[None]:
        """Forget `ranges` and send the `message` that says so, after EVICTs of what it does not
        carry; completed when they are consumed."""
        # Forgotten and marked in one step: nobody maps these pages again, and who wants one waits.
        evictions = [Eviction(span) for span in ranges]
        for span in ranges:
            imported.table.take(*span)
        imported.evictions += evictions
        *parts, last = cut_ranges(ranges, RANGES_MAX)
        told = self._homes.tell(
            imported.home,
            imported.incarnation,
            *(Evict(imported.segid, part) for part in parts),
            message(last),
        )
        done: Completion[None] = Completion(self._services.scheduler)
        self._services.scheduler.spawn("xpmem_evict", self._finish(imported, evictions, told, done))
        return done

    async def _finish(
        self,
        imported: ImportedSegment,
        evictions: list[Eviction],
        told: Completion[None],
        done: Completion[None],
    ) -> None:
        await told.wait()  # ends with the answer or with the session: no deadline of its own
        for eviction in evictions:
            imported.evictions.remove(eviction)
        imported.changed.wake_all()
        self._imports.reap(imported)
        done.complete(None)

    @property
    def _batch(self) -> int:
        return self._services.image.faults.batch

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
        fault.apply(InflightEvent.END)
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
        """Record a good answer and map it, unless the attachment went meanwhile."""
        imported = attachment.imported
        if not attachment.live:  # its detach could not give back what only came now
            self.evict(imported, [fault.pages])
            return 0
        return install(self._services, attachment, page, extents)

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
        if first < page or first + count > end or not 0 < frame <= LOCAL_MASK - count:
            return False
        page = first + count
        found |= first <= touched < page
    return found


def killed(address: int) -> Signalled:
    """The end of an access whose task got a fatal signal meanwhile."""
    return Signalled(SignalInfo(Signal.SIGKILL, "killed while waiting for a page", address))
