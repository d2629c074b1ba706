"""The heartbeat counter of this partition and the thread xpc_hb that shows and checks counters.

Only the counter is progress: a partition that still sends frames but does not count is as good as
dead (sources T19), because nothing says that its threads run. A partition that stops counting on
purpose says so with the offline form and is not missed; only its deadlines apply. Sources 3.4.
"""

from collections.abc import Iterable

from xpmem_emu.failpoints.points import XPC_BEAT
from xpmem_emu.xpc.activation import ActState
from xpmem_emu.xpc.partition import Partition
from xpmem_emu.xpc.reasons import Reason
from xpmem_emu.xpc.wire import Local

FREE_VALUES = 1023
"""Values between two heartbeats that the kernel leaves to who beats in its place (live/pulse)."""
_BEATING = frozenset({ActState.ACTIVATING, ActState.ACTIVE, ActState.DEACTIVATING})


class Heart:
    """The counter. It starts at 1 and every heartbeat that is sent has a new value."""

    def __init__(self) -> None:
        self._value = 1
        self._offline = False

    def next(self) -> tuple[int, bool]:
        """The value and form of the next heartbeat."""
        self._value += 1 + FREE_VALUES
        return self._value, self._offline

    def count_from(self, value: int) -> None:
        """The next heartbeats have values above this."""
        self._value = max(self._value, value)

    def go_offline(self) -> None:
        """From now on no progress is promised."""
        self._offline = True


async def beat_and_check(local: Local, partitions: Iterable[Partition], crowd: int) -> None:
    """The thread xpc_hb. `crowd`: how many peers somebody may have to beat for."""
    interval_ns, every_ns = local.image.xpc.heartbeats(crowd)
    beat_ns, check_ns = local.scheduler.now_ns, local.scheduler.now_ns + every_ns
    late = False
    while await local.pause(min(beat_ns, check_ns)):
        if local.scheduler.now_ns >= beat_ns:
            beat_ns = _round_up(local.scheduler.now_ns, interval_ns)
            skipped = local.failpoints.armed and local.failpoints.failing(XPC_BEAT)
            for partition in partitions:
                if partition.state in _BEATING and not skipped:
                    partition.say_heartbeat()
        if local.scheduler.now_ns >= check_ns:
            if not late and local.scheduler.now_ns - check_ns > interval_ns:
                # We did not listen, and what they said waits to be read: once, that is no silence.
                late, check_ns = True, local.scheduler.now_ns + interval_ns
                continue
            late = False
            # Not rounded: a check soon after one that came late would miss who is well.
            check_ns = local.scheduler.now_ns + every_ns
            for partition in partitions:
                if partition.state is ActState.ACTIVE and not partition.remote.progressed():
                    partition.deactivate(Reason.NO_HEARTBEAT, "xpc/heartbeat:check")


def _round_up(now_ns: int, every_ns: int) -> int:
    """The next multiple of `every_ns`, as Linux's `round_jiffies_up` has it: partitions of one
    host, whose clocks agree, wake together, and each wakes once for the beats of all others
    instead of once for each."""
    return now_ns - now_ns % every_ns + every_ns
