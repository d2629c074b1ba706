"""The fail-nth sweep: one operation, again and again in fresh worlds, failing one point further on.

    N = 1: the first failpoint that the operation passes fails; what did it answer, what is left?
    N = 2: the second ...
    until it passes without a hit: then every failure on its way has been tried.

Points count in all kernels and in every thread that works for the operation; what kernels do by
themselves (discovery, heartbeats, interrupts) is left out. A trial reports; `Trial.wrong` says what
must never be: a panic, a leak, an errno of the wrong family.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from tests.xpmem.world import outcome_of
from xpmem_emu.errors import KernelBug, errno_name
from xpmem_emu.failpoints import POINTS, FailNth, Point
from xpmem_emu.failpoints.points import CALL_BEGIN
from xpmem_emu.image import Image
from xpmem_emu.kernel.calls import Unlink
from xpmem_emu.kernel.interface import Panic
from xpmem_emu.sim.cluster import SimCluster

_W = TypeVar("_W")

POINTS_MAX = 400
"""No operation of a sweep passes more points than this."""

_BY_ITSELF = re.compile(r"irq|xpc_hb|xpc_discovery|xpc\d\d")
_MEASURES = ("mm_frames_total", "calls", "xpc_remembered")
"""Counts that describe the machine, or that are not zero when all is well."""
_MASKED = "ok"
_FAMILIES = {
    "mm": {"ENOMEM", "ENOSPC", "EFAULT", "SIGKILL", "SIGBUS"},
    "xpc": {"EHOSTUNREACH", "EHOSTDOWN", "ENOENT", "EAGAIN", "SIGBUS", "EFAULT"},
    "xpmem": {"SIGBUS", "EFAULT", "EHOSTUNREACH"},
    "kernel": {"EHOSTUNREACH"},
}
"""What an operation may answer, besides the point's own errno, by the layer that failed. What is a
SIGBUS to a processor is EFAULT to a device."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of failing the `nth` point. `point` is empty when it was never reached."""

    nth: int
    point: str
    outcome: str
    """`ok`, the errno's name or the signal's."""
    leaks: dict[str, int]
    panics: list[str]

    @property
    def wrong(self) -> str:
        """What must not be; empty when all is well."""
        if self.panics:
            return f"panic: {self.panics[0]}"
        if self.leaks:
            return f"leak: {self.leaks}"
        if self.point:
            point = POINTS[self.point]
            family = _FAMILIES[self.point.partition(".")[0]]
            allowed = family | {_MASKED, errno_name(point.errno)}
            return "" if self.outcome in allowed else f"answered {self.outcome}"
        return "" if self.outcome == _MASKED else f"answered {self.outcome} though nothing failed"

    def __str__(self) -> str:
        return f"{self.nth}: {self.point or 'nothing failed'}: {self.outcome} {self.wrong}".rstrip()


def sweep(
    build: Callable[[], tuple[SimCluster, _W]], act: Callable[[_W], object]
) -> Iterator[Trial]:
    """All trials of one operation; the last one failed nothing. `build` makes a fresh cluster and
    what `act` works on; `act` carries the operation out and lets its errors through."""
    for nth in range(1, POINTS_MAX + 1):
        cluster, world = build()
        counter = FailNth(nth, _belongs)
        kernels = dict(cluster.kernels)
        for kernel in kernels.values():
            kernel.failpoints.watch(counter)
        outcome = outcome_of(partial(act, world))
        for kernel in kernels.values():
            kernel.failpoints.watch(None)
        panics = [
            f"p{partid}: {kernel.stopped.reason}"
            for partid, kernel in kernels.items()
            if isinstance(kernel.stopped, Panic)
        ]
        yield Trial(nth, counter.failed, outcome, leaks(cluster), panics)
        if not counter.failed:
            return
    raise AssertionError(f"more than {POINTS_MAX} failpoints passed")


def _belongs(point: Point, thread: str) -> bool:
    """Whether somebody works for the operation; a call begins before it has a thread."""
    return point is CALL_BEGIN or _BY_ITSELF.fullmatch(thread) is None


def leaks(cluster: SimCluster) -> dict[str, int]:
    """What is in use after every task has ended, every name of a file is gone and all deadlines
    have passed, by `pN name`; empty when nothing is."""
    running = [p for p, kernel in cluster.kernels.items() if kernel.stopped is None]
    for partid in running:
        kernel = cluster.kernels[partid]
        for task in kernel.tasks:
            kernel.tasks.end(task, None, "the trial is over")
        for name in list(kernel.memory.files.by_name):
            cluster.call(partid, Unlink(name))
    cluster.run_for(_settle_ns(cluster.image))
    found: dict[str, int] = {}
    for partid in running:
        try:
            counts = cluster.audit(partid)
        except KernelBug as error:
            counts = {str(error): 1}
        found |= {
            f"p{partid} {name}": count
            for name, count in counts.items()
            if count and name not in _MEASURES
        }
    return found


def _settle_ns(image: Image) -> int:
    """Longer than any deadline: who was given up is fenced, has noticed it and is back."""
    times, xpc = image.deadlines, image.xpc
    recall_ns = times.recall_attempt * times.recall_tries
    contact_ns = xpc.control_attempt * xpc.control_tries + xpc.discovery_interval
    lost_ns = xpc.heartbeat_check * 2 + xpc.disengage_limit
    return 2 * (recall_ns + contact_ns + lost_ns) + times.fault_wait_max
