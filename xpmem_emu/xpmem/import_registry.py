"""The registry of imported segments: one `ImportedSegment` per segment and session with its home.
It also gives their pages back, because that is what keeps an entry here.

An entry lives while anybody holds a permit, and longer while a fault or an eviction of it is in
flight: a new permit must find those, or its FAULT could overtake an EVICT still under way and
the exporter would forget a holder:

    importer                                 exporter
    | the last attachment goes: EVICT(5) -.  | page 5 is held by us
    | a new one; page 5 is touched        |
    |------------- FAULT(5) --------------|->| frame 100, held by us already
    | maps frame 100                      '->| held by nobody: unpinned, freed, reused
    | frame 100 is a stranger's

With the entry kept, that fault waits until the EVICT was consumed.

It lives until the last answer that nobody waits for has come, too: what that brings must be given
back, and the release of the last permit does not do it when a new permit was granted before it
arrived.
"""

from collections.abc import Callable
from functools import partial

from xpmem_emu.fields import RANGES_MAX
from xpmem_emu.sched import Completion, WaitQueue
from xpmem_emu.xpc.messages import Evict, Message
from xpmem_emu.xpmem.extents import Range, cut_ranges, subtract
from xpmem_emu.xpmem.objects import Eviction, ImportedSegment
from xpmem_emu.xpmem.rpc import HomeRpc
from xpmem_emu.xpmem.services import Services


class ImportRegistry:
    """What this partition imports, by segid."""

    def __init__(self, services: Services, homes: HomeRpc) -> None:
        self._scheduler = services.scheduler
        self._homes = homes
        self._imports: dict[int, ImportedSegment] = {}
        """By segid: what a new permit of the segment shares, and what an INVALIDATE is for."""
        self._lost: dict[ImportedSegment, None] = {}
        """Lost with their home, still permitted or attached by somebody."""

    def adopt(self, segid: int, home: int, session: int, size: int) -> ImportedSegment:
        """The entry for a segment of partition `home`, made if there is none yet. One that is gone
        is kept: its segment was removed while the permit was granted, and no segid comes back."""
        imported = self._imports.get(segid)
        if imported is None:
            imported = ImportedSegment(segid, home, session, size, WaitQueue(self._scheduler))
            self._imports[segid] = imported
        assert imported.incarnation == session  # entries of a session go with it (`lose`)
        return imported

    def find(self, segid: int) -> ImportedSegment | None:
        """The entry of a segid."""
        return self._imports.get(segid)

    def of_home(self, home: int) -> list[ImportedSegment]:
        """All entries of one home partition."""
        return [imported for imported in self._imports.values() if imported.home == home]

    def all(self) -> list[ImportedSegment]:
        """Every entry, lost ones included."""
        return [*self._imports.values(), *self._lost]

    def reap(self, imported: ImportedSegment) -> None:
        """Forget an entry that nothing needs any more; a lost one is kept aside until then."""
        used = bool(imported.permits or imported.inflight or imported.evictions)
        needed = (used or imported.left) and not imported.gone
        if self._imports.get(imported.segid) is imported and not needed:
            del self._imports[imported.segid]
        if imported.gone and used:
            self._lost[imported] = None
        else:
            self._lost.pop(imported, None)

    # -- giving pages back -----------------------------------------------------------------

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
        done: Completion[None] = Completion(self._scheduler)
        self._scheduler.spawn("xpmem_evict", self._finish(imported, evictions, told, done))
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
        self.reap(imported)
        done.complete(None)
