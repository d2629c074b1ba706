"""Which calls may begin: the image bounds threads, but whoever heals or ends things finds a place.

| calls | places |
|---|---|
| those that break and heal | always: each is over in the step in which it begins |
| kill, shutdown | `CALLS_RESERVED` of their own when the image's are taken |
| those that look | as many of their own, too: a table that hangs does not keep the others shut |
| all others | the image's limits.threads, threads of the kernel counted |

So calls that are stuck, for instance paused at a failpoint, never keep anybody from letting them
go. What heals passes no failpoint at all; kill and shutdown are not paused before they answer.
"""

from enum import Enum

from xpmem_emu.kernel.breaking import Breaking
from xpmem_emu.kernel.calls import Audit, Call, Describe, Kill, Look, Pagetable, Shutdown, Status
from xpmem_emu.sched import Scheduler

CALLS_RESERVED = 16


class Purpose(Enum):
    """What a call is for, as far as places go."""

    BREAKING = "breaking"
    ENDING = "ending"
    LOOKING = "looking"
    WORK = "work"

    @classmethod
    def of(cls, call: Call) -> "Purpose":
        """Whatever is in none of the other rows of the table above is work."""
        if isinstance(call, Breaking):
            return cls.BREAKING
        if isinstance(call, Kill | Shutdown):
            return cls.ENDING
        if isinstance(call, Status | Audit | Look | Describe | Pagetable):
            return cls.LOOKING
        return cls.WORK


class Admission:
    """The places of one kernel."""

    def __init__(self, limit: int, scheduler: Scheduler) -> None:
        self.limit = limit
        self._scheduler = scheduler
        self.under_way = dict.fromkeys(Purpose, 0)
        """Calls that have begun and not been answered."""

    def full(self, purpose: Purpose) -> bool:
        """Whether one more call would be one too many."""
        if purpose is Purpose.BREAKING or len(self._scheduler.threads) < self.limit:
            return False
        return purpose is Purpose.WORK or self.under_way[purpose] >= CALLS_RESERVED
