"""Calls of the device that must be refused, and with which errno (S13).

What is wrong with a call is judged when it begins, from its arguments and from what tasks were
given: another task's segment or permit, a mode with bits that there are not, an odd length. A call
that is wrong never succeeds. Which errno it gets is judged where nothing else could have ended it.
"""

import errno
from collections.abc import Callable, Mapping

from xpmem_emu.judge.shadow.spaces import Finish
from xpmem_emu.judge.shadow.world import ShadowPartition, ShadowPermit, ShadowSegment, ShadowTask
from xpmem_emu.kernel import calls
from xpmem_emu.kernel.interface import Done, Failed, Outcome
from xpmem_emu.units import PAGE_SIZE, TASK_SIZE

_NO_DEVICE = 2004
_ALWAYS = {errno.EAGAIN, errno.EINTR, errno.ESRCH}
"""No place for the call, its task is ending or has ended."""
_UNREACHABLE = {errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ETIMEDOUT, errno.ENOENT}
_EVERYTHING = (1 << 64) - 1


def refusal(
    at: ShadowPartition, task: ShadowTask, call: object, segments: Mapping[int, ShadowSegment]
) -> set[int]:
    """The errnos of which a call must get one; empty when nothing is known to be wrong."""
    match call:
        case calls.XpmemMake():
            return _make(call)
        case calls.XpmemGet():
            odd = call.flags not in (0, 1, 2) or call.permit_type != 1 or call.permit_value
            return {errno.EINVAL} if odd else set()
        case calls.XpmemRemove():
            segment = segments.get(call.segid)
            if segment is not None and (segment.home, segment.pid) != (at.partid, task.pid):
                return {errno.EACCES} if segment.leaving is None else {errno.EACCES, errno.ENOENT}
        case calls.XpmemRelease():
            return _strangers(at, task, call.apid)
        case calls.XpmemAttach():
            if call.vaddr % PAGE_SIZE or call.offset % PAGE_SIZE:
                return {errno.EINVAL, errno.ENOENT}
            strangers = _strangers(at, task, call.apid)
            return strangers | _UNREACHABLE | {errno.EINVAL} if strangers else set()
        case calls.XpmemCopy():
            return _strangers(at, task, call.src_apid) or _strangers(at, task, call.dst_apid)
    return set()


def judged(
    expected: set[int],
    certain: Callable[[], bool],
    wrong: Callable[[str], None],
    then: Finish | None,
) -> Finish:
    """Judge the answer of a call that must be refused with one of `expected`. `certain`: whether
    nobody made calls fail at random."""

    def finish(outcome: Outcome | None) -> None:
        names = "/".join(errno.errorcode.get(each, str(each)) for each in sorted(expected))
        if isinstance(outcome, Done):
            wrong(f"a call that must be refused with {names} succeeded")
        elif isinstance(outcome, Failed) and outcome.errno not in expected | _ALWAYS and certain():
            wrong(f"a call that must be refused with {names} failed with {outcome.errno}")
        if then is not None:
            then(outcome)

    return finish


def _make(call: calls.XpmemMake) -> set[int]:
    if call.permit_type != 1 or call.permit_value & ~0o777 or call.size == 0:
        return {errno.EINVAL}
    if call.size == _EVERYTHING and call.vaddr == 0:
        return set()
    odd = call.vaddr % PAGE_SIZE or call.size % PAGE_SIZE or call.vaddr + call.size > TASK_SIZE
    return {errno.EINVAL, _NO_DEVICE} if odd else set()


def _strangers(at: ShadowPartition, task: ShadowTask, apid: int) -> set[int]:
    """A permit of another task: EACCES, or ENOENT when it may be gone."""
    permit: ShadowPermit | None = at.permits.get(apid)
    if permit is None or permit.pid == task.pid:
        return set()
    return {errno.EACCES} if permit.leaving is None else {errno.EACCES, errno.ENOENT}
