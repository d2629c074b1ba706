"""S2 and S7, as far as events show them: no raw memory needed.

An importer has a claim on a frame from `xpmem:install` until it says that the page went
(invalidate, detach, import_lost), its home says that it was given back (evict), or its process is
gone. At the end of every step, of the frames that the step freed:

* none has a claim of an importer that its home has a session with (S2);
* none has a claim of an importer that was given up, unless the quarantine ended (S7).

Weaker than `mappings`, which sees every entry; for streams of partitions that run elsewhere. What
a partition imports from itself is left out: in one step it may free a frame and map it again.
"""

from collections import defaultdict
from collections.abc import Iterator

from xpmem_emu.judge.checkers.base import Checker
from xpmem_emu.judge.invariants import Invariant
from xpmem_emu.judge.scene import EventHandlers, Scene
from xpmem_emu.kernel.events import KernelBoot
from xpmem_emu.mm.events import FramesFree
from xpmem_emu.xpc.events import PartitionChange
from xpmem_emu.xpc.remote import EPOCH_BITS
from xpmem_emu.xpmem import events

Spot = tuple[int, int]
"""(address of the attachment, page of the segment)."""
_PARTID_SHIFT = 48


class Claims(Checker):
    """Who maps which frame of whom."""

    judges = (Invariant.S2, Invariant.S7)
    looks_at = "events alone: frames that are freed against what importers said that they map"

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self._mapped: dict[tuple[int, int], dict[Spot, int]] = defaultdict(dict)
        """(segid, importer) -> what it maps there -> frame."""
        self._claims: dict[int, dict[int, set[tuple[int, int, Spot]]]] = defaultdict(dict)
        """home -> frame -> (segid, importer, spot): the same, the other way round."""
        self._fenced: dict[int, dict[tuple[int, int], set[int]]] = defaultdict(dict)
        """home -> (lost importer, its incarnation) -> frames."""
        self._incarnations: dict[tuple[int, int], int] = {}
        self._freed: set[int] = set()

    def handlers(self) -> EventHandlers:
        """Entries as they come and go, frames as they go."""
        return {
            KernelBoot: self._booted,
            PartitionChange: self._partition,
            FramesFree: self._frames_freed,
            events.PageInstall: self._install,
            events.Invalidated: self._invalidated,
            events.AttachmentUnmap: self._unmapped,
            events.ImportLost: self._import_lost,
            events.PagesEvict: self._evicted,
            events.QuarantineEmpty: self._proven,
        }

    def stepped(self, partid: int) -> None:
        """Judge what the step freed."""
        freed, self._freed = self._freed, set()
        claims, fenced = self._claims[partid], self._fenced[partid]
        for frame in sorted(freed):
            for segid, importer, (_, page) in sorted(claims.get(frame, ())):
                self._say(Invariant.S2, partid, frame, f"page {page} of {segid:#x} in p{importer}")
        for (importer, incarnation), frames in fenced.items():
            for frame in sorted(frames & freed):
                self._say(
                    Invariant.S7, partid, frame, f"p{importer}, lost in session {incarnation:#x}"
                )
            frames -= freed

    def crashed(self, partid: int) -> None:
        """Whatever its last step freed, its memory is nobody's any more."""
        self._freed = set()

    def _say(self, invariant: Invariant, home: int, frame: int, who: str) -> None:
        self.report(invariant, home, f"frame {frame} is freed while mapped: {who}")

    # -- partitions ------------------------------------------------------------------------

    def _booted(self, partid: int, event: KernelBoot) -> None:
        """Its old memory is nobody's any more. What the process before mapped of others may still
        be mapped: that one may be stopped, and a new boot proves nothing about it."""
        for segid, importer in list(self._mapped):
            if partid == segid >> _PARTID_SHIFT:
                self._drop(segid, importer)
        self._fenced.pop(partid, None)

    def _partition(self, partid: int, event: PartitionChange) -> None:
        """The home gives an importer up: from now on its claims end on proof only."""
        pair = (partid, event.peer)
        if event.state == "ACTIVE":
            self._incarnations[pair] = event.incarnation
        elif (incarnation := self._incarnations.pop(pair, None)) is not None:
            frames: set[int] = set()
            for segid, importer in list(self._mapped):
                if (segid >> _PARTID_SHIFT, importer) == pair:
                    frames |= self._drop(segid, importer)
            self._fenced[partid][event.peer, incarnation] = frames

    def _proven(self, partid: int, event: events.QuarantineEmpty) -> None:
        sessions = self._fenced[partid]
        for session in list(sessions):
            same_boot = session[1] >> EPOCH_BITS == event.incarnation >> EPOCH_BITS
            if session[0] == event.importer and same_boot and session[1] <= event.incarnation:
                del sessions[session]

    # -- pages -----------------------------------------------------------------------------

    def _frames_freed(self, partid: int, event: FramesFree) -> None:
        for first, count in event.extents:
            self._freed.update(range(first, first + count))

    def _install(self, partid: int, event: events.PageInstall) -> None:
        home = event.segid >> _PARTID_SHIFT
        if (home, partid) not in self._incarnations:
            return  # given up: what it may write is in quarantine; or its own frame
        for first, frame, count, _ in event.extents:
            for at in range(count):
                spot = (event.address, first + at)
                self._forget(event.segid, partid, spot)
                self._mapped[event.segid, partid][spot] = frame + at
                who = (event.segid, partid, spot)
                self._claims[home].setdefault(frame + at, set()).add(who)

    def _invalidated(self, partid: int, event: events.Invalidated) -> None:
        self._drop_pages(event.segid, partid, event.ranges)

    def _evicted(self, partid: int, event: events.PagesEvict) -> None:
        self._drop_pages(event.segid, event.importer, event.ranges)

    def _unmapped(self, partid: int, event: events.AttachmentUnmap) -> None:
        for spot in [s for s in self._spots(event.segid, partid) if s[0] == event.address]:
            self._forget(event.segid, partid, spot)

    def _import_lost(self, partid: int, event: events.ImportLost) -> None:
        self._drop(event.segid, partid)

    def _drop_pages(self, segid: int, importer: int, ranges: list[tuple[int, int]]) -> None:
        for spot in list(self._spots(segid, importer)):
            if any(0 <= spot[1] - first < count for first, count in ranges):
                self._forget(segid, importer, spot)

    def _drop(self, segid: int, importer: int) -> set[int]:
        """All claims of an importer on a segment; the frames they were on."""
        frames = set(self._mapped.get((segid, importer), {}).values())
        for spot in list(self._spots(segid, importer)):
            self._forget(segid, importer, spot)
        self._mapped.pop((segid, importer), None)
        return frames

    def _spots(self, segid: int, importer: int) -> Iterator[Spot]:
        return iter(self._mapped.get((segid, importer), {}))

    def _forget(self, segid: int, importer: int, spot: Spot) -> None:
        frame = self._mapped[segid, importer].pop(spot, None)
        if frame is not None:
            claims = self._claims[segid >> _PARTID_SHIFT]
            claims[frame].discard((segid, importer, spot))
            if not claims[frame]:
                del claims[frame]
