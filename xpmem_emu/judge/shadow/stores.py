"""Where a store goes: to whose page, into which cell, and what is known there afterwards.

A page that the model has lost sight of may still lead to memory that others see. A store through
it is entered at each place that it may lead to, and leaves fog there, never knowledge.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from xpmem_emu.judge.shadow.cells import Cell, Order, Span, StoreFate, cut_pages
from xpmem_emu.judge.shadow.world import (
    Backing,
    ShadowPage,
    ShadowPartition,
    ShadowSegment,
    ShadowTask,
    doubt,
    exported,
)
from xpmem_emu.units import PAGE_SIZE

Behind = tuple[ShadowTask | None, int, ShadowPage | None]
"""A task, the number of a page there, and the page."""


class Place(NamedTuple):
    """Where something leads that a task has, or may have."""

    has: ShadowPage | None
    home: ShadowTask | None
    """Whose page it really is."""
    number: int
    page: ShadowPage | None
    doubtful: bool
    """Only one of several."""


class Part(NamedTuple):
    """The bytes [low, high) of a page, as the access found it at its begin."""

    vpn: int
    low: int
    high: int
    at: int
    place: Place
    cell: Cell | None
    write: Span | None
    claim: Span | None
    """The store, at the home of the page."""
    here: Span | None
    """The store, where its task has another's page: what it has there next may get the rest."""
    fresh: bool
    """The first store to a private page of a file."""


@dataclass(frozen=True, slots=True)
class Stores:
    """Enters stores of one world."""

    clock: Order
    machines: dict[int, ShadowPartition]
    segments: dict[int, ShadowSegment]

    def snapped(self, task: ShadowTask, vpn: int, page: ShadowPage) -> bool:
        """Whether a private page of a file may have been copied, at whatever time, because an
        importer asked for it."""
        plain = page.kind is Backing.PRIVATE and page.file is not None and not page.copied
        return plain and exported(self.segments.values(), task.partid, task.pid, vpn)

    def behind(self, task: ShadowTask, vpn: int) -> Behind:
        """The task whose page it really is, its number there, and the page."""
        return self._led(task, vpn, task.pages.get(vpn))

    def _led(self, task: ShadowTask, vpn: int, page: ShadowPage | None) -> Behind:
        """The same for what a task has at `vpn`, or may have."""
        if page is None or page.attached is None:
            return task, vpn, page
        machine = self.machines.get(page.attached.segment.home)
        home = None if machine is None else machine.tasks.get(page.attached.segment.pid)
        return home, page.vpn, None if home is None else home.pages.get(page.vpn)

    def _places(self, task: ShadowTask, vpn: int, has: ShadowPage | None) -> Iterator[Place]:
        """Where that leads which a task has at `vpn`: what it is first, then all that it may be."""
        for each in (None,) if has is None else has.candidates:
            home, number, page = self._led(task, vpn, each)
            behind = (page,) if page is None or page is each else page.candidates
            for other in behind:
                yield Place(each, home, number, other, each is not has or other is not page)

    def _cell(self, place: Place) -> Cell | None:
        """What a store there goes to, if that is followed."""
        page, home, number = place.page, place.home, place.number
        if page is None or not page.known:
            return None
        snapped = home is not None and self.snapped(home, number, page)
        cell = page.own(self.clock.now)
        if snapped:
            cell.blur(0, PAGE_SIZE)
        return cell

    # -- stores of calls -------------------------------------------------------------------

    def claimed(self, task: ShadowTask, vpn: int, low: int, high: int, at: int) -> list[Part]:
        """Enter a store that begins."""
        now, oldest = self.clock.now, self.clock.oldest
        parts = []
        for place in self._places(task, vpn, task.pages.get(vpn)):
            home, number, page = place.home, place.number, place.page
            claim = None if home is None else home.stores.begin(now, number, number + 1, oldest)
            elsewhere = (home, number) != (task, vpn)
            here = task.stores.begin(now, vpn, vpn + 1, oldest) if elsewhere else None
            fresh = page is not None and page.fresh  # before it gets a copy of its own
            cell = self._cell(place)
            write = None if cell is None else cell.writes.begin(now, low, high, oldest)
            parts.append(Part(vpn, low, high, at, place, cell, write, claim, here, fresh))
        return parts

    def settle(self, part: Part, data: bytes, fate: StoreFate, begin: int) -> None:
        """A store has ended."""
        now, page = self.clock.now, part.place.page
        fate = unsure(fate) if part.place.doubtful else fate
        if part.cell is not None and part.write is not None:
            part.cell.finish(part.write, now, data[part.at : part.at + part.high - part.low], fate)
            if part.fresh and page is not None and page.cell is part.cell:
                _blur_copied(page, part, fate, begin)
        if part.claim is not None and fate is not StoreFate.LOOSE:
            part.claim.close(now)
        if part.here is not None:  # whatever became of it far away, here it is over with its call
            part.here.close(now)

    def put(
        self,
        task: ShadowTask,
        vpn: int,
        page: ShadowPage | None,
        since: int,
        *,
        certain: bool = True,
    ) -> None:
        """Something else is mapped there since a call that began at `since`, or may be. A store
        that crossed the call may have gone there, and one that goes on may still."""
        crossing = task.stores.crossing(since, vpn, vpn + 1)
        if certain and not crossing:
            task.put(vpn, page)
            return
        task.pages[vpn] = doubt(task.pages.get(vpn), page)
        now, oldest = self.clock.now, self.clock.oldest
        for place in self._places(task, vpn, page) if crossing else ():
            cell = self._cell(place)
            if place.home is None or cell is None:
                continue
            cell.blur(0, PAGE_SIZE)
            for claim in crossing:
                place.home.stores.follow(claim, now, place.number, place.number + 1, oldest)
                cell.writes.follow(claim, now, 0, PAGE_SIZE, oldest)
                if claim.end is not None:
                    claim.close(now)

    # -- stores past every call ------------------------------------------------------------

    def caught(self, task: ShadowTask, address: int, size: int) -> Callable[[], None]:
        """A processor is stopped in the middle of a store. To be called when the store lands.

        Where it goes is decided now, by the frame in the processor's hand: by the time that it
        lands, its task may be gone, and its partition booted anew. Whether its home has moved the
        page away from that frame meanwhile is not known, so that it leaves fog; frames that the
        store must not reach any more are for S7.
        """
        found = [
            (place.home, place.number, low, high)
            for vpn, low, high, _ in cut_pages(address, size)
            for place in self._places(task, vpn, task.pages.get(vpn))
            if place.home is not None
        ]
        return lambda: self._land(found)

    def _land(self, found: list[tuple[ShadowTask, int, int, int]]) -> None:
        self.clock.now += 1
        now = self.clock.now
        for home, number, low, high in found:
            for place in self._places(home, number, home.pages.get(number)):
                cell = self._cell(place)
                if cell is not None:
                    cell.blur(low, high)
                    # A store of a call that is under way may have come before.
                    cell.writes.begin(now, low, high, self.clock.oldest).close(now)


def _blur_copied(page: ShadowPage, part: Part, fate: StoreFate, begin: int) -> None:
    """The page was copied from the file at some time since."""
    assert part.cell is not None
    if fate is not StoreFate.DONE:
        page.cell, page.kind = None, Backing.UNKNOWN
        return
    page.copied = True
    source = page.file.cells.get(page.index) if page.file is not None else None
    for span in source.writes.crossing(begin, 0, PAGE_SIZE) if source is not None else ():
        part.cell.blur(span.low, min(span.high, part.low) if span.low < part.low else span.high)


def unsure(fate: StoreFate) -> StoreFate:
    """The same of a store that may have gone elsewhere."""
    return StoreFate.MAYBE if fate is StoreFate.DONE else fate
