"""Loads, stores and atomic operations: what may come of them (S13) and what they see (S14).

For each page of an access the model says whether it is allowed, never allowed, or not known. An
access through an attachment may always fail - its home may be lost - but never succeed where the
exporter has nothing. A store that failed may be there or not; one from another partition that got
no answer may still land.
"""

import errno
from collections.abc import Callable
from enum import Enum

from xpmem_emu.errors import Signal
from xpmem_emu.judge.invariants import Invariant
from xpmem_emu.judge.shadow.cells import NOTHING_STORED, Cell, Order, StoreFate, cut_pages
from xpmem_emu.judge.shadow.files import tail
from xpmem_emu.judge.shadow.spaces import SPACE_END, Finish
from xpmem_emu.judge.shadow.stores import Part, Stores, unsure
from xpmem_emu.judge.shadow.words import AMO_WORD, after, unlike
from xpmem_emu.judge.shadow.world import (
    Attached,
    Backing,
    ShadowPage,
    ShadowPartition,
    ShadowSegment,
    ShadowTask,
    exported,
)
from xpmem_emu.kernel import calls
from xpmem_emu.kernel.device_calls import BteCopy
from xpmem_emu.kernel.interface import Done, Failed, Outcome, Raised
from xpmem_emu.units import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE

OnViolation = Callable[[Invariant, str], None]
"""(invariant, text)."""
RIGHTS, CONTENTS = Invariant.S13, Invariant.S14
_READ, _WRITE = 1, 2
_NEVER = (errno.ENOENT, errno.EFAULT)
"""What no access is answered with: where nothing is, there is a signal."""


class Leave(Enum):
    """Whether a page may be accessed."""

    YES = "yes"
    PERHAPS = "its home decides"
    UNKNOWN = "unknown"
    SEGV = "nothing there, or no right"
    BUS = "nothing behind it"


class AccessJudge:
    """Judges accesses of one world."""

    def __init__(
        self,
        clock: Order,
        machines: dict[int, ShadowPartition],
        segments: dict[int, ShadowSegment],
        stores: Stores,
        step: Callable[[], int],
        bound: Callable[[int, int, int, int], bool],
    ) -> None:
        """`bound`: whether two partitions were in session from one step to another."""
        self._clock = clock
        self._machines = machines
        self._segments = segments
        self._step = step
        self._bound = bound
        self._stores = stores
        self.caught = self._stores.caught
        self.forgers: set[int] = set()
        """Partitions that may have stored anything wherever they had a permit."""

    # -- the calls -------------------------------------------------------------------------

    def load(
        self, at: ShadowPartition, task: ShadowTask, call: calls.Load, report: OnViolation
    ) -> Finish:
        """Bytes as they are."""
        begin = self._clock.now
        pieces = cut_pages(call.address, call.size)
        task.touch(call.address, call.size)

        def finish(outcome: Outcome | None) -> None:
            if not self._quiet(task, call.address, call.size, begin):
                return
            self._judge(at, task, pieces, outcome, begin, _READ, report, "load")
            if not isinstance(outcome, Done):
                return
            for vpn, low, high, place in pieces:
                cell, end = self.readable(at, task, vpn, begin)
                seen = bytes(outcome.bulk[place : place + min(high, end) - low])
                wrong = cell.differs(low, seen, begin) if cell is not None and low < end else ""
                if wrong:
                    report(CONTENTS, f"task {task.pid} loads page {vpn:#x}: {wrong}")

        return finish

    def store(
        self,
        at: ShadowPartition,
        task: ShadowTask,
        call: calls.Store,
        data: bytes,
        report: OnViolation,
    ) -> Finish:
        """Bytes put there."""
        begin = self._clock.now
        pieces = cut_pages(call.address, len(data))
        task.touch(call.address, len(data))
        parts = [part for piece in pieces for part in self._stores.claimed(task, *piece)]

        def finish(outcome: Outcome | None) -> None:
            quiet = self._quiet(task, call.address, len(data), begin)
            if quiet:
                self._judge(at, task, pieces, outcome, begin, _WRITE, report, "store")
            for part in parts:
                fate = self._fate(at, part, outcome, len(pieces))
                self._stores.settle(part, data, fate if quiet else unsure(fate), begin)

        return finish

    def amo(
        self, at: ShadowPartition, task: ShadowTask, call: calls.AtomicOp, report: OnViolation
    ) -> Finish:
        """One word, of uncached memory."""
        begin = self._clock.now
        low = call.address & PAGE_MASK
        piece = call.address >> PAGE_SHIFT, low, low + AMO_WORD, 0
        if call.address % AMO_WORD:
            return _ignored
        task.touch(call.address, AMO_WORD)
        parts = self._stores.claimed(task, *piece)
        part = parts[0]

        def finish(outcome: Outcome | None) -> None:
            quiet = self._quiet(task, call.address, AMO_WORD, begin)
            if quiet:
                self._judge(at, task, [piece], outcome, begin, _WRITE, report, "atomic operation")
            value = b""
            if isinstance(outcome, Done) and isinstance(outcome.value, int):
                value = after(call, outcome.value).to_bytes(AMO_WORD, "little")
                if quiet:
                    self._judge_word(at, task, part, outcome.value, begin, report)
            for each in parts:
                fate = self._fate_of_word(at, each, outcome)
                self._stores.settle(each, value, fate if quiet else unsure(fate), begin)

        return finish

    def copy(self, at: ShadowPartition, task: ShadowTask, call: calls.XpmemCopy) -> Finish:
        """A block transfer: what it leaves at its target is not modelled."""
        begin = self._clock.now
        permit = at.permits.get(call.dst_apid)
        segment = None if permit is None else self._segments.get(permit.segid)
        home = None if segment is None else self._machines.get(segment.home)
        target = None if home is None or segment is None else home.tasks.get(segment.pid)
        if target is None or segment is None:
            return _ignored
        first = (segment.first_vpn << PAGE_SHIFT) + call.dst_offset
        return self._moved(target, first, call.size, begin)

    def transfer(self, task: ShadowTask, call: BteCopy) -> Finish:
        """The same between two addresses, which the task itself may touch by it."""
        for start in (call.source, call.target):
            task.touch(start, call.size)
        return self._moved(task, call.target, call.size, self._clock.now)

    def _moved(self, target: ShadowTask, first: int, size: int, begin: int) -> Finish:
        low, high = first >> PAGE_SHIFT, first + size + PAGE_MASK >> PAGE_SHIFT
        parts = [
            part
            for vpn in list(target.pages)
            if low <= vpn < high
            for part in self._stores.claimed(target, vpn, 0, PAGE_SIZE, 0)
        ]

        def finish(outcome: Outcome | None) -> None:
            fate = StoreFate.MAYBE if isinstance(outcome, Done) else StoreFate.LOOSE
            for part in parts:
                self._stores.settle(part, b"", fate, begin)

        return finish

    def inherited(self, task: ShadowTask, vpn: int, page: ShadowPage) -> bool:
        """Whether a forked child has for certain what the model says of its parent."""
        return not (self._stores.snapped(task, vpn, page) or self._forged(task, vpn, page))

    def _forged(self, task: ShadowTask, vpn: int, page: ShadowPage) -> bool:
        """Whether somebody may have stored there who keeps to no rule."""
        return bool(self.forgers) and (
            page.file is not None or exported(self._segments.values(), task.partid, task.pid, vpn)
        )

    # -- judgements ------------------------------------------------------------------------

    def _quiet(self, task: ShadowTask, address: int, size: int, begin: int) -> bool:
        """Whether nothing changed under the access, as far as the task itself goes."""
        low, high = address >> PAGE_SHIFT, (address + size + PAGE_MASK) >> PAGE_SHIFT
        return not (task.wild or task.dying or task.areas.crossing(begin, low, high))

    def _in_session(self, at: ShadowPartition, attached: Attached) -> bool:
        home = attached.segment.home
        return home == at.partid or self._bound(home, at.partid, attached.since, self._step())

    def _leave(
        self, at: ShadowPartition, task: ShadowTask, vpn: int, begin: int, need: int
    ) -> Leave:
        page = task.pages.get(vpn)
        if page is None:
            return Leave.SEGV
        if page.kind is Backing.UNKNOWN:
            return Leave.UNKNOWN
        if not page.prot & (need if need == _WRITE else _READ | _WRITE):
            return Leave.SEGV
        if page.attached is not None:
            return self._home_leave(at, page.attached, page.vpn, begin, need)
        file = page.file
        if file is None:
            return Leave.YES
        if file.sizes.crossing(begin, 0, SPACE_END):
            return Leave.UNKNOWN  # a truncation takes private copies as well
        if page.copied:
            return Leave.YES
        if file.size is None:
            return Leave.UNKNOWN
        return Leave.YES if tail(file, page.index) else Leave.BUS

    def _home_leave(
        self, at: ShadowPartition, attached: Attached, vpn: int, begin: int, need: int
    ) -> Leave:
        segment = attached.segment
        machine = self._machines.get(segment.home)
        if machine is None or self.forgers or not self._in_session(at, attached):
            return Leave.UNKNOWN
        if segment.gone is not None and segment.gone <= begin:
            return Leave.BUS
        home = machine.tasks.get(segment.pid)
        if home is None or home.wild or home.dying or segment.leaving is not None:
            return Leave.UNKNOWN
        if home.areas.crossing(begin, vpn, vpn + 1):
            return Leave.UNKNOWN
        page = home.pages.get(vpn)
        if page is None:
            return Leave.BUS
        if page.kind in (Backing.UNKNOWN, Backing.ATTACHED):
            return Leave.UNKNOWN
        if page.hole:
            return Leave.BUS
        usable = page.prot & _WRITE if need == _WRITE else page.prot
        return Leave.PERHAPS if usable else Leave.BUS

    def _judge(
        self,
        at: ShadowPartition,
        task: ShadowTask,
        pieces: list[tuple[int, int, int, int]],
        outcome: Outcome | None,
        begin: int,
        need: int,
        report: OnViolation,
        what: str,
    ) -> None:
        leaves = [self._leave(at, task, piece[0], begin, need) for piece in pieces]
        if not leaves:
            return
        first = next((each for each in leaves if each is not Leave.YES), Leave.YES)
        where = f"{what} of task {task.pid} at page {pieces[0][0]:#x}"
        for leave, piece in zip(leaves, pieces, strict=True):
            if isinstance(outcome, Done) and leave in (Leave.SEGV, Leave.BUS):
                report(RIGHTS, f"{where} succeeds; page {piece[0]:#x}: {leave.value}")
        if isinstance(outcome, Failed) and outcome.errno in _NEVER:
            report(RIGHTS, f"{where} is refused, not signalled: {outcome.cause}")
        if not isinstance(outcome, Raised) or outcome.info.forced:
            return
        signal, known = outcome.info.signal, Leave.UNKNOWN not in leaves
        if signal is Signal.SIGSEGV and known and Leave.SEGV not in leaves:
            report(RIGHTS, f"{where} is allowed and gets SIGSEGV: {outcome.info.reason}")
        if signal is Signal.SIGBUS and first in (Leave.YES, Leave.SEGV):
            report(RIGHTS, f"{where} gets SIGBUS, not what is due: {outcome.info.reason}")
        end = (pieces[-1][0] << PAGE_SHIFT) + pieces[-1][2]
        if signal is Signal.SIGBUS and not pieces[0][0] << PAGE_SHIFT <= outcome.info.address < end:
            report(
                RIGHTS,
                f"{where} gets SIGBUS for {outcome.info.address:#x}, which it leaves "
                f"alone: {outcome.info.reason}",
            )

    def _judge_word(
        self,
        at: ShadowPartition,
        task: ShadowTask,
        part: Part,
        before: int,
        begin: int,
        report: OnViolation,
    ) -> None:
        page = self._stores.behind(task, part.vpn)[2]
        known = page is not None and page.kind in (Backing.PRIVATE, Backing.SHARED)
        if known and page is not None and not page.uncached:
            report(RIGHTS, f"an atomic operation of task {task.pid} on cached page {part.vpn:#x}")
        cell, _ = self.readable(at, task, part.vpn, begin)
        crossed = cell is None or cell.writes.crossing(begin, part.low, part.high, but=part.write)
        if cell is not None and not crossed:
            wrong = unlike(cell, part.low, before)
            if wrong:
                what = f"atomic operation of task {task.pid} on page {part.vpn:#x}"
                report(CONTENTS, f"{what}: {wrong}")

    def readable(
        self, at: ShadowPartition, task: ShadowTask, vpn: int, begin: int
    ) -> tuple[Cell | None, int]:
        """What a load of the page since `begin` sees, up to which byte; None: unknown."""
        page, home, number = task.pages.get(vpn), task, vpn
        if page is None or page.kind is Backing.UNKNOWN:
            return None, PAGE_SIZE
        if page.attached is not None:
            if not self._in_session(at, page.attached):
                return None, PAGE_SIZE
            behind, number, page = self._stores.behind(task, vpn)
            if behind is None or page is None or page.kind in (Backing.UNKNOWN, Backing.ATTACHED):
                return None, PAGE_SIZE
            home = behind
            if home.wild or home.dying or home.areas.crossing(begin, number, number + 1):
                return None, PAGE_SIZE
        if self._forged(home, number, page):
            return None, PAGE_SIZE
        if page.file is None:
            return page.seen(), PAGE_SIZE
        if page.file.sizes.crossing(begin, 0, SPACE_END):
            return None, PAGE_SIZE
        if page.copied:
            return page.seen(), PAGE_SIZE
        if page.file.size is None or page.cell is not None:
            return None, PAGE_SIZE
        if self._stores.snapped(home, number, page):
            return None, PAGE_SIZE
        cell = page.file.cells.get(page.index, NOTHING_STORED)
        return cell, tail(page.file, page.index)

    def _fate(
        self, at: ShadowPartition, part: Part, outcome: Outcome | None, pieces: int
    ) -> StoreFate:
        attached = None if part.place.has is None else part.place.has.attached
        if attached is None:
            if isinstance(outcome, Done):
                return StoreFate.DONE
            return StoreFate.NOTHING if outcome is not None and pieces == 1 else StoreFate.MAYBE
        if not self._in_session(at, attached):
            return StoreFate.LOOSE
        if isinstance(outcome, Done):
            home = part.place.home
            crossed = (
                home is None
                or part.claim is None
                or home.areas.crossing(part.claim.begin, part.claim.low, part.claim.high)
            )
            return StoreFate.MAYBE if crossed else StoreFate.DONE
        waits = isinstance(outcome, Raised) and not outcome.info.forced
        if waits and isinstance(outcome, Raised) and outcome.info.signal is not Signal.SIGKILL:
            return StoreFate.MAYBE
        return StoreFate.NOTHING if isinstance(outcome, Failed) and pieces == 1 else StoreFate.LOOSE

    def _fate_of_word(self, at: ShadowPartition, part: Part, outcome: Outcome | None) -> StoreFate:
        if not isinstance(outcome, Failed):
            return self._fate(at, part, outcome, 1)
        definite = part.place.has is None or part.place.has.attached is None
        definite = definite or outcome.errno in (errno.EINVAL, errno.ENOENT, errno.EACCES)
        return StoreFate.NOTHING if definite else StoreFate.LOOSE


def _ignored(outcome: Outcome | None) -> None:
    """Nothing that the model knows of changes."""
