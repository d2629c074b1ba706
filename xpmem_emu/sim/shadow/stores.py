"""Where a store goes: to whose page, into which cell, and what is known there afterwards.

A page that the model has lost sight of may still lead to memory that others see. A store through
it is entered at each place that it may lead to, and leaves fog there, never knowledge.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from xpmem_emu.sim.shadow.cells import Cell, Fate, Span
from xpmem_emu.sim.shadow.files import cut
from xpmem_emu.sim.shadow.sharing import exported
from xpmem_emu.sim.shadow.spaces import Clock
from xpmem_emu.sim.shadow.world import Kind, Machine, Page, Segment, Task
from xpmem_emu.units import PAGE_SIZE

Behind = tuple[Task | None, int, Page | None]
"""A task, the number of a page there, and the page."""


class Part(NamedTuple):
    """The bytes [low, high) of a page, as the access found it at its begin."""

    vpn: int
    low: int
    high: int
    at: int
    home: Task | None
    """Whose page it really is."""
    page: Page | None
    cell: Cell | None
    write: Span | None
    claim: Span | None
    fresh: bool
    """The first store to a private page of a file."""
    doubtful: bool
    """`page` is only one of those that the task may have there."""


@dataclass(frozen=True, slots=True)
class Stores:
    """Enters stores of one world."""

    clock: Clock
    machines: dict[int, Machine]
    segments: dict[int, Segment]

    def snapped(self, task: Task, vpn: int, page: Page) -> bool:
        """Whether a private page of a file may have been copied, at whatever time, because an
        importer asked for it."""
        plain = page.kind is Kind.PRIVATE and page.file is not None and not page.copied
        return plain and exported(self.segments.values(), task.partid, task.pid, vpn)

    def behind(self, task: Task, vpn: int) -> Behind:
        """The task whose page it really is, its number there, and the page."""
        return self._led(task, vpn, task.pages.get(vpn))

    def _led(self, task: Task, vpn: int, page: Page | None) -> Behind:
        """The same for what a task has at `vpn`, or may have."""
        if page is None or page.attached is None:
            return task, vpn, page
        machine = self.machines.get(page.attached.segment.home)
        home = None if machine is None else machine.tasks.get(page.attached.segment.pid)
        return home, page.vpn, None if home is None else home.pages.get(page.vpn)

    # -- stores of calls -------------------------------------------------------------------

    def claimed(self, task: Task, vpn: int, low: int, high: int, place: int) -> list[Part]:
        """Enter a store that begins: what the task has there first, then what it may have."""
        page = task.pages.get(vpn)
        span = vpn, low, high, place
        perhaps = () if page is None else page.perhaps
        return [
            self._claimed(task, page, *span, doubtful=False),
            *(self._claimed(task, each, *span, doubtful=True) for each in perhaps),
        ]

    def _claimed(
        self, task: Task, has: Page | None, vpn: int, low: int, high: int, place: int, *,
        doubtful: bool,
    ) -> Part:  # fmt: skip
        now, oldest = self.clock.now, self.clock.oldest
        home, number, page = self._led(task, vpn, has)
        claim = None if home is None else home.stores.begin(now, number, number + 1, oldest)
        cell, write, fresh = None, None, False
        if page is not None and page.kind in (Kind.PRIVATE, Kind.SHARED):
            fresh = page.kind is Kind.PRIVATE and page.cell is None and page.file is not None
            snapped = self.snapped(home, number, page) if home is not None else False
            cell = page.own(now)
            if snapped:
                cell.blur(0, PAGE_SIZE)
            write = cell.writes.begin(now, low, high, oldest)
        return Part(vpn, low, high, place, home, has, cell, write, claim, fresh, doubtful)

    def settle(self, task: Task, part: Part, data: bytes, fate: Fate, begin: int) -> None:
        """A store has ended."""
        now = self.clock.now
        fate = unsure(fate) if part.doubtful else fate
        has = part.page if part.doubtful else task.pages.get(part.vpn)
        page = self._led(task, part.vpn, has)[2]
        if part.cell is not None and part.write is not None:
            piece = data[part.at : part.at + part.high - part.low]
            part.cell.finish(part.write, now, piece, fate)
            if part.fresh and page is not None and page.cell is part.cell:
                _blur_copied(page, part, fate, begin)
        known = page is not None and page.kind in (Kind.PRIVATE, Kind.SHARED)
        if fate not in (Fate.DONE, Fate.NOTHING) and page is not None and known:
            page.own(now).blur(part.low, part.high)
        if part.claim is not None and fate is not Fate.LOOSE:
            part.claim.end = now

    # -- stores past every call ------------------------------------------------------------

    def caught(self, task: Task, address: int, size: int) -> Callable[[], None]:
        """A processor is stopped in the middle of a store. To be called when the store lands.

        Where it goes is decided now, by the frame in the processor's hand: by the time that it
        lands, its task may be gone, and its partition booted anew. Whether its home has moved the
        page away from that frame meanwhile is not known, so that it leaves fog; frames that the
        store must not reach any more are for S7.
        """
        found: list[tuple[Task, int, int, int]] = []
        for vpn, low, high, _ in cut(address, size):
            page = task.pages.get(vpn)
            for each in () if page is None else (page, *page.perhaps):
                home, number, _ = self._led(task, vpn, each)
                if home is not None:
                    found.append((home, number, low, high))
        return lambda: self._land(found)

    def _land(self, found: list[tuple[Task, int, int, int]]) -> None:
        self.clock.now += 1
        for home, number, low, high in found:
            page = home.pages.get(number)
            if page is not None and page.kind in (Kind.PRIVATE, Kind.SHARED):
                cell = page.own(self.clock.now)
                cell.blur(low, high)
                # A store of a call that is under way may have come before.
                span = cell.writes.begin(self.clock.now, low, high, self.clock.oldest)
                span.end = self.clock.now


def _blur_copied(page: Page, part: Part, fate: Fate, begin: int) -> None:
    """The page was copied from the file at some time since."""
    assert part.cell is not None
    if fate is not Fate.DONE:
        page.cell, page.kind = None, Kind.UNKNOWN
        return
    page.copied = True
    source = page.file.cells.get(page.index) if page.file is not None else None
    for span in source.writes.crossing(begin, 0, PAGE_SIZE) if source is not None else ():
        part.cell.blur(span.low, min(span.high, part.low) if span.low < part.low else span.high)


def unsure(fate: Fate) -> Fate:
    """The same of a store that may have gone elsewhere."""
    return Fate.MAYBE if fate is Fate.DONE else fate
