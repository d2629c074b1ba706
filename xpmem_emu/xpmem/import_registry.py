"""The registry of imported segments: one `ImportedSegment` per segment and session with its home.

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

from xpmem_emu.sched import Scheduler, WaitQueue
from xpmem_emu.xpmem.objects import ImportedSegment


class ImportRegistry:
    """What this partition imports, by segid."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._imports: dict[int, ImportedSegment] = {}
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
