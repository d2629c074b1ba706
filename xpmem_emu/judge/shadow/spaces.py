"""What calls do to the pages of a task: map, unmap, protect, advise, move, fork, exec.

Each call is a change of a range from its begin to its end. One that failed half-way, or that
crossed another, leaves a range that nobody knows.
"""

import errno
from collections.abc import Callable
from functools import partial

from xpmem_emu.judge.shadow.cells import Cell, Order, Span, StoreFate
from xpmem_emu.judge.shadow.stores import Stores
from xpmem_emu.judge.shadow.world import (
    WILD_PAGES,
    Backing,
    Creds,
    File,
    ShadowPage,
    ShadowPartition,
    ShadowTask,
    doubt,
)
from xpmem_emu.kernel import calls
from xpmem_emu.kernel.interface import Done, Failed, Outcome
from xpmem_emu.units import PAGE_SHIFT, PAGE_SIZE, page_align_up

Finish = Callable[[Outcome | None], None]
"""Told how a call ended; None: nobody knows, and it may go on."""
Inherited = Callable[[ShadowTask, int, ShadowPage], bool]
_Effect = Callable[[Done, int], None]
SPACE_END = 1 << 60
_HARMLESS = frozenset({errno.EINVAL, errno.ESRCH, errno.EPERM, errno.EACCES, errno.ENOENT})


def vpns(address: int, length: int) -> tuple[int, int]:
    """The pages of a range."""
    return address >> PAGE_SHIFT, (address + page_align_up(length)) >> PAGE_SHIFT


class Spaces:
    """Carries changes of address spaces out on the model."""

    def __init__(
        self, clock: Order, stores: Stores, inherited: Inherited, wrong: Callable[[int, str], None]
    ) -> None:
        """`inherited`: whether a child has for certain what the model says of a page. `wrong` is
        told of a partition what should not have succeeded there."""
        self._wrong = wrong
        self._clock = clock
        self.put = stores.put
        self._inherits = inherited

    def change(
        self,
        task: ShadowTask,
        ranges: list[tuple[int, int]],
        effect: _Effect,
        perhaps: _Effect | None = None,
    ) -> Finish:
        """`effect` is called with the answer and the begin, if nothing crossed; else `perhaps`."""
        begin = self._clock.now
        vast = any(high - low > WILD_PAGES and high < SPACE_END for low, high in ranges)
        if vast:
            task.wild = True  # page by page, what it did would take for ever
        spans = [task.areas.begin(begin, low, high, self._clock.oldest) for low, high in ranges]

        def finish(outcome: Outcome | None) -> None:
            crossed = any(
                set(task.areas.crossing(begin, span.low, span.high)) - set(spans) for span in spans
            )
            if isinstance(outcome, Done) and not crossed and not vast:
                effect(outcome, begin)
            elif not (isinstance(outcome, Failed) and outcome.errno in _HARMLESS):
                self._lost(task, spans)
                if isinstance(outcome, Done) and perhaps is not None and not vast:
                    perhaps(outcome, begin)
            if outcome is not None:
                for span in spans:
                    span.end = self._clock.now

        return finish

    def placed(self, task: ShadowTask, begin: int, low: int, high: int) -> bool:
        """Whether nothing else is in [low, high), which the kernel chose for a call since
        `begin`: it may have chosen what another call, still unanswered, has just left."""
        crossed = bool(task.areas.crossing(begin, low, high))
        task.areas.begin(begin, low, high, self._clock.oldest).end = self._clock.now
        return not crossed

    def _lost(self, task: ShadowTask, spans: list[Span]) -> None:
        for span in spans:
            if task.wild or span.high >= SPACE_END:
                task.wild = True
            else:
                task.forget(span.low, span.high)

    # -- calls -----------------------------------------------------------------------------

    def mmap(self, at: ShadowPartition, task: ShadowTask, call: calls.Mmap) -> Finish:
        """New pages, fresh or of a file."""
        fixed = bool(call.flags & calls.MAP_FIXED)
        ranges = [vpns(call.address, call.length)] if fixed else []
        shared = bool(call.flags & calls.MAP_SHARED)
        file = at.files.get(call.file) if call.file else None
        named = not at.names.crossing(self._clock.now, 0, 1)

        def put(done: Done, begin: int, *, certain: bool) -> None:
            low, high = vpns(_number(done), call.length)
            if high - low > WILD_PAGES:
                task.wild = True
                return
            certain = (fixed or self.placed(task, begin, low, high)) and certain
            behind = file if call.file else File(page_align_up(call.length)) if shared else None
            known = named and not (call.file and file is None)
            for vpn in range(low, high):
                page = ShadowPage(
                    Backing.SHARED if shared else Backing.PRIVATE,
                    call.prot,
                    behind,
                    (call.offset >> PAGE_SHIFT if call.file else 0) + vpn - low,
                    bool(call.flags & (calls.MAP_UNCACHED | calls.MAP_MSPEC)),
                    bool(call.flags & calls.MAP_MSPEC),
                )
                self.put(task, vpn, page if known else doubt(page), begin, certain=certain)

        return self.change(task, ranges, partial(put, certain=True), partial(put, certain=False))

    def munmap(self, at: ShadowPartition, task: ShadowTask, call: calls.Munmap) -> Finish:
        """No pages. Who unmaps an attachment is killed."""
        low, high = vpns(call.address, call.length)

        def effect(done: Done, begin: int) -> None:
            for vpn in range(low, high):
                self.put(task, vpn, None, begin)

        return self.change(task, [(low, high)], effect)

    def mprotect(self, at: ShadowPartition, task: ShadowTask, call: calls.Mprotect) -> Finish:
        """Other rights; of an attachment a piece may be cut off."""
        low, high = vpns(call.address, call.length)

        def effect(done: Done, begin: int) -> None:
            self._require_whole(task, low, high, "mprotect")
            for vpn in range(low, high):
                page = task.pages.get(vpn)
                if page is not None and page.kind is Backing.ATTACHED:
                    self._cut(task, page)
                elif page is not None:
                    page.prot = call.prot

        return self.change(task, [(low, high)], effect)

    def _require_whole(self, task: ShadowTask, low: int, high: int, call: str) -> None:
        """A call that has changed all or nothing of a range, in which nothing is missing."""
        holes = [vpn for vpn in range(low, high) if vpn not in task.pages]
        if holes and not task.wild:
            text = f"{call} of task {task.pid} succeeded, though nothing is at page {holes[0]:#x}"
            self._wrong(task.partid, text)

    def _cut(self, task: ShadowTask, page: ShadowPage) -> None:
        """An attachment was changed in parts: nobody knows which piece leads where."""
        for vpn, other in list(task.pages.items()):
            if other.attached is page.attached:
                task.pages[vpn] = doubt(other)

    def madvise(self, at: ShadowPartition, task: ShadowTask, call: calls.Madvise) -> Finish:
        """DONTNEED drops what is private, REMOVE what is shared."""
        low, high = vpns(call.address, call.length)
        if call.advice == calls.MADV_REMOVE:
            return self._punch(task, low, high)

        def effect(done: Done, begin: int) -> None:
            self._require_whole(task, low, high, "madvise")
            for vpn in range(low, high):
                page = task.pages.get(vpn)
                dropped = call.advice == calls.MADV_DONTNEED
                if dropped and page is not None and page.kind is Backing.PRIVATE:
                    self._drop(task, vpn, page, begin)

        if call.advice == calls.MADV_PAGEOUT:
            return _ignored
        return self.change(task, [(low, high)], effect)

    def _punch(self, task: ShadowTask, low: int, high: int) -> Finish:
        """A hole in files. Each of its pages is stored into from now until the call ends: whoever
        has the file elsewhere sees the old bytes or zeros. Of a call that crossed another change,
        or that failed, nobody knows where in which file it made holes, if any."""
        begin, oldest = self._clock.now, self._clock.oldest
        found, cells = self._backed(task, low, high)
        writes = [(cell, cell.writes.begin(begin, 0, PAGE_SIZE, oldest)) for cell in cells]
        zeroed = False

        def effect(done: Done, begin: int) -> None:
            nonlocal zeroed
            zeroed = all(page.kind is not Backing.UNKNOWN for page in found)
            for vpn in range(low, high):
                page = task.pages.get(vpn)
                if page is not None and page.file is not None and page.kind is Backing.PRIVATE:
                    task.pages[vpn] = doubt(page)

        change = self.change(task, [(low, high)], effect)

        def finish(outcome: Outcome | None) -> None:
            change(outcome)
            nothing = isinstance(outcome, Failed) and outcome.errno in _HARMLESS
            fate = StoreFate.NOTHING if nothing else StoreFate.DONE if zeroed else StoreFate.MAYBE
            for cell, write in writes:
                cell.finish(write, self._clock.now, bytes(PAGE_SIZE), fate)
            for cell in self._backed(task, low, high)[1] if fate is StoreFate.MAYBE else ():
                cell.blur(0, PAGE_SIZE)  # of what was mapped there meanwhile

        return finish

    def _backed(self, task: ShadowTask, low: int, high: int) -> tuple[list[ShadowPage], list[Cell]]:
        """What is mapped in a range, and the pages of files that it is or may be."""
        here = range(low, high) if high - low <= WILD_PAGES else list(task.pages)
        pages = [task.pages[vpn] for vpn in here if vpn in task.pages]
        candidates = [each for page in pages for each in page.candidates]
        return pages, [each.file.cell(each.index) for each in candidates if each.file is not None]

    def zap(self, at: ShadowPartition, task: ShadowTask, call: calls.ZapPageRange) -> Finish:
        """Entries go, and with them what is private."""
        low, high = vpns(call.address, call.length)

        def effect(done: Done, begin: int) -> None:
            for vpn in range(low, high):
                page = task.pages.get(vpn)
                if page is not None and page.kind is Backing.PRIVATE:
                    self._drop(task, vpn, page, begin)

        return self.change(task, [(low, high)], effect)

    def _drop(self, task: ShadowTask, vpn: int, page: ShadowPage, begin: int) -> None:
        page = ShadowPage(Backing.PRIVATE, page.prot, page.file, page.index, page.uncached)
        self.put(task, vpn, page, begin)

    def mremap(self, at: ShadowPartition, task: ShadowTask, call: calls.Mremap) -> Finish:
        """Pages move along with what they hold; more of the same kind behind them."""
        old, new = vpns(call.address, call.old_length), page_align_up(call.new_length)
        ranges = [old]
        if call.flags & calls.MREMAP_FIXED:
            ranges.append(vpns(call.new_address, call.new_length))
        else:
            ranges.append(vpns(call.address, max(call.old_length, call.new_length)))

        def put(done: Done, begin: int, *, certain: bool) -> None:
            low, high = _number(done) >> PAGE_SHIFT, (_number(done) + new) >> PAGE_SHIFT
            pages = [task.pages.get(vpn) for vpn in range(*old)]
            first = pages[0] if pages else None
            busy = task.stores.crossing(begin, *old) or task.stores.crossing(begin, low, high)
            odd = first is None or not all(page is not None and page.known for page in pages)
            here = low == old[0] or call.flags & calls.MREMAP_FIXED
            certain = bool(here or self.placed(task, begin, low, high)) and certain
            certain = certain and not busy and not odd
            if not certain:
                task.forget(*old)
            for vpn in range(*old) if certain else ():
                task.pages.pop(vpn, None)
            for at_page, vpn in enumerate(range(low, high)):
                page = pages[at_page] if at_page < len(pages) else _grown(first, at_page)
                self.put(task, vpn, page, begin, certain=certain)

        return self.change(task, ranges, partial(put, certain=True), partial(put, certain=False))

    def fork(self, at: ShadowPartition, task: ShadowTask, call: calls.Fork) -> Finish:
        """A child with copies of what is private, the same of what is shared, no attachment."""
        begin, before = self._clock.now, dict(task.pages)

        def finish(outcome: Outcome | None) -> None:
            if not isinstance(outcome, Done):
                return
            child = at.tasks[_number(outcome)] = ShadowTask(at.partid, _number(outcome), task.creds)
            child.wild = task.wild
            for vpn, page in task.pages.items():
                if page.kind is Backing.ATTACHED:
                    continue
                child.pages[vpn] = (
                    self._inherited(page, begin) if self._inherits(task, vpn, page) else doubt(page)
                )
            for span in task.areas.crossing(begin, 0, SPACE_END):
                child.wild = child.wild or span.high >= SPACE_END
                for vpn in () if child.wild else range(span.low, span.high):
                    child.pages[vpn] = doubt(before.get(vpn), task.pages.get(vpn))
            if task.identity.crossing(begin, 0, 1):
                child.creds = None

        return finish

    def _inherited(self, page: ShadowPage, begin: int) -> ShadowPage:
        twin = ShadowPage(page.kind, page.prot, page.file, page.index, page.uncached)
        twin.copied, twin.perhaps = page.copied, page.perhaps
        if page.kind is Backing.PRIVATE and page.cell is not None:
            if page.cell.writes.crossing(begin, 0, PAGE_SIZE):
                twin.cell = page.cell.copy(begin)
            else:
                page.cell.shared = True
                twin.cell = page.cell
        return twin

    def exec(self, at: ShadowPartition, task: ShadowTask, call: calls.Exec) -> Finish:
        """Nothing is mapped."""

        def effect(done: Done, begin: int) -> None:
            task.pages.clear()
            task.opened = None

        device = task.identity.begin(self._clock.now, 0, 1, self._clock.oldest)
        change = self.change(task, [(0, SPACE_END)], effect)

        def finish(outcome: Outcome | None) -> None:
            change(outcome)
            device.end = self._clock.now

        return finish

    # -- who a task is ---------------------------------------------------------------------

    def setuid(self, at: ShadowPartition, task: ShadowTask, call: calls.Setuid) -> Finish:
        """Capabilities go with root and come back with it."""
        begin = self._clock.now
        span = task.identity.begin(begin, 0, 1, self._clock.oldest)

        def finish(outcome: Outcome | None) -> None:
            was = task.creds
            if was is None or task.identity.crossing(begin, 0, 1, but=span):
                task.creds = None
            elif isinstance(outcome, Done):
                changed = (was.uid == 0) != (call.uid == 0)
                capable = call.uid == 0 if changed else was.capable
                task.creds = Creds(call.uid, tuple(call.gids), capable)
            elif outcome is None or not isinstance(outcome, Failed):
                task.creds = None
            span.end = self._clock.now

        return finish


def _grown(first: ShadowPage | None, further: int) -> ShadowPage | None:
    """The page so far behind the first of an area, when that grows."""
    if first is None or not first.known:
        return None if first is None else doubt(*(_grown(each, further) for each in first.perhaps))
    return ShadowPage(first.kind, first.prot, first.file, first.index + further, first.uncached)


def _number(done: Done) -> int:
    assert isinstance(done.value, int)
    return done.value


def _ignored(outcome: Outcome | None) -> None:
    """Nothing that the model knows of changes."""
