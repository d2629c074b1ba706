"""Calls that break a kernel on purpose and heal it again; docs/faults.md is their reference.

Like all calls they are typed Structs, decoded straight from what a client sent. They pass no
failpoint themselves: whoever paused everything can still resume it.
"""

from typing import Annotated, TypeVar

from msgspec import Meta

from xpmem_emu.fields import U64, InjectionText, Partid, ReasonText, ShortText
from xpmem_emu.kernel.call import Returns, TableRow

_T = TypeVar("_T")

LocalFrame = Annotated[int, Meta(ge=1, lt=1 << 38)]
STRAIN_END = 1 << 40


class Breaking(Returns[_T], frozen=True):
    """Base of these calls."""


class FailpointSet(Breaking[None], frozen=True):
    """Lets a failpoint do `terms` from now on; `seed` is of its random stream.
    ENOENT for an unknown point, EINVAL for terms that it cannot do."""

    point: ShortText
    terms: InjectionText
    seed: U64 = 0


class FailpointClear(Breaking[None], frozen=True):
    """Lets a failpoint, or with an empty name every one, do nothing."""

    point: ShortText = ""


class FailpointResume(Breaking[int], frozen=True):
    """Lets go the threads paused at a failpoint. Result: how many there were."""

    point: ShortText


class ListFailpoints(Breaking[list[TableRow]], frozen=True, tag="failpoints"):
    """Result: a row for every failpoint there is, with what it is set to."""


class Poison(Breaking[None], frozen=True):
    """Frame `frame` of partition `home` went bad: whoever touches it gets a machine check (sources
    T17). Every partition that can reach it must be told."""

    home: Partid
    frame: LocalFrame


class Unpoison(Breaking[None], frozen=True):
    """The frame is good again."""

    home: Partid
    frame: LocalFrame


class RawLoad(Breaking[int], frozen=True):
    """The kernel itself loads the first word of a frame, and nothing contains that: a bad frame, or
    memory of a partition that was lost, panics it (sources T17). EINVAL: there is no such frame;
    EXDEV: it is beyond the coherence domain. Result: the word."""

    home: Partid
    frame: LocalFrame


class Strain(Breaking[None], frozen=True):
    """Brings the kernel near a bound. `pin_limit`: at most `value` pages of a task may be pinned
    for importers, 0 lifts it. `sequence`, `number`: these counters go on from `value` if they are
    below it. EINVAL for another bound."""

    bound: ShortText
    value: Annotated[int, Meta(ge=0, lt=STRAIN_END)]


class CrashKernel(Breaking[None], frozen=True, tag="panic"):
    """The kernel finds itself broken and panics. Never answered but by the panic."""

    reason: ReasonText = "asked to"


BreakingCall = (
    FailpointSet
    | FailpointClear
    | FailpointResume
    | ListFailpoints
    | Poison
    | Unpoison
    | RawLoad
    | Strain
    | CrashKernel
)
"""Every one of them: what a console request may be besides `AnyCall`."""
