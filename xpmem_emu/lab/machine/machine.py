"""The machine: a discrete-event simulation of processors that run tasks and take interrupts.

The rules, all of them:

* A task has a processor until it sleeps, ends, or passes a preemption point while another is ready.
  Who is ready waits in one queue, and gets the free processor of the lowest number. To begin or go
  on with a task costs `switch`.
* A spinlock that is free costs `lock`. Who waits for one keeps its processor and gets the lock in
  its turn, `handover` after the other gave it; preemption is off as long as it waits or has it.
* A semaphore that is free costs `lock`. Who waits sleeps and owns it when it is ready again.
* An interrupt is served when its processor is neither masked nor in a handler; that costs
  `interrupt` and then what the handler does. A handler cannot be switched away from: where it would
  sleep, it is reported and spins.
* Whoever may sleep where nobody may is reported, whether it has to wait or not.

What costs nothing takes no time. Events at one moment come in the order in which they were made.
"""

import heapq
from collections import deque
from collections.abc import Callable

from xpmem_emu.image import MachineSection
from xpmem_emu.lab.machine.account import Account
from xpmem_emu.lab.machine.locks import CostedLock, Latch, LockTaker
from xpmem_emu.lab.machine.operations import (
    Give,
    MaskInterrupts,
    Nap,
    Open,
    PreemptionPoint,
    Raise,
    SleepUntil,
    SpinUntil,
    StrandOperation,
    StrandSteps,
    Take,
    TakeShared,
    UnmaskInterrupts,
    Work,
)
from xpmem_emu.lab.machine.order import LockOrder
from xpmem_emu.lab.machine.strand import Doing, Interrupt, Processor, Strand

INVALID_CONTEXT = "BUG: sleeping function called from invalid context"
_AT_ONCE = 0
_Waiting = Callable[[Strand, str, int | None], None]


class Machine:
    """Processors with costs. Spawn tasks, then `run`."""

    def __init__(self, costs: MachineSection, order: LockOrder | None = None) -> None:
        """`order`: who checks the order of locks, if anybody should."""
        self.costs = costs
        self.now_ns = 0
        self.processors = [Processor(number) for number in range(costs.processors)]
        self.account = Account(costs.processors)
        self._order = order
        self._ready: deque[Strand] = deque()
        self._alive: dict[Strand, None] = {}
        self._agenda: list[tuple[int, int, Callable[[], None] | None, Strand | None, int]] = []
        self._sequence = 0

    # -- what an experiment says -----------------------------------------------------------

    def spawn(self, name: str, steps: StrandSteps) -> Strand:
        """A task that is ready now."""
        strand = Strand(name, steps)
        self._alive[strand] = None
        self._make_ready(strand)
        return strand

    def at(self, time_ns: int, action: Callable[[], None]) -> None:
        """Let something happen from outside, such as `interrupt`."""
        self._push(time_ns, action, None, 0)

    def interrupt(self, number: int, name: str, handler: Callable[[], StrandSteps]) -> None:
        """Interrupt a processor now."""
        processor = self.processors[number]
        processor.pending.append(Interrupt(name, handler, self.now_ns))
        self._serve(processor)

    def run(self, until_ns: int | None = None) -> Account:
        """Let time pass until nothing happens any more, or until then. What was left waiting
        though nothing can wake it is a deadlock, and told."""
        while self._agenda and (until_ns is None or self._agenda[0][0] <= until_ns):
            self.now_ns, _, action, strand, token = heapq.heappop(self._agenda)
            if action is not None:
                action()
            elif strand is not None and strand.token == token:
                self._go_on(strand, until_ns)
        if not self._agenda:
            self._tell_deadlocks()
        elif until_ns is not None:
            self.now_ns = until_ns
        return self._settled()

    # -- one strand ------------------------------------------------------------------------

    def _go_on(self, strand: Strand, until_ns: int | None) -> None:
        """The present operation of a strand is over. Called by `run` alone: what it does to others
        is on the agenda, so that time may pass here as long as nothing else happens."""
        self._stop_waiting(strand)
        strand.doing = Doing.BUSY
        self._on(strand).turn(self.now_ns, Doing.BUSY)
        while True:
            try:
                operation = next(strand.steps)
            except StopIteration:
                self._end(strand)
                return
            ns = self._do(strand, operation)
            if ns is None:
                return
            end = self.now_ns + ns
            earlier = self._agenda and self._agenda[0][0] <= end
            if earlier or (until_ns is not None and end > until_ns):
                self._occupy(strand, Doing.BUSY, ns)
                return
            self.now_ns = end

    def _do(self, strand: Strand, operation: StrandOperation) -> int | None:
        """Do an operation: nanoseconds that it keeps the processor busy, or None when what comes
        of it is on the agenda or in somebody's queue."""
        match operation:
            case Work(ns):
                return ns
            case Take(lock, under):
                return self._take(strand, lock, False, under)
            case TakeShared(lock):
                return self._take(strand, lock, True, None)
            case Give(lock):
                self._give(strand, lock)
            case Nap(ns):
                self._may_sleep(strand)
                self._wait(strand, "time to pass", ns)
                return None
            case SleepUntil(latch):
                self._may_sleep(strand)
                return self._until(strand, latch, self._wait)
            case SpinUntil(latch):
                return self._until(strand, latch, self._spin)
            case Open(latch):
                latch.is_open = True
                for waiter in latch.waiters:
                    self._wake(waiter)
                latch.waiters.clear()
            case MaskInterrupts():
                strand.masked = True
            case UnmaskInterrupts():
                strand.masked = False
                self._occupy(strand, Doing.BUSY, _AT_ONCE)
                self._serve(self._on(strand))
                return None
            case PreemptionPoint():
                return self._maybe_yield(strand)
            case Raise(processor, name, handler):
                self.at(self.now_ns, lambda: self.interrupt(processor, name, handler))
        return _AT_ONCE

    def _take(
        self, strand: Strand, lock: CostedLock, shared: bool, under: CostedLock | None
    ) -> int | None:
        assert lock not in strand.held, f"{strand.name} takes {lock.name} twice"
        if lock.sleeps:
            self._may_sleep(strand)
        if self._order is not None and under is None:
            wrong = self._order.taking(strand.name, strand.place, reversed(strand.held), lock)
            if wrong is not None:
                self.account.complain(wrong, strand.name, strand.place)
        strand.held[lock] = strand.place
        if lock.admits(shared):
            lock.enter(strand, shared)
            return self.costs.lock
        lock.waiters.append((strand, shared))
        if lock.sleeps:
            self._wait(strand, lock.name, None)
        else:
            self._spin(strand, lock.name, None)
        return None

    def _give(self, strand: Strand, lock: CostedLock) -> None:
        lock.leave(strand)
        del strand.held[lock]
        for waiter in lock.next_ones():
            self._wake(waiter)

    def _until(self, strand: Strand, latch: Latch, wait: _Waiting) -> int | None:
        if latch.is_open:
            return _AT_ONCE
        latch.waiters.append(strand)
        wait(strand, latch.name, None)
        return None

    def _maybe_yield(self, strand: Strand) -> int | None:
        self._may_sleep(strand)
        if not self._ready or strand.handler:
            return _AT_ONCE
        processor = self._on(strand)
        processor.stack.pop()
        strand.processor = None
        self._queue(strand)
        self._dispatch(processor)
        return None

    def _may_sleep(self, strand: Strand) -> None:
        if why := strand.atomic:
            self.account.complain(f"{INVALID_CONTEXT} ({why})", strand.name, strand.place)

    # -- waiting ---------------------------------------------------------------------------

    def _wait(self, strand: Strand, what: str, ns: int | None) -> None:
        """Sleep until woken, or for `ns`. Handlers spin."""
        if strand.handler:
            self._spin(strand, what, ns)
            return
        processor = self._on(strand)
        processor.stack.pop()
        strand.processor = None
        self._begin_waiting(strand, what, "sleeping")
        if ns is not None:
            self.at(self.now_ns + ns, lambda: self._wake(strand))
        self._dispatch(processor)

    def _spin(self, strand: Strand, what: str, ns: int | None) -> None:
        self._begin_waiting(strand, what, "spinning")
        self._occupy(strand, Doing.SPIN, ns)

    def _begin_waiting(self, strand: Strand, what: str, how: str) -> None:
        strand.waiting_for, strand.waiting_how = what, how
        strand.since_ns = self.now_ns

    def _stop_waiting(self, strand: Strand) -> None:
        if strand.waiting_how:
            off = strand.off if strand.waiting_how == "spinning" else ""
            waited_ns = self.now_ns - strand.since_ns
            self.account.waited(strand.name, strand.waiting_for, strand.waiting_how, off, waited_ns)
            strand.waiting_how = ""

    def _wake(self, strand: LockTaker) -> None:
        """What it waits for has come."""
        assert isinstance(strand, Strand)
        if strand.waiting_how == "sleeping":
            self._stop_waiting(strand)
            self._make_ready(strand)
        elif self._on(strand).top is strand:
            self._occupy(strand, Doing.SPIN, self.costs.handover)
        else:
            strand.left_ns = self.costs.handover

    def _queue(self, strand: Strand) -> None:
        self._begin_waiting(strand, "a processor", "ready")
        self._ready.append(strand)

    def _make_ready(self, strand: Strand) -> None:
        self._queue(strand)
        for processor in self.processors:
            if not processor.stack:
                self._dispatch(processor)
                return

    # -- processors ------------------------------------------------------------------------

    def _on(self, strand: Strand) -> Processor:
        assert strand.processor is not None
        return strand.processor

    def _occupy(self, strand: Strand, doing: Doing, ns: int | None) -> None:
        """A strand on top of its processor goes on with its operation, for `ns` or until woken."""
        strand.token += 1
        strand.doing, strand.left_ns = doing, None
        strand.ends_ns = None if ns is None else self.now_ns + ns
        self._on(strand).turn(self.now_ns, doing)
        if strand.ends_ns is not None:
            self._push(strand.ends_ns, None, strand, strand.token)

    def _serve(self, processor: Processor) -> None:
        """Begin with a pending interrupt, if the processor lets it in."""
        top = processor.top
        if not processor.pending or (top is not None and (top.handler or top.masked)):
            return
        if top is not None:
            top.token += 1
            top.left_ns = None if top.ends_ns is None else top.ends_ns - self.now_ns
        interrupt = processor.pending.popleft()
        off = "interrupts" if self.now_ns > interrupt.raised_ns else ""
        what = f"processor {processor.number}"
        self.account.waited(interrupt.name, what, "pending", off, self.now_ns - interrupt.raised_ns)
        handler = Strand(interrupt.name, interrupt.handler(), handler=True, processor=processor)
        self._alive[handler] = None
        processor.stack.append(handler)
        self._occupy(handler, Doing.BUSY, self.costs.interrupt)

    def _end(self, strand: Strand) -> None:
        assert not strand.held, f"{strand.name} ends with locks"
        del self._alive[strand]
        processor = self._on(strand)
        processor.stack.pop()
        strand.processor = None
        self._dispatch(processor)

    def _dispatch(self, processor: Processor) -> None:
        """Let a processor whose top has gone do what comes next."""
        top = processor.top
        if top is not None:
            self._occupy(top, top.doing, top.left_ns)
        elif self._ready:
            strand = self._ready.popleft()
            processor.stack.append(strand)
            strand.processor = processor
            self._occupy(strand, Doing.BUSY, self.costs.switch)
        else:
            processor.turn(self.now_ns, Doing.IDLE)
        self._serve(processor)

    # -- the agenda and the end ------------------------------------------------------------

    def _push(
        self, time_ns: int, action: Callable[[], None] | None, strand: Strand | None, token: int
    ) -> None:
        self._sequence += 1
        heapq.heappush(self._agenda, (time_ns, self._sequence, action, strand, token))

    def _tell_deadlocks(self) -> None:
        for strand in self._alive:
            text = f"deadlock: {strand.waiting_how} for {strand.waiting_for} for ever"
            self.account.complain(text, strand.name, strand.place)

    def _settled(self) -> Account:
        account = self.account
        account.elapsed_ns = self.now_ns
        account.spent_ns = dict.fromkeys(Doing, 0)
        for processor in self.processors:
            processor.settle(self.now_ns)
            for doing, ns in processor.spent_ns.items():
                account.spent_ns[doing] += ns
        return account
