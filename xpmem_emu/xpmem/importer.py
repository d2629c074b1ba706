"""How an importer loses pages: by its own detach and release, by INVALIDATE, with the home.

What it loses to an INVALIDATE or to the loss of a home partition goes atomically. What it gives
up itself is told to the exporter from a thread of its own, so that no signal and no dead peer
can hold the task that detaches. Gaining pages is fault.py.
"""

from functools import partial

from xpmem_emu.mm.entries import zap_special
from xpmem_emu.mm.mapping import unmap_areas
from xpmem_emu.sched import Completion
from xpmem_emu.units import PAGE_SHIFT
from xpmem_emu.xpc.messages import Detach, Invalidate, InvalidateAck, Release
from xpmem_emu.xpmem import events
from xpmem_emu.xpmem.extents import Range, intersect, subtract
from xpmem_emu.xpmem.fault import ImporterFaults
from xpmem_emu.xpmem.import_registry import ImportRegistry
from xpmem_emu.xpmem.objects import Attachment, Eviction, ImportedSegment, Permit, Severed
from xpmem_emu.xpmem.rpc import HomeRpc
from xpmem_emu.xpmem.services import Services


class Importer:
    """Every segment that some task of this partition holds a permit for."""

    def __init__(
        self, services: Services, homes: HomeRpc, faults: ImporterFaults, imports: ImportRegistry
    ) -> None:
        self._services = services
        self._homes = homes
        self._faults = faults
        self._imports = imports

    async def release(self, permit: Permit) -> list[Completion[None]]:
        """Detach everything, then tell the exporter; the caller checked that it may.

        Returns, when nothing of the permit is left, what completes when the exporter knows.
        """
        permit.destroy()  # first: no access, attach or second release begins on it
        imported = permit.imported
        # Whether each is live is asked when its turn comes: detaching the one before slept.
        told = [
            await self.detach(attachment)
            for attachment in list(permit.attachments)
            if attachment.live and attachment.number in imported.attachments
        ]
        while permit.attachments:  # what other calls are detaching, or attaching: that ends, too
            await permit.group.changed.wait()
        imported.permits.discard(permit)
        if not imported.gone:
            told.append(self._tell_released(permit))
        self._imports.reap(imported)
        permit.torn_down()
        del permit.group.permits[permit.apid]
        permit.group.changed.wake_all()
        return told

    def _tell_released(self, permit: Permit) -> Completion[None]:
        done: Completion[None] = Completion(self._services.scheduler)
        pending = list(permit.imported.evictions)
        self._services.scheduler.spawn("xpmem_release", self._tell(permit, pending, done))
        return done

    async def _tell(self, permit: Permit, pending: list[Eviction], done: Completion[None]) -> None:
        """After the pages that are being given back: of a DETACH that comes when the permit is
        gone the exporter does not know which pages it means, and would keep them for us.

            importer                          exporter
            | DETACH(7, pages 0 to 9) ---.
            |------ RELEASE(7) ----------|--> permit 7 ends; another one of ours keeps the pages
            |                            '--> no permit 7: pages 0 to 9 stay pinned
        """
        imported = permit.imported
        while any(eviction in imported.evictions for eviction in pending):
            await imported.changed.wait()
        release = Release(permit.apid)
        await self._homes.tell(imported.home, imported.incarnation, release).wait()
        done.complete(None)

    async def detach(self, attachment: Attachment) -> Completion[None]:
        """Unmap a live attachment; its pages are given back unless another one shows them.

        Order of sources 1.8: mark, drop the pages, cut the VMA link, unlink, munmap: of its own
        areas, whatever the task has put between them. Returns what completes when the exporter
        knows.
        """
        attachment.destroy()
        mm, imported = attachment.mm, attachment.imported
        dead = Severed("the attachment was detached", attachment)
        # In one step until the pages are given back: no entry, no way to fault one in, no
        # attachment that shows them. An invalidation that comes later has nothing to find here.
        for vma in mm.vmas.intersecting(attachment.address, attachment.end):
            if attachment.owns(vma):
                zap_special(mm, vma.start, vma.end)
                vma.ops = dead
        del imported.attachments[attachment.number]
        told = self._give_back(attachment)
        # Sleeps; the task may have mapped other things in between, which `owns` leaves alone.
        await unmap_areas(mm, attachment.address, attachment.end, attachment.owns, "detach")
        attachment.permit.attachments.remove(attachment)
        attachment.torn_down()
        attachment.permit.group.changed.wake_all()
        self._services.tracer.emit(
            events.AttachmentUnmap(
                segid=imported.segid, apid=attachment.permit.apid, address=attachment.address
            )
        )
        return told

    def _give_back(self, attachment: Attachment) -> Completion[None]:
        imported = attachment.imported
        shown = [other.pages for other in imported.attachments.values()]
        unseen = subtract([attachment.pages], shown)
        message = partial(Detach, attachment.permit.apid, attachment.number)
        return self._imports.give_back(imported, unseen, message)

    # -- losing pages ----------------------------------------------------------------------

    def invalidate(self, home: int, message: Invalidate) -> InvalidateAck:
        """Drop pages on request of their home. Atomic: when it returns, nothing here can reach
        them and no answer in flight will bring them back."""
        for entry in message.entries:
            imported = self._imports.find(entry.segid)
            # `home` is whose frame it came in: nobody takes pages of others away.
            if imported is None or imported.home != home:
                continue  # nothing of it is held here: what there was went with its permits
            ranges = list(entry.ranges)
            if entry.going_away:
                imported.gone = entry.going_away
                ranges = [(0, imported.size >> PAGE_SHIFT)]
            # Messages of one home may come in any order, and two recalls of it may be under way.
            imported.sequence = max(imported.sequence, entry.sequence)
            # Both in the step for which the acknowledgement stands: entries, and what would become
            # one when an answer arrives (tests/transcripts/inflight_race.txt).
            faults = self._faults.invalidate(imported, ranges)
            ptes = self._zap(imported, ranges)
            self._services.tracer.emit(
                events.Invalidated(
                    segid=entry.segid,
                    sequence=entry.sequence,
                    ranges=ranges,
                    ptes=ptes,
                    faults=faults,
                    going_away=entry.going_away,
                )
            )
        return InvalidateAck()

    def lose(self, home: int, reason: str) -> None:
        """Partition `home` is lost: zap every PTE of it. Atomic."""
        for imported in self._imports.of_home(home):
            imported.gone = reason
            everything = [(0, imported.size >> PAGE_SHIFT)]
            self._faults.invalidate(imported, everything)
            ptes = self._zap(imported, everything)
            imported.changed.wake_all()
            self._imports.reap(imported)
            self._services.tracer.emit(
                events.ImportLost(segid=imported.segid, reason=reason, ptes=ptes)
            )

    def _zap(self, imported: ImportedSegment, ranges: list[Range]) -> int:
        ptes = 0
        for span in ranges:
            imported.table.take(*span)
            for attachment in imported.attachments.values():
                part = intersect(span, attachment.pages)
                if part is not None:
                    start = attachment.vpn_of(part[0]) << PAGE_SHIFT
                    ptes += zap_special(attachment.mm, start, start + (part[1] << PAGE_SHIFT))
        return ptes
