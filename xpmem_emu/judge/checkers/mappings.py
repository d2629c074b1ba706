"""S1, S2 and S7: what entries may point at.

At the end of every step, for every foreign entry of every kernel, running, stopped, or stopped and
booted over:

* its frame is not free (S2): whoever holds an entry holds the page;
* if its home has a session with that partition, the frame is pinned (S1): unpinned means that a
  recall completed, and then no entry may be left;
* if its home gave that partition up, the frame is in quarantine, and once the fence says that it
  is done, no live page is on any frame that it had there (S7);
* a kernel has no entry of a home whose window it closed (S1).

Only what can break this is looked at: homes that just gave frames back, importers that just
installed. A crashed partition's entries are gone with it; those of a stopped one are not.
"""

import numpy as np

from xpmem_emu.judge.checkers.base import Checker
from xpmem_emu.judge.checkers.raw import Foreign, _Vector, foreign
from xpmem_emu.judge.invariants import Invariant
from xpmem_emu.judge.observer import Observed
from xpmem_emu.judge.scene import EventHandlers, Scene
from xpmem_emu.kernel.kernel import Kernel
from xpmem_emu.mm.events import FramesFree
from xpmem_emu.trace import Event
from xpmem_emu.xpmem import events

_BOOT_SHIFT = 16
_FENCE = "xpmem_fence/p"


def _processes(cluster: Observed) -> list[tuple[int, int, Kernel]]:
    """(partid, boot, kernel) of every process that has memory mapped."""
    return [
        *((partid, cluster.boot_of(partid), kernel) for partid, kernel in cluster.kernels.items()),
        *((partid, boot, kernel) for (partid, boot), kernel in cluster.superseded.items()),
    ]


def _fencing(home: Kernel | None, lost: int) -> bool:
    """Whether a fence is at work there: one who was lost twice may have two, and what the first
    leaves is the other's."""
    return home is not None and any(
        each.name == f"{_FENCE}{lost}" for each in home.scheduler.threads
    )


class Mappings(Checker):
    """Scans raw page tables against raw frame counts."""

    judges = (Invariant.S1, Invariant.S2, Invariant.S7)
    looks_at = (
        "page-table words of all kernels against frame counts of their homes, after each "
        "step that could break it"
    )

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self._homes: set[int] = set()
        self._importers: set[int] = set()
        self._freed: list[tuple[int, int]] = []
        self._fenced: list[tuple[int, int]] = []

    def handlers(self) -> EventHandlers:
        """Everything that gives frames back or takes entries on."""
        return {
            events.PagesUnpin: self._gave_back,
            events.RecallEnd: self._gave_back,
            events.FenceBegin: self._gave_back,
            events.QuarantineEmpty: self._gave_back,
            events.FenceEnd: self._fence_ended,
            FramesFree: self._frames_freed,
            events.PageInstall: self._installed,
            events.ImportLost: self._installed,
        }

    def _gave_back(self, partid: int, event: Event) -> None:
        self._homes.add(partid)

    def _fence_ended(self, partid: int, event: events.FenceEnd) -> None:
        self._homes.add(partid)
        self._fenced.append((partid, event.importer))

    def _frames_freed(self, partid: int, event: FramesFree) -> None:
        self._homes.add(partid)
        self._freed += [
            (frame, partid)
            for first, count in event.extents
            for frame in range(first, first + count)
        ]

    def _installed(self, partid: int, event: Event) -> None:
        self._importers.add(partid)

    def stepped(self, partid: int) -> None:
        """Look at what the step may have broken."""
        if not (self._homes or self._importers):
            return
        cluster = self.scene.cluster
        homes, self._homes = self._homes, set()
        importers, self._importers = self._importers, set()
        freed, self._freed = self._freed, []
        ended, self._fenced = self._fenced, []
        if cluster is None:
            return
        fenced = [each for each in ended if not _fencing(cluster.kernels.get(each[0]), each[1])]
        for home, lost in fenced:
            self._check_left(cluster.kernels.get(home), lost)
        forgers = self.scene.injuries.forgers
        for importer, boot, kernel in _processes(cluster):
            if importer in forgers:
                continue
            if not (homes or importer in importers):
                continue
            entries = foreign(kernel)
            if not len(entries.frames):
                continue
            for home in np.unique(entries.homes).tolist():
                if home not in forgers and (home in homes or importer in importers):
                    self._check(importer, boot, kernel, home, entries.of(home))
            self._check_freed(importer, kernel, entries, freed)
            for home, lost in fenced:
                if lost == importer:
                    self._check_moved(importer, kernel, home, entries.of(home))

    def _check(self, importer: int, boot: int, kernel: Kernel, home: int, entries: Foreign) -> None:
        window = kernel.memory.physical._windows.get(home)
        if window is None:
            self._say(
                Invariant.S1, importer, home, entries.frames, "mapped although the home is lost"
            )
            return
        owner = self._owner(home, window)
        if owner is None:
            return  # memory of a boot that is over: nobody else will ever use it
        frames = owner.memory.frames
        free = entries.frames[frames.refcount[entries.frames] == 0]
        if len(free):
            self._say(Invariant.S2, importer, home, free, "free while mapped")
        elif self._in_session(home, importer, boot):
            stale = entries.frames[frames.pins[entries.frames] == 0]
            self._say(Invariant.S1, importer, home, stale, "mapped although given back")
        else:
            loose = entries.frames[frames.quarantined[entries.frames] == 0]
            self._say(
                Invariant.S7, importer, home, loose, "reachable by a lost importer, not quarantined"
            )

    def _in_session(self, home: int, importer: int, boot: int) -> bool:
        """Whether the home has a session with that very process."""
        incarnation = self.scene.sessions.incarnation(home, importer)
        return home == importer or (incarnation is not None and incarnation >> _BOOT_SHIFT == boot)

    def _check_freed(
        self, importer: int, kernel: Kernel, entries: Foreign, freed: list[tuple[int, int]]
    ) -> None:
        # In one step a kernel may free a frame, take it again and install it for itself.
        for home in {home for _, home in freed} - {importer}:
            window = kernel.memory.physical._windows.get(home)
            if window is not None and self._owner(home, window) is not None:
                gone = np.array([frame for frame, of in freed if of == home], dtype=np.int64)
                hit = np.intersect1d(entries.of(home).frames, gone)
                self._say(Invariant.S2, importer, home, hit, "was freed while mapped")

    def _check_moved(self, importer: int, kernel: Kernel, home: int, entries: Foreign) -> None:
        window = kernel.memory.physical._windows.get(home)
        owner = None if window is None else self._owner(home, window)
        if owner is None or self.scene.sessions.active(home, importer):
            return
        live = entries.frames[owner.memory.frames.mapcount[entries.frames] > 0]
        self._say(Invariant.S7, importer, home, live, "still in use after the fence was complete")

    def _check_left(self, home: Kernel | None, lost: int) -> None:
        """By the notes of the fence itself: what it retired because of who was lost."""
        if home is None:
            return
        for (importer, _), notes in home.xpmem.fence._quarantine.items():
            for exposed in notes if importer == lost else ():
                live = exposed.frames[home.memory.frames.mapcount[exposed.frames] > 0]
                self._say(Invariant.S7, lost, home.partid, live, "in use after its fence")

    def _owner(self, home: int, window: memoryview) -> Kernel | None:
        """The running kernel whose memory `window` is."""
        kernel = self.scene.kernels.get(home)
        if kernel is None or kernel.memory.physical._windows[home] is not window:
            return None
        return kernel

    def _say(
        self, invariant: Invariant, importer: int, home: int, frames: _Vector, what: str
    ) -> None:
        if len(frames):
            numbers = ", ".join(map(str, np.unique(frames).tolist()[:6]))
            text = f"frame {numbers} of p{home}, in p{importer}: {what}"
            self.report(invariant, home, text)
