"""S20, from the tables of a partition.

* No fault asks for pages that are being given back: the goodbye must not overtake the question.
* No page is known to importers while a recall of it is under way, and no page is pinned for two
  faults at once: who comes later waits.
* What is known of a segment is kept while a fault on it or a goodbye to its pages is under way: a
  new permit must find those.

Judged from the tables of a partition after each step. What began and ended within one step, or
began in the same step as what it met, is not looked at.
"""

from collections.abc import Iterator, Mapping
from itertools import pairwise

from xpmem_emu.judge.checkers.base import Checker
from xpmem_emu.judge.invariants import Invariant
from xpmem_emu.judge.scene import EventHandlers, Scene
from xpmem_emu.kernel.events import KernelBoot
from xpmem_emu.kernel.kernel import Kernel
from xpmem_emu.xpmem.events import FaultBegin
from xpmem_emu.xpmem.objects import Eviction, ImportedSegment, InFlight, Segment

_Range = tuple[int, int]


class Crossings(Checker):
    """Remembers what was under way after the step before."""

    judges = (Invariant.S20,)
    looks_at = (
        "faults on pages that are being given back, pages known while they are recalled or pinned "
        "for two at once, segments forgotten while something of them is under way"
    )

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self._begun: list[int] = []
        """Numbers of the faults that began in the present step."""
        self._imports: dict[int, dict[ImportedSegment, list[Eviction]]] = {}
        """Of each partition, what it ever knew of segments and may still be at work on; with the
        pages that it was giving back after its last step."""
        self._said: set[tuple[int, str]] = set()

    def handlers(self) -> EventHandlers:
        """Faults that begin."""
        return {KernelBoot: self._booted, FaultBegin: self._fault_begins}

    def _booted(self, partid: int, event: KernelBoot) -> None:
        self.crashed(partid)

    def _fault_begins(self, partid: int, event: FaultBegin) -> None:
        self._begun.append(event.fault)

    def crashed(self, partid: int) -> None:
        """Nothing is under way there any more."""
        self._imports.pop(partid, None)
        self._said = {each for each in self._said if each[0] != partid}

    def stepped(self, partid: int) -> None:
        """Whether anything met."""
        begun, self._begun = self._begun, []
        kernel = self.scene.kernels.get(partid)
        if kernel is None or kernel.stopped is not None:
            self.crashed(partid)
            return
        for segment in kernel.xpmem.exporter.segments.values():
            self._say(partid, _exporting(segment))
        self._say(partid, self._importing(partid, kernel, begun))

    def _importing(self, partid: int, kernel: Kernel, begun: list[int]) -> Iterator[str]:
        before = self._imports.get(partid, {})
        current = dict.fromkeys(kernel.xpmem.imports.all())
        for imported in before:
            if imported not in current and (imported.inflight or imported.evictions):
                yield f"segment {imported.segid:#x} was forgotten, with pages of it under way"
        for imported in current:
            for fault in imported.inflight if begun else ():
                if fault.number in begun:
                    yield from _overtaking(imported, fault, before)
        at_work = [each for each in before if each.inflight or each.evictions]
        self._imports[partid] = {each: list(each.evictions) for each in (*current, *at_work)}

    def _say(self, partid: int, whats: Iterator[str]) -> None:
        for what in whats:
            if (partid, what) not in self._said:
                self._said.add((partid, what))
                self.report(Invariant.S20, partid, what)


def _overtaking(
    imported: ImportedSegment, fault: InFlight, before: Mapping[ImportedSegment, list[Eviction]]
) -> Iterator[str]:
    """A fault that asks for what was being given back before the step in which it began."""
    same = [
        each
        for each in before
        if (each.segid, each.incarnation) == (imported.segid, imported.incarnation)
    ]
    for eviction in (one for each in same for one in before[each] if one in each.evictions):
        if _meet(fault.pages, eviction.pages):
            text = f"fault {fault.number} asks for pages {fault.pages} of {imported.segid:#x}"
            yield f"{text}, and {eviction.pages} are being given back"


def _exporting(segment: Segment) -> Iterator[str]:
    for recall in segment.recalls:
        known = segment.table.known(*recall.pages)
        if len(known):
            yield f"page {int(known[0])} of {segment.segid:#x} is known while it is recalled"
    if len(segment.requests) > 1:
        for one, other in pairwise(sorted(request.pages for request in segment.requests)):
            if _meet(one, other):
                yield f"pages {one} and {other} of {segment.segid:#x} are pinned at once"


def _meet(one: _Range, other: _Range) -> bool:
    return one[0] < other[0] + other[1] and other[0] < one[0] + one[1]
