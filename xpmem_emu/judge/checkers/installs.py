"""S4 and S5: what an importer may install.

A page may be mapped to the frame that its home served for it, as long as no recall of that page
that came after has been acknowledged by the importer. While one is on its way to the importer the
entry is still right: the home waits for its acknowledgement. With no recall on its way, the home's
own page table must have that very frame there, and an entry that lets the importer store is right
only where the home's own does: a page of a file that the exporter may only read, or one that a
forked child shares, is nobody's to change through an attachment. This part needs the kernels.
"""

from collections import defaultdict
from collections.abc import Iterator

from xpmem_emu.judge.checkers.base import Checker
from xpmem_emu.judge.checkers.raw import RESIDENT, WRITE, entry, stored_into
from xpmem_emu.judge.invariants import Invariant
from xpmem_emu.judge.scene import EventHandlers, Scene
from xpmem_emu.kernel.events import KernelBoot
from xpmem_emu.xpc.events import PartitionChange
from xpmem_emu.xpmem import events

Served = dict[int, tuple[int, int]]
"""page -> (frame, sequence of the segment when it was served)."""


class Installs(Checker):
    """Follows each page from the answer of its home to the entry."""

    judges = (Invariant.S4, Invariant.S5)
    looks_at = (
        "every installed page against what was served, recalled, and is in the home's page "
        "table; every recall that an importer heeds against those that the home began"
    )

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self._made: dict[int, events.SegmentMake] = {}
        self._served: dict[tuple[int, int], Served] = defaultdict(dict)
        self._bumps: dict[int, list[events.SequenceBump]] = defaultdict(list)
        self._heard: dict[tuple[int, int], list[events.Invalidated]] = defaultdict(list)
        self._pending: list[tuple[int, int, int, int, int]] = []

    def handlers(self) -> EventHandlers:
        """The life of a page."""
        return {
            KernelBoot: self._booted,
            PartitionChange: self._partition,
            events.SegmentMake: self._make,
            events.SegmentRemove: self._remove,
            events.FaultServe: self._serve,
            events.PagesEvict: self._evict,
            events.SequenceBump: self._bump,
            events.Invalidated: self._invalidated,
            events.PageInstall: self._install,
        }

    def _booted(self, partid: int, event: KernelBoot) -> None:
        for segid in [segid for segid in self._made if segid >> 48 == partid]:
            self._forget(segid)

    def _partition(self, partid: int, event: PartitionChange) -> None:
        if event.state != "ACTIVE":  # what this home served to that peer is fenced now
            for key in [k for k in self._served if k[0] >> 48 == partid and k[1] == event.peer]:
                del self._served[key]

    def _make(self, partid: int, event: events.SegmentMake) -> None:
        self._made[event.segid] = event

    def _remove(self, partid: int, event: events.SegmentRemove) -> None:
        self._forget(event.segid)

    def _forget(self, segid: int) -> None:
        del self._made[segid]
        self._bumps.pop(segid, None)
        for table in (self._served, self._heard):
            for key in [key for key in table if key[0] == segid]:
                del table[key]

    def _serve(self, partid: int, event: events.FaultServe) -> None:
        served = self._served[event.segid, event.importer]
        for page, frame, count, _ in event.extents:
            for at in range(count):
                served[page + at] = frame + at, event.sequence

    def _evict(self, partid: int, event: events.PagesEvict) -> None:
        served = self._served.get((event.segid, event.importer), {})
        for page in _pages(event.ranges):
            served.pop(page, None)

    def _bump(self, partid: int, event: events.SequenceBump) -> None:
        self._bumps[event.segid].append(event)

    def _invalidated(self, partid: int, event: events.Invalidated) -> None:
        self._heard[event.segid, partid].append(event)
        home = event.segid >> 48
        known = event.segid in self._made and self.scene.sessions.active(home, partid)
        begun = {bump.sequence for bump in self._bumps.get(event.segid, ())}
        if known and home not in self.scene.injuries.forgers and event.sequence not in begun:
            text = f"segment {event.segid:#x} was recalled at {event.sequence}, not by its home"
            self.report(Invariant.S4, partid, text)

    def _install(self, partid: int, event: events.PageInstall) -> None:
        home = event.segid >> 48
        if not self.scene.sessions.active(home, partid) or event.segid not in self._made:
            return
        served = self._served.get((event.segid, partid), {})
        for first, frame, count, _ in event.extents:
            for at in range(count):
                self._page(partid, event.segid, first + at, frame + at, served)

    def _page(self, partid: int, segid: int, page: int, frame: int, served: Served) -> None:
        where = f"page {page} of segment {segid:#x}, frame {frame}"
        good, sequence = served.get(page, (0, 0))
        if good != frame:
            self.report(Invariant.S4, partid, f"{where}: never served, or given back ({good})")
            return
        recalls = [
            bump.sequence
            for bump in self._bumps.get(segid, ())
            if bump.sequence > sequence and 0 <= page - bump.page < bump.count
        ]
        heard = [
            message.sequence
            for message in self._heard.get((segid, partid), ())
            if message.sequence > sequence and page in _pages(message.ranges)
        ]
        if heard:
            self.report(Invariant.S4, partid, f"{where}: recalled at {max(heard)}, then installed")
        elif not recalls:
            self._pending.append((partid, segid, page, frame, sequence))

    def stepped(self, partid: int) -> None:
        """Compare what was installed with the home's page table, unless the step that installed
        it, a long one of the home itself, also took it away again."""
        pending, self._pending = self._pending, []
        for importer, segid, page, frame, sequence in pending:
            moved = any(
                bump.sequence > sequence and 0 <= page - bump.page < bump.count
                for bump in self._bumps.get(segid, ())
            )
            if not moved and segid in self._made and page in self._served[segid, importer]:
                self._compare(importer, segid, page, frame)

    def _compare(self, partid: int, segid: int, page: int, frame: int) -> None:
        made = self._made[segid]
        where = f"page {page} of segment {segid:#x}, frame {frame}"
        kernel = self.scene.kernels.get(segid >> 48)
        if kernel is None:
            return
        vpn = (made.vaddr >> 12) + page
        word = entry(kernel, made.tgid, vpn)
        if word is None or not word & RESIDENT or word >> 12 & ((1 << 38) - 1) != frame:
            self.report(Invariant.S4, partid, f"{where}: the home has {word or 0:#x} there")
        elif not word & WRITE and self._may_store(partid, segid, frame):
            self.report(Invariant.S5, partid, f"{where}: the exporter itself may not write it now")

    def _may_store(self, importer: int, segid: int, frame: int) -> bool:
        """Whether an entry of the importer is writable, unless another segment has that frame."""
        home = segid >> 48
        kernel = self.scene.kernels.get(importer)
        others = (
            good
            for (other, who), served in self._served.items()
            if who == importer and other != segid and other >> 48 == home
            for good, _ in served.values()
        )
        return (
            kernel is not None
            and frame in stored_into(kernel, home).tolist()
            and frame not in others
        )


def _pages(ranges: list[tuple[int, int]]) -> Iterator[int]:
    for page, count in ranges:
        yield from range(page, page + count)
