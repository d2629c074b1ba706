"""L7: whether whoever waits is told of each end of what it may wait for, whatever else goes on.

A queue says of what it tells: of each fault in flight and each eviction that ends, each recall,
page request and fork, each call of a task, each change of a peer's state, pages that leave transit.
A thread that was on a queue after one step and is on it after a later one, and was not woken in
between, has not been told of anything that ended there between the two. A thread that was woken
and sleeps again joined the queue anew, which shows in how it would leave.

Nor does anybody wait on the queue of what is no more. So with slots: who waited for one that is
gone from the queue has it, or was told why not; and an answer for which somebody waits is there
when its request is in flight no longer.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from xpmem_emu.judge.checkers.base import Checker
from xpmem_emu.judge.checkers.raw import RESIDENT
from xpmem_emu.judge.invariants import Invariant
from xpmem_emu.judge.scene import EventHandlers, Scene
from xpmem_emu.kernel.events import KernelBoot
from xpmem_emu.kernel.kernel import Kernel
from xpmem_emu.mm.mm_types import AddressSpace
from xpmem_emu.sched import Completion, WaitQueue
from xpmem_emu.xpc.partition import Partition
from xpmem_emu.xpc.slots import SendRing
from xpmem_emu.xpmem.objects import ImportedSegment, Segment, ThreadGroup

_SELDOM = 4
"""Of so many steps one is followed by a look at what changes all the time: peers, requests."""
_BUSY = 0x100
_PAGES = 1 << 36

Things = Callable[[], dict[Any, str]]
"""What may be waited for on a queue now, each with what is said of its end."""
Over = Callable[[Any], bool]
"""Whether one of these has ended, so that it must have been told."""


@dataclass(slots=True)
class _Look:
    """A queue as it was after a step."""

    over: Over
    there: dict[Any, str]
    waiters: dict[Any, Any]
    """Thread -> how it would leave."""


@dataclass(slots=True)
class _RingLook:
    """The sending end of a channel as it was after a step."""

    waiting: list[Completion[int]]
    answers: list[Completion[Any]]


class Wakeups(Checker):
    """Compares the queues of a partition after a step with those after the step before."""

    judges = (Invariant.L7,)
    looks_at = (
        "after each step who still waits, and was not woken, although something ended on that "
        "queue; slots and answers that callers wait for and will not get"
    )

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self._looks: dict[int, dict[WaitQueue, _Look]] = {}
        self._peers: dict[int, dict[WaitQueue, _Look]] = {}
        self._rings: dict[int, dict[SendRing, _RingLook]] = {}
        self._known: dict[int, set[WaitQueue]] = {}
        """The queues that there were."""
        self._steps: Counter[int] = Counter()

    def handlers(self) -> EventHandlers:
        """Another kernel has other queues."""
        return {KernelBoot: lambda partid, event: self.crashed(partid)}

    def crashed(self, partid: int) -> None:
        """Nobody waits there any more."""
        self._looks.pop(partid, None)
        self._peers.pop(partid, None)
        self._rings.pop(partid, None)
        self._known.pop(partid, None)

    def stepped(self, partid: int) -> None:
        """Whether anybody was not told."""
        kernel = self.scene.kernels.get(partid)
        if kernel is None or kernel.stopped is not None:
            self.crashed(partid)
            return
        self._say(partid, _untold(self._looks.get(partid, {})))
        queues = list(_lists(kernel))
        for queue in self._known.get(partid, set()).difference(queue for queue, _ in queues):
            if queue._waiters:
                waiter = next(iter(queue._waiters)).name
                self._say(partid, iter([f"{waiter} waits for something that is no more"]))
        self._known[partid] = {queue for queue, _ in queues}
        self._looks[partid] = _looked(_waited_for(kernel, queues))
        self._steps[partid] += 1
        if self._steps[partid] % _SELDOM == 0:
            self._say(partid, _untold(self._peers.get(partid, {})))
            self._say(partid, _unanswered(self._rings.get(partid, {})))
            self._peers[partid] = _looked(_of_peers(kernel))
            self._rings[partid] = {ring: _flying(ring) for ring in _rings(kernel)}

    def _say(self, partid: int, whats: Iterator[str]) -> None:
        for what in whats:
            self.report(Invariant.L7, partid, what)


def _looked(queues: Iterator[tuple[WaitQueue, Things, Over]]) -> dict[WaitQueue, _Look]:
    return {
        queue: _Look(over, things(), {each: each._leave for each in queue._waiters})
        for queue, things, over in queues
    }


def _untold(looks: dict[WaitQueue, _Look]) -> Iterator[str]:
    for queue, look in looks.items():
        still = [
            thread.name
            for thread, leave in look.waiters.items()
            if thread in queue._waiters and thread._leave is leave
        ]
        ended = [what for each, what in look.there.items() if look.over(each)] if still else []
        if ended:
            yield f"{ended[0]}, and {still[0]}, which waits for such things, was not told"


def _flying(ring: SendRing) -> _RingLook:
    callers = [getattr(flight.notify, "__self__", None) for flight in ring._flights.values()]
    return _RingLook(
        [granted for queue in ring._waiting for granted in queue],
        [caller for caller in callers if isinstance(caller, Completion)],
    )


def _unanswered(rings: dict[SendRing, _RingLook]) -> Iterator[str]:
    for ring, look in rings.items():
        now = _flying(ring)
        for granted in look.waiting:
            if granted not in now.waiting and not granted.done and granted._queue._waiters:
                yield "who waits for a slot is not in line for one any more"
        for answer in look.answers:
            if answer not in now.answers and not answer.done and answer._queue._waiters:
                yield "somebody waits for the answer to a request that is not in flight"


def _rings(kernel: Kernel) -> Iterator[SendRing]:
    for partition in kernel.xpc.partitions.values():
        for channel in partition.session.channels if partition.session is not None else ():
            if channel.opening is not None and channel.opening.sender._flights:
                yield channel.opening.sender


def _of_peers(kernel: Kernel) -> Iterator[tuple[WaitQueue, Things, Over]]:
    for peer in kernel.xpc.partitions.values():
        things = partial(_of_peer, peer)
        yield peer._changes, things, _gone_from(things)


def _waited_for(
    kernel: Kernel, queues: list[tuple[WaitQueue, Things]]
) -> Iterator[tuple[WaitQueue, Things, Over]]:
    """Every queue on which somebody waits, and what for."""
    for queue, things in queues:
        if queue._waiters:
            yield queue, things, _gone_from(things)
    memory = kernel.memory
    if memory.changed._waiters:
        yield memory.changed, lambda: _in_transit(memory.address_spaces.values()), _arrived


def _lists(kernel: Kernel) -> Iterator[tuple[WaitQueue, Things]]:
    """Queues that tell of what leaves a list."""
    xpmem = kernel.xpmem
    imports = xpmem.imports.all()
    yield xpmem.faults._place, partial(_of_imports, imports)
    for imported in imports:
        yield imported.changed, partial(_of_import, imported)
    for segment in xpmem.exporter.segments.values():
        yield segment.changed, partial(_of_segment, segment)
    for group in xpmem.device._notifiers:
        yield group.changed, partial(_of_group, group)
    yield xpmem.fence._moved, partial(_all, "a quarantine ended", xpmem.fence._quarantine)
    for task in kernel.tasks:
        yield task.idle, partial(_all, "a call of its task ended", task.threads)


def _gone_from(things: Things) -> Over:
    return lambda each: each not in things()


def _all(what: str, *lists: Iterable[Any]) -> dict[Any, str]:
    return {each: what for things in lists for each in things}


def _of_imports(imports: list[ImportedSegment]) -> dict[Any, str]:
    return _all("a fault has ended", *(each.inflight for each in imports))


def _of_import(imported: ImportedSegment) -> dict[Any, str]:
    what = f"a fault on segment {imported.segid:#x}, or pages of it being given back, ended"
    return _all(what, imported.inflight, imported.evictions)


def _of_segment(segment: Segment) -> dict[Any, str]:
    what = f"a recall, a request for pages or a fork of segment {segment.segid:#x} ended"
    fork = ["fork"] if segment.group.fork_depth else []
    return _all(what, segment.recalls, segment.requests, fork)


def _of_group(group: ThreadGroup) -> dict[Any, str]:
    what = f"something of group {group.tgid}, or the group, was torn down"
    permits = group.permits.values()
    itself = [] if group.life.value == "destroyed" else [group]
    return _all(what, group.segments, permits, *(each.attachments for each in permits), itself)


def _of_peer(peer: Partition) -> dict[Any, str]:
    what = f"what p{peer.partid} or a channel to it does has changed"
    channels = peer.session.channels if peer.session is not None else ()
    held = [] if peer.remote.let_go else ["held"]
    return _all(what, [peer.state], [(each.number, each.state) for each in channels], held)


def _in_transit(spaces: Iterable[AddressSpace]) -> dict[Any, str]:
    found: dict[Any, str] = {}
    for mm in spaces:
        vpns, ptes = mm.page_table.entries(0, _PAGES)
        busy = vpns[ptes & np.uint64(_BUSY) != 0].tolist()
        found |= {(mm, vpn): f"page {vpn:#x} of task {mm.pid} has left transit" for vpn in busy}
    return found


def _arrived(where: tuple[AddressSpace, int]) -> bool:
    """Whether a page that was in transit is there now. One that was taken away meanwhile is of no
    interest to who wanted it where it was, and is told when whoever took it away is done."""
    mm, vpn = where
    word = mm.page_table.walk(vpn)
    return bool(word & RESIDENT) and not word & _BUSY
