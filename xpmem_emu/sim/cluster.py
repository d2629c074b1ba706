"""Several kernels in one process on virtual time: the real kernels, a made-up world.

The simulator drives `Kernel.step` directly - no event loop, no threads, no wall clock. What is
to happen next is a heap of (time, sequence, action); the same seed gives the same run, event for
event. Messages cross an `Interconnect`, whose rules lose, delay and hold them.

It decides nothing about memory or protocol; it only delivers.
"""

import heapq
from collections.abc import Callable
from random import Random
from typing import NamedTuple

from xpmem_emu.errors import KernelError, SignalInfo, Signalled
from xpmem_emu.fabric.interconnect import Interconnect
from xpmem_emu.image import Image
from xpmem_emu.kernel.calls import Audit, Call, Spawn, Value
from xpmem_emu.kernel.interface import (
    Buffer,
    Done,
    Effects,
    Event,
    Failed,
    LinkDown,
    Outcome,
    ProcessGone,
    Raised,
    Receive,
    Reply,
    Request,
    Tick,
)
from xpmem_emu.kernel.kernel import Kernel
from xpmem_emu.sim.memory import SimMemory
from xpmem_emu.sim.task import SimTask
from xpmem_emu.trace import Record
from xpmem_emu.units import SECOND

LATENCY_NS = 20_000
"""How long a message takes when no rule says otherwise."""


class Answer(NamedTuple):
    """Result of a call: value and bulk."""

    value: Value
    bulk: Buffer


class Stuck(Exception):
    """Virtual time ran past the limit while somebody still waited: a hang."""


class Ticket:
    """A call under way."""

    def __init__(self) -> None:
        self.outcome: Outcome | None = None

    def answer(self) -> Answer:
        """The result. Raises KernelError or Signalled as the call ended."""
        match self.outcome:
            case Done(value=value, bulk=bulk):
                return Answer(value, bulk)
            case Failed(errno=number, cause=cause, remedy=remedy):
                raise KernelError(number, cause, remedy)
            case Raised(info=info):
                assert isinstance(info, SignalInfo)
                raise Signalled(info)
        raise Stuck("the call has not ended")


class SimCluster:
    """`partitions` kernels of one image, all peers of each other, booted at time 0."""

    def __init__(self, partitions: int = 2, image: Image | None = None, seed: int = 0) -> None:
        self.now_ns = 0
        self.image = image or Image()
        self.interconnect = Interconnect(lambda name: Random(f"{seed}/{name}"))
        self.kernels: dict[int, Kernel] = {}
        self.trace: list[Record] = []
        self._partids = list(range(partitions))
        self._memory = SimMemory()
        self._boots: dict[int, int] = {}
        self._agenda: list[tuple[int, int, Callable[[], None]]] = []
        self._sequence = 0
        self._wakes: dict[int, int] = {}
        self._tickets: dict[int, Ticket] = {}
        for partid in self._partids:
            self.boot(partid)

    # -- partitions --------------------------------------------------------------------------

    def boot(self, partid: int) -> Kernel:
        """Boot a partition with a new, higher incarnation and fresh memory."""
        boot = self._boots[partid] = self._boots.get(partid, 0) + 1
        memory = self._memory.partition(partid, boot, self.image.memory.size)
        kernel = Kernel(
            partid=partid,
            boot=boot,
            image=self.image,
            arena=memory.arena,
            swap=memoryview(bytearray(self.image.memory.swap)),
            peers=[peer for peer in self._partids if peer != partid],
            peer_memory=memory,
        )
        self.kernels[partid] = kernel
        self._step(partid, Tick())
        return kernel

    def crash(self, partid: int) -> None:
        """The process of a partition vanishes, as by kill -9; nobody is told."""
        kernel = self.kernels.pop(partid)
        kernel.scheduler.close()
        self._wakes.pop(partid, None)

    def prove_gone(self, partid: int) -> None:
        """Tell every kernel that the crashed process of a partition is gone for certain."""
        for other in list(self.kernels):
            self._step(other, ProcessGone(partid, self._boots[partid]))

    # -- calls -------------------------------------------------------------------------------

    def submit(self, partid: int, call: Call, bulk: Buffer = b"") -> Ticket:
        """Begin a call now; run the cluster to let it end."""
        ticket = Ticket()
        self._sequence += 1
        self._tickets[self._sequence] = ticket
        self._step(partid, Request(self._sequence, call, bulk))
        return ticket

    def call(self, partid: int, call: Call, bulk: Buffer = b"") -> Answer:
        """Make a call and run until it ends. Raises KernelError, Signalled, Stuck."""
        ticket = self.submit(partid, call, bulk)
        self.run_until(lambda: ticket.outcome is not None)
        return ticket.answer()

    def spawn(self, partid: int, uid: int = 0, gids: list[int] | None = None) -> SimTask:
        """A task with the xpmem device open."""
        pid = self.call(partid, Spawn(uid=uid, gids=gids or [])).value
        assert isinstance(pid, int)
        task = SimTask(self, partid, pid)
        task.xpmem_open()
        return task

    def audit(self, partid: int) -> dict[str, int]:
        """What is in use on a partition. Raises KernelBug when its counts disagree."""
        return dict(self.call(partid, Audit()).value)

    # -- time --------------------------------------------------------------------------------

    def run_until(self, condition: Callable[[], bool], limit_ns: int = 300 * SECOND) -> None:
        """Let virtual time pass until `condition`. Raises Stuck after `limit_ns` of it."""
        end = self.now_ns + limit_ns
        while not condition():
            if not self._agenda or self._agenda[0][0] > end:
                raise Stuck(f"nothing happened within {limit_ns} ns of virtual time")
            self._next()

    def run_for(self, duration_ns: int) -> None:
        """Let `duration_ns` of virtual time pass."""
        end = self.now_ns + duration_ns
        while self._agenda and self._agenda[0][0] <= end:
            self._next()
        self.now_ns = end

    def run_until_active(self) -> None:
        """Run until every partition is ACTIVE with every other one that runs."""
        self.run_until(
            lambda: all(
                kernel.xpc.incarnation(peer) is not None
                for partid, kernel in self.kernels.items()
                for peer in self.kernels
                if peer != partid
            )
        )

    # -- delivery ----------------------------------------------------------------------------

    def _at(self, time_ns: int, action: Callable[[], None]) -> None:
        self._sequence += 1
        heapq.heappush(self._agenda, (time_ns, self._sequence, action))

    def _next(self) -> None:
        time_ns, _, action = heapq.heappop(self._agenda)
        self.now_ns = max(self.now_ns, time_ns)
        action()

    def _step(self, partid: int, event: Event) -> None:
        kernel = self.kernels.get(partid)
        if kernel is None:
            return
        effects = kernel.step(self.now_ns, event)
        self.trace += effects.trace
        self._carry(partid, effects)
        for reply in effects.replies:
            self._answer(reply)
        self._wake_later(partid, effects.wake_at_ns)

    def _carry(self, src: int, effects: Effects) -> None:
        for effect in effects.sends:
            if isinstance(effect, LinkDown):
                continue  # what is on the wire stays there; incarnations make it harmless
            for delivery in self.interconnect.route(self.now_ns, src, effect):
                self._deliver(delivery.at_ns + LATENCY_NS, delivery.dst, delivery.frames)

    def _deliver(self, time_ns: int, dst: int, frames: list[Buffer]) -> None:
        copies = [bytes(frame) for frame in frames]
        self._at(time_ns, lambda: self._step(dst, Receive(list(copies))))

    def release(self, name: str) -> None:
        """Let go of the messages that a hold rule has collected."""
        for delivery in self.interconnect.release(name, self.now_ns):
            self._deliver(delivery.at_ns, delivery.dst, delivery.frames)

    def _answer(self, reply: Reply) -> None:
        ticket = self._tickets.pop(reply.call_id, None)
        if ticket is not None:
            ticket.outcome = reply.outcome

    def _wake_later(self, partid: int, wake_at_ns: int | None) -> None:
        if wake_at_ns is None or self._wakes.get(partid) == wake_at_ns:
            return
        self._wakes[partid] = wake_at_ns

        def tick() -> None:
            if self._wakes.get(partid) == wake_at_ns:
                del self._wakes[partid]
                self._step(partid, Tick())

        self._at(wake_at_ns, tick)
