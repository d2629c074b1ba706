"""S3: what was pinned for segments, minus what was unpinned, is what is pinned.

While a fault pins pages the raw count may be higher, never lower; when all is quiet it is equal,
and with no segment left it is zero (see `teardown`).
"""

from collections import Counter

from xpmem_emu.judge.checkers.base import Checker
from xpmem_emu.judge.invariants import Invariant
from xpmem_emu.judge.scene import EventHandlers, Scene
from xpmem_emu.kernel.events import KernelBoot
from xpmem_emu.xpmem import events


class Pins(Checker):
    """Sums events, compares with raw counts."""

    judges = (Invariant.S3,)
    looks_at = "pin and unpin events against raw counts; none without a permit, none at the end"

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self.balance: Counter[int] = Counter()
        """Pages pinned for segments of each partition, by its events."""
        self._segments: Counter[int] = Counter()
        self._permits: Counter[int] = Counter()
        self._changed = False

    def handlers(self) -> EventHandlers:
        """Pin and unpin."""
        return {
            KernelBoot: self._booted,
            events.PagesPin: self._pin,
            events.PagesUnpin: self._unpin,
            events.PermitGet: self._granted,
            events.PermitRelease: self._released,
        }

    def _booted(self, partid: int, event: KernelBoot) -> None:
        self.balance[partid] = 0
        for segid in [segid for segid in self._segments if segid >> 48 == partid]:
            del self._segments[segid]

    def _pin(self, partid: int, event: events.PagesPin) -> None:
        self.balance[partid] += event.pages
        self._segments[event.segid] += event.pages
        self._changed = True

    def _unpin(self, partid: int, event: events.PagesUnpin) -> None:
        self.balance[partid] -= event.pages
        self._segments[event.segid] -= event.pages
        self._changed = True
        if self._segments[event.segid] < 0:
            self.report(Invariant.S3, partid, f"segment {event.segid:#x} unpinned more than it had")

    def _granted(self, partid: int, event: events.PermitGet) -> None:
        self._permits[event.segid] += 1

    def _released(self, partid: int, event: events.PermitRelease) -> None:
        self._permits[event.segid] -= 1

    def stepped(self, partid: int) -> None:
        """Compare after a change."""
        kernel = self.scene.kernels.get(partid)
        if not self._changed or kernel is None:
            return
        self._changed = False
        pinned = int(kernel.memory.frames.pins.sum())
        if pinned < self.balance[partid]:
            self.report(
                Invariant.S3,
                partid,
                f"{self.balance[partid]} pages pinned for segments, {pinned} pins",
            )

    def unused(self) -> None:
        """No call is under way: a segment that nobody has a permit for has no page pinned."""
        for segid, pages in self._segments.items():
            if pages and not self._permits[segid]:
                self.report(
                    Invariant.S3, segid >> 48, f"{pages} pages of {segid:#x} pinned for nobody"
                )

    def settled(self) -> None:
        """Nothing runs any more: the counts are equal."""
        for partid, kernel in self.scene.kernels.items():
            pinned = int(kernel.memory.frames.pins.sum())
            if pinned != self.balance[partid]:
                self.report(
                    Invariant.S3, partid, f"{self.balance[partid]} pages of segments, {pinned} pins"
                )
