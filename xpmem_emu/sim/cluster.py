"""Several kernels in one process on virtual time: the real kernels, a made-up world.

The simulator drives `Kernel.step` directly - no event loop, no threads, no wall clock. What is
to happen next is a heap of (time, sequence, action); the same seed gives the same run, event for
event. Messages cross an `Interconnect`, whose rules lose, delay and hold them.

A hung partition takes no step: what happens to it waits. When it resumes, its own calls go before
the messages, as a stopped process goes on with its store before it looks at any socket. Another
process of the same partid can boot over a stopped one, which then hears nothing any more but keeps
all that it mapped. That a process is gone is said by `prove_gone` alone, and only of one that is.

It decides nothing about memory or protocol; it only delivers. An `Observer` sees every step.
"""

import heapq
from collections.abc import Callable, Iterator
from functools import partial
from random import Random

from xpmem_emu.client.operations import OperationAnswer
from xpmem_emu.codec import Buffer
from xpmem_emu.image import Image
from xpmem_emu.inject.clock import Clock
from xpmem_emu.inject.interconnect import Delivery, Interconnect
from xpmem_emu.inject.throttle import Throttle
from xpmem_emu.judge.observer import Observer
from xpmem_emu.kernel.boot import boot_kernel
from xpmem_emu.kernel.calls import Call
from xpmem_emu.kernel.interface import (
    Effects,
    KernelEvent,
    LinkDown,
    Panic,
    ProcessGone,
    Receive,
    Reply,
    Request,
    Send,
    Tick,
)
from xpmem_emu.kernel.kernel import Kernel
from xpmem_emu.sim.audits import audits_wanted
from xpmem_emu.sim.memory import SimMemory, zeroed
from xpmem_emu.sim.task import SimPartition, SimTask
from xpmem_emu.sim.ticket import Stuck, Ticket
from xpmem_emu.trace import Record
from xpmem_emu.units import SECOND
from xpmem_emu.xpc.peers import Neighbourhood

Pick = Callable[[int], int]
LATENCY_NS = 20_000
"""How long a message takes when no rule says otherwise."""


class SimCluster:
    """`partitions` kernels, the partitions of one machine, booted at time 0."""

    def __init__(
        self,
        partitions: int = 2,
        image: Image | None = None,
        seed: int = 0,
        observer: Observer | None = None,
        pick_of: Callable[[int], Pick | None] = lambda partid: None,
        image_of: Callable[[int], Image] | None = None,
        audits: bool = False,
    ) -> None:
        """For each partition `pick_of` chooses among threads and `image_of` what it boots."""
        self._audits = audits or audits_wanted()
        self.now_ns = 0
        self.steps = 0
        """How many steps all kernels took: the order of everything that happens."""
        self.image = image or Image()
        self._image_of = image_of or (lambda partid: self.image)
        self.latency_ns: Callable[[int, int], int] = lambda src, dst: LATENCY_NS
        """How long a message from one partition to another takes, each time anew."""
        self.tap: Callable[[int, Send], None] = lambda src, message: None
        """Told of every message as it leaves its sender."""
        self.interconnect = Interconnect(lambda name: Random(f"{seed}/{name}"))
        self.kernels: dict[int, Kernel] = {}
        self.superseded: dict[tuple[int, int], Kernel] = {}
        """By (partid, boot): stopped processes over which another one booted."""
        self.trace: list[Record] = []
        self.keep_trace = True  # not where a thousand partitions would fill the memory with it
        self.clocks: dict[int, Clock] = {}
        self.paces: dict[int, Throttle] = {}
        """Clocks and paces of the partitions where a fault changed them."""
        self.observer = observer or Observer()
        self._pick_of = pick_of
        self._hung: dict[int, list[KernelEvent]] = {}
        self._hung_since: dict[int, int] = {}
        self.partids = list(range(partitions))
        self._machine = Neighbourhood({partid: self._image_of(partid) for partid in self.partids})
        self._memory = SimMemory()
        self._boots: dict[int, int] = {}
        self._agenda: list[tuple[int, int, Callable[[], None]]] = []
        self._sequence = 0
        self._wakes: dict[int, int] = {}
        self._tickets: dict[int, Ticket] = {}
        for partid in self.partids:
            self.boot(partid)

    # -- partitions --------------------------------------------------------------------------

    def boot(self, partid: int, past: int = 0) -> Kernel:
        """Boot a partition anew, with a higher number than ever and than `past`."""
        boot = self._boots[partid] = max(self._boots.get(partid, 0), past) + 1
        memory = self._memory.partition(partid, boot, self.image.memory.size)
        kernel = boot_kernel(
            partid=partid,
            boot=boot,
            image=self._image_of(partid),
            arena=memory.arena,
            swap=zeroed(self.image.memory.swap),
            peers=self._machine.peers_of(partid),
            peer_memory=memory,
            audits=self._audits,
        )
        kernel.scheduler.pick = self._pick_of(partid)
        self.kernels[partid] = kernel
        self._step(partid, Tick())
        return kernel

    def crash(self, partid: int) -> None:
        """The process of a partition vanishes, as by kill -9; nobody is told."""
        self._detach(partid).scheduler.close()
        self.observer.crashed(partid)

    def supersede(self, partid: int) -> int:
        """Boot another process of a partition over one that is merely stopped, as nobody should.
        Nobody is told. Returns the boot that is stopped: its process can wake in the middle of a
        store at any time (`arena`), until `end_superseded`."""
        assert self.hung(partid), f"the process of p{partid} is not stopped"
        boot = self.boot_of(partid)
        self.superseded[partid, boot] = self._detach(partid)
        self.boot(partid)
        return boot

    def end_superseded(self, partid: int, boot: int) -> None:
        """A stopped process over which another one booted vanishes; nobody is told."""
        self.superseded.pop((partid, boot)).scheduler.close()

    def _detach(self, partid: int) -> Kernel:
        """Take the process of a partition off the world: it takes no step and hears nothing."""
        self.clocks.pop(partid, None)
        self.paces.pop(partid, None)
        self.interconnect.leave(partid)
        self._wakes.pop(partid, None)
        self._hung.pop(partid, None)
        self._hung_since.pop(partid, None)
        self._lose_calls(partid)
        return self.kernels.pop(partid)

    def poke(self, partid: int) -> None:
        """Let a kernel look around now, after something was done to it from outside."""
        self._step(partid, Tick())

    def boot_of(self, partid: int) -> int:
        """The newest boot of a partition, 0 when it never ran."""
        return self._boots.get(partid, 0)

    def arena(self, partid: int, boot: int) -> memoryview:
        """The physical memory of that boot, as raw bytes."""
        return self._memory.find(partid, boot)

    def hang(self, partid: int) -> None:
        """The process of a partition is stopped, as by SIGSTOP; nobody is told."""
        self._hung.setdefault(partid, [])
        self._hung_since[partid] = self.now_ns

    def hung(self, partid: int) -> bool:
        """Whether the partition is stopped."""
        return partid in self._hung

    def resume(self, partid: int) -> None:
        """A stopped process goes on where it was, and only then hears what it missed."""
        missed = self._hung.pop(partid, [])
        stopped_ns = self.now_ns - self._hung_since.pop(partid, self.now_ns)
        self.observer.resumed(partid, stopped_ns)
        requests = [event for event in missed if isinstance(event, Request)]
        others = [event for event in missed if not isinstance(event, Request | Tick)]
        for event in [*requests, *others, Tick()]:
            self._step(partid, event)

    def panicked(self, partid: int) -> bool:
        """Whether the kernel of the partition panicked and has not booted again."""
        kernel = self.kernels.get(partid)
        return kernel is not None and isinstance(kernel.stopped, Panic)

    def prove_gone(self, partid: int, boot: int = 0) -> None:
        """Tell all who know it that the process of this boot of a partition, or of the last, has
        ended. It must have: this is what a harness saw, no guess."""
        boot = boot or self._boots[partid]
        assert partid not in self.kernels or boot != self._boots[partid], "it runs"
        assert (partid, boot) not in self.superseded, "it is merely stopped"
        for other, kernel in list(self.kernels.items()):
            if partid in kernel.xpc.partitions:
                self._step(other, ProcessGone(partid, boot))

    def down(self) -> None:
        """Every process ends; nobody needs the cluster any more."""
        for kernel in (*self.kernels.values(), *self.superseded.values()):
            kernel.scheduler.close()

    # -- calls -------------------------------------------------------------------------------

    def submit(
        self,
        partid: int,
        call: Call,
        bulk: Buffer = b"",
        then: Callable[[Ticket], None] | None = None,
    ) -> Ticket:
        """Begin a call now; run the cluster to let it end. `then` is told when it does."""
        ticket = Ticket(partid, then)
        kernel = self.kernels.get(partid)
        if kernel is None or kernel.stopped is not None:
            ticket.end(None)
            return ticket
        self._sequence += 1
        self._tickets[self._sequence] = ticket
        self._step(partid, Request(self._sequence, call, bulk))
        return ticket

    @property
    def outstanding(self) -> list[Ticket]:
        """Calls that have not ended."""
        return list(self._tickets.values())

    def _lose_calls(self, partid: int) -> None:
        for number in [n for n, ticket in self._tickets.items() if ticket.partid == partid]:
            self._tickets.pop(number).end(None)

    def call(self, partid: int, call: Call, bulk: Buffer = b"") -> OperationAnswer:
        """Make a call and run until it ends. Raises KernelError, Signalled, Stuck."""
        ticket = self.submit(partid, call, bulk)
        self.run_until(lambda: ticket.ended)
        return ticket.answer()

    def partition(self, partid: int) -> SimPartition:
        """What can be asked of a partition, under the names of the client library."""
        return SimPartition(self, partid)

    def spawn(self, partid: int, uid: int = 0, gids: list[int] | None = None) -> SimTask:
        """A task with the xpmem device open."""
        task = self.partition(partid).spawn(uid=uid, gids=gids or [])
        task.xpmem_open()
        return task

    def audit(self, partid: int) -> dict[str, int]:
        """What is in use on a partition. Raises KernelBug when its counts disagree."""
        return self.partition(partid).audit()

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
        """Run until every partition is ACTIVE with each of its standing peers that runs."""
        apart: list[tuple[Kernel, int]] = []

        def together() -> bool:
            # After each step, so it asks only for one pair that was apart, until none is left.
            while apart and apart[-1][0].xpc.incarnation(apart[-1][1]) is not None:
                apart.pop()
            if not apart:
                apart.extend(self._apart())
            return not apart

        self.run_until(together)

    def _apart(self) -> Iterator[tuple[Kernel, int]]:
        for partid, kernel in self.kernels.items():
            for peer in self._machine.peers_of(partid).standing:
                if peer in self.kernels and kernel.xpc.incarnation(peer) is None:
                    yield kernel, peer

    # -- delivery ----------------------------------------------------------------------------

    def at(self, time_ns: int, action: Callable[[], None]) -> None:
        """Let `action` happen at a time of the run."""
        self._sequence += 1
        heapq.heappush(self._agenda, (time_ns, self._sequence, action))

    def _next(self) -> None:
        time_ns, _, action = heapq.heappop(self._agenda)
        if time_ns > self.now_ns:
            self.now_ns = time_ns
        action()

    def _step(self, partid: int, event: KernelEvent) -> None:
        kernel = self.kernels.get(partid)
        if kernel is None:
            return
        pace = self.paces.get(partid)
        if pace is None or pace.free or self.hung(partid):
            self.take(partid, event)
            return

        def deferred() -> None:
            if self.kernels.get(partid) is kernel:
                self.take(partid, event)

        at_ns = pace.defer(self.now_ns, deferred)
        if at_ns == self.now_ns:
            self.take(partid, event)
        elif at_ns is not None:
            self.at(at_ns, partial(pace.due, at_ns))

    def take(self, partid: int, event: KernelEvent) -> None:
        """Step the kernel of a partition now, whatever its pace is, or when it is stopped, once
        it goes on; nothing when it is gone."""
        kernel = self.kernels.get(partid)
        if kernel is None:
            return
        missed = self._hung.get(partid)
        if missed is not None:
            missed.append(event)
            return
        clock = self.clocks.get(partid)
        time_ns = self.now_ns if clock is None else clock.kernel_ns(self.now_ns)
        self.steps += 1
        self.observer.arriving(partid, event)
        effects = kernel.step(time_ns, event)
        if self.keep_trace:
            self.trace += effects.trace
        self.observer.stepped(partid, effects)
        if effects.sends:
            self._carry(partid, effects)
        for reply in effects.replies:
            self._answer(reply)
        wake_at_ns = effects.wake_at_ns
        if clock is not None and wake_at_ns is not None:
            wake_at_ns = clock.real_ns(wake_at_ns)
        self._wake_later(partid, wake_at_ns)

    def _carry(self, src: int, effects: Effects) -> None:
        idle = self.interconnect.idle
        for effect in effects.sends:
            if isinstance(effect, LinkDown):
                continue  # what is on the wire stays there; incarnations make it harmless
            self.tap(src, effect)
            if idle:
                latency_ns = self.latency_ns(src, effect.partid)
                self._deliver(self.now_ns + latency_ns, effect.partid, effect.frames)
                continue
            for delivery in self.interconnect.route(self.now_ns, src, effect):
                latency_ns = self.latency_ns(src, delivery.dst)
                self._deliver(delivery.at_ns + latency_ns, delivery.dst, delivery.frames)

    def _deliver(self, time_ns: int, dst: int, frames: list[Buffer]) -> None:
        copies: list[Buffer] = list(map(bytes, frames))
        self.at(time_ns, partial(self._step, dst, Receive(copies)))

    def arrive(self, dst: int, frames: list[Buffer]) -> None:
        """Let a message arrive now, whenever it was sent."""
        self._deliver(self.now_ns, dst, frames)

    def release(self, name: str) -> None:
        """Let go of the messages that a hold rule has collected."""
        self.deliver(self.interconnect.release(name, self.now_ns))

    def heal(self) -> None:
        """Heal every rule; what they held arrives now."""
        self.deliver(self.interconnect.reset(self.now_ns))

    def deliver(self, deliveries: list[Delivery]) -> None:
        """Let these messages arrive, each when it is due."""
        for delivery in deliveries:
            self._deliver(delivery.at_ns, delivery.dst, delivery.frames)

    def _answer(self, reply: Reply) -> None:
        ticket = self._tickets.pop(reply.call_id, None)
        if ticket is not None:
            ticket.end(reply.outcome)

    def _wake_later(self, partid: int, wake_at_ns: int | None) -> None:
        if wake_at_ns is None or self._wakes.get(partid) == wake_at_ns:
            return
        self._wakes[partid] = wake_at_ns

        def tick() -> None:
            if self._wakes.get(partid) == wake_at_ns:
                del self._wakes[partid]
                self._step(partid, Tick())

        self.at(wake_at_ns, tick)
