"""What calls do to segments, permits and attachments, and who may have which (S13).

The rule of permissions is System V's, written down here once more: exactly one of the three triples
counts, and CAP_IPC_OWNER overrides a refusal.
"""

import errno
from collections.abc import Callable
from functools import partial

from xpmem_emu.judge.shadow.cells import Order
from xpmem_emu.judge.shadow.spaces import Finish, Spaces, vpns
from xpmem_emu.judge.shadow.world import (
    WILD_PAGES,
    Attached,
    Backing,
    Creds,
    ShadowPage,
    ShadowPartition,
    ShadowPermit,
    ShadowSegment,
    ShadowTask,
)
from xpmem_emu.kernel import calls
from xpmem_emu.kernel.interface import Done, Failed, Outcome
from xpmem_emu.units import PAGE_SHIFT, page_align_up

OnWrong = Callable[[str], None]
_RDONLY, _RDWR = 1, 2


class SharedDevice:
    """Carries out what concerns the device, and says what should not have worked."""

    def __init__(
        self,
        clock: Order,
        segments: dict[int, ShadowSegment],
        spaces: Spaces,
        step: Callable[[], int],
        readonly: bool,
    ) -> None:
        """`readonly`: whether the image lets read-only permits be attached."""
        self.segments = segments
        self._clock = clock
        self._spaces = spaces
        self._step = step
        self._readonly = readonly

    # -- the device ------------------------------------------------------------------------

    def open(self, task: ShadowTask) -> Finish:
        """From now on what it makes is its own."""
        begin = self._clock.now
        span = task.identity.begin(begin, 0, 1, self._clock.oldest)

        def finish(outcome: Outcome | None) -> None:
            crossed = task.identity.crossing(begin, 0, 1, but=span)
            if task.opened is None and not crossed and isinstance(outcome, Done):
                task.opened = task.creds
            span.end = self._clock.now

        return finish

    def close(self, at: ShadowPartition, task: ShadowTask) -> Finish:
        """All its permits and segments go."""
        span = task.identity.begin(self._clock.now, 0, 1, self._clock.oldest)
        permits = [each for each in at.permits.values() if each.pid == task.pid]
        self.leaves(at, task.pid)
        pages = [vpn for vpn, page in task.pages.items() if page.kind is Backing.ATTACHED]
        change = self._gone(task, pages)

        def finish(outcome: Outcome | None) -> None:
            change(outcome)
            if isinstance(outcome, Done):
                for each in permits:
                    each.gone = self._clock.now
                self.left(task.pid, at)
            task.opened = None
            span.end = self._clock.now

        return finish

    def leaves(self, at: ShadowPartition, pid: int) -> None:
        """Whatever a task had may be going away from now on."""
        for segment in self._segments_of(at, pid):
            _leave(segment, self._clock.now)
        for permit in at.permits.values():
            if permit.pid == pid:
                _leave(permit, self._clock.now)

    def left(self, pid: int, at: ShadowPartition) -> None:
        """Its segments are gone."""
        for each in self._segments_of(at, pid):
            if each.leaving is not None:
                each.gone = self._clock.now

    def _segments_of(self, at: ShadowPartition, pid: int) -> list[ShadowSegment]:
        return [
            each for each in self.segments.values() if (each.home, each.pid) == (at.partid, pid)
        ]

    def _gone(self, task: ShadowTask, pages: list[int]) -> Finish:
        def effect(done: Done, begin: int) -> None:
            for vpn in pages:
                task.pages.pop(vpn, None)

        return self._spaces.change(task, [(vpn, vpn + 1) for vpn in pages], effect)

    # -- segments --------------------------------------------------------------------------

    def make(self, at: ShadowPartition, task: ShadowTask, call: calls.XpmemMake) -> Finish:
        """A segment."""
        begin = self._clock.now

        def finish(outcome: Outcome | None) -> None:
            if not isinstance(outcome, Done) or not isinstance(outcome.value, int):
                return
            first, last = vpns(call.vaddr, call.size)
            opened = task.opened
            crossed = task.identity.crossing(begin, 0, 1)
            gid = opened.gids[0] if opened is not None and opened.gids else 0
            owner = None if opened is None or crossed else (opened.uid, gid)
            self.segments[outcome.value] = ShadowSegment(
                at.partid,
                task.pid,
                first,
                last - first,
                page_align_up(call.size),
                call.permit_value,
                owner,
                begin if crossed else None,
            )

        return finish

    def remove(self, at: ShadowPartition, task: ShadowTask, call: calls.XpmemRemove) -> Finish:
        """It goes."""
        segment = self.segments.get(call.segid)
        if segment is None or (segment.home, segment.pid) != (at.partid, task.pid):
            return _ignored
        return self._going(segment)

    def _going(self, thing: ShadowSegment | ShadowPermit) -> Finish:
        before = thing.leaving
        _leave(thing, self._clock.now)

        def finish(outcome: Outcome | None) -> None:
            if isinstance(outcome, Done):
                thing.gone = self._clock.now
            elif isinstance(outcome, Failed) and outcome.errno in (errno.EAGAIN, errno.EINVAL):
                thing.leaving = before

        return finish

    # -- permits ---------------------------------------------------------------------------

    def get(
        self, at: ShadowPartition, task: ShadowTask, call: calls.XpmemGet, wrong: OnWrong
    ) -> Finish:
        """A permit, for who may have it."""
        begin = self._clock.now

        def finish(outcome: Outcome | None) -> None:
            segment = self.segments.get(call.segid)
            crossed = bool(task.identity.crossing(begin, 0, 1))
            if segment is not None and not crossed:
                self._judge_get(task, call, segment, outcome, begin, wrong)
            if isinstance(outcome, Done) and isinstance(outcome.value, int):
                at.permits[outcome.value] = ShadowPermit(
                    task.pid, call.segid, call.flags == _RDONLY, begin if crossed else None
                )

        return finish

    def _judge_get(
        self,
        task: ShadowTask,
        call: calls.XpmemGet,
        segment: ShadowSegment,
        outcome: Outcome | None,
        begin: int,
        wrong: OnWrong,
    ) -> None:
        got = isinstance(outcome, Done)
        if got and segment.gone is not None and segment.gone <= begin:
            wrong(f"a permit on segment {call.segid:#x}, which was removed")
        if task.creds is None or segment.owner is None or segment.leaving is not None:
            return
        wanted = 0o6 if call.flags & _RDWR else 0o4
        allowed = task.creds.capable or may(segment.mode, segment.owner, task.creds, wanted)
        refused = isinstance(outcome, Failed) and outcome.errno == errno.EACCES
        if (got and not allowed) or (refused and allowed):
            wrong(
                f"uid {task.creds.uid} of groups {list(task.creds.gids)} was"
                f" {'given' if got else 'refused'} a permit on a segment of mode"
                f" {segment.mode:04o} of {segment.owner}"
            )

    def release(self, at: ShadowPartition, task: ShadowTask, call: calls.XpmemRelease) -> Finish:
        """It goes, and every attachment through it."""
        permit = at.permits.get(call.apid)
        if permit is None or permit.pid != task.pid:
            return _ignored
        going = self._going(permit)
        change = self._gone(
            task,
            [
                vpn
                for vpn, page in task.pages.items()
                if page.attached is not None and page.attached.apid == call.apid
            ],
        )

        def finish(outcome: Outcome | None) -> None:
            going(outcome)
            change(outcome)

        return finish

    # -- attachments -----------------------------------------------------------------------

    def attach(
        self, at: ShadowPartition, task: ShadowTask, call: calls.XpmemAttach, wrong: OnWrong
    ) -> Finish:
        """Pages of a segment."""
        begin, step = self._clock.now, self._step()
        permit = at.permits.get(call.apid)
        size = page_align_up(call.size)

        def put(done: Done, begun: int, *, certain: bool) -> None:
            assert isinstance(done.value, int)
            low, high = vpns(done.value, size)
            segment = self.segments.get(permit.segid) if permit is not None else None
            if high - low > WILD_PAGES:
                task.wild = True
                return
            certain = bool(call.vaddr or self._spaces.placed(task, begun, low, high)) and certain
            if permit is None or segment is None:
                task.forget(low, high)
                return
            certain = certain and permit.leaving is None
            attached = Attached(call.apid, segment, step)
            first = segment.first_vpn + (call.offset >> PAGE_SHIFT)
            for vpn in range(low, high):
                self._spaces.put(
                    task,
                    vpn,
                    ShadowPage(
                        Backing.ATTACHED,
                        1 if permit.readonly else 3,
                        attached=attached,
                        vpn=first + vpn - low,
                    ),
                    begun,
                    certain=certain,
                )

        ranges = [vpns(call.vaddr, size)] if call.vaddr else []
        effects = partial(put, certain=True), partial(put, certain=False)
        change = self._spaces.change(task, ranges, *effects)

        def finish(outcome: Outcome | None) -> None:
            if isinstance(outcome, Done) and permit is not None:
                self._judge_attach(task, call, permit, begin, wrong)
            change(outcome)

        return finish

    def _judge_attach(
        self,
        task: ShadowTask,
        call: calls.XpmemAttach,
        permit: ShadowPermit,
        begin: int,
        wrong: OnWrong,
    ) -> None:
        segment = self.segments.get(permit.segid)
        if permit.pid != task.pid:
            wrong(f"an attachment through permit {call.apid:#x} of task {permit.pid}")
        if permit.gone is not None and permit.gone <= begin:
            wrong(f"an attachment through permit {call.apid:#x}, which was released")
        if permit.readonly and not self._readonly:
            wrong(f"an attachment through permit {call.apid:#x}, which is read-only")
        if segment is not None and segment.gone is not None and segment.gone <= begin:
            wrong(f"an attachment of segment {permit.segid:#x}, which was removed")
        if segment is not None and not 0 <= call.offset <= segment.size - call.size:
            wrong(
                f"an attachment of {call.size:#x} bytes at {call.offset:#x} of a segment of"
                f" {segment.size:#x}"
            )

    def detach(self, at: ShadowPartition, task: ShadowTask, call: calls.XpmemDetach) -> Finish:
        """The whole attachment goes."""
        page = task.pages.get(call.vaddr >> PAGE_SHIFT)
        if page is None or page.attached is None:
            return _ignored
        attached = page.attached
        return self._gone(
            task, [vpn for vpn, other in task.pages.items() if other.attached is attached]
        )


def may(mode: int, owner: tuple[int, int], creds: Creds, wanted: int) -> bool:
    """Whether the one triple that counts has all wanted bits."""
    if creds.uid == owner[0]:
        mine = mode // 0o100
    elif owner[1] in creds.gids:
        mine = mode // 0o10
    else:
        mine = mode
    return mine & wanted == wanted


def _leave(thing: ShadowSegment | ShadowPermit, now: int) -> None:
    if thing.leaving is None:
        thing.leaving = now


def _ignored(outcome: Outcome | None) -> None:
    """Nothing that the model knows of changes."""
