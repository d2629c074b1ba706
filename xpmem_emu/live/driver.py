"""Feeds one kernel with events and carries out its effects: the whole of the live harness's time.

Every event is one `kernel.step`, every effect is handed on in the order of the kernel's lists:
trace, messages, replies, the end, the next deadline. Nothing here waits or retries. The trace is
first, so that whatever others learn of this partition is in its stream, even if it is killed now.

The kernel's clock is the monotonic clock of this host, or what a fault makes of it; only
deadlines depend on it. A kernel that
raises instead of answering has panicked: it is never stepped again.
"""

import asyncio
import errno
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Protocol

from xpmem_emu.codec import Buffer
from xpmem_emu.inject.clock import Clock
from xpmem_emu.kernel.calls import Call
from xpmem_emu.kernel.interface import (
    Effects,
    Failed,
    Forged,
    Halt,
    KernelEvent,
    LinkDown,
    Outcome,
    Panic,
    ProcessGone,
    Receive,
    Reply,
    Request,
    Send,
    Tick,
)
from xpmem_emu.trace import Record

OnOutcome = Callable[[Outcome], None]
LATE_NS = 20_000_000
"""A step that comes so much later than the kernel wanted is told to the event stream."""


class SteppedKernel(Protocol):
    """What the driver needs of a kernel."""

    def step(self, now_ns: int, event: KernelEvent) -> Effects:
        """What the kernel does about `event`; it never sleeps (kernel.interface)."""

    def discard(self) -> None:
        """Nobody will step it any more."""


class EffectSink(Protocol):
    """Where the effects of a kernel go."""

    def send(self, now_ns: int, message: Send) -> None:
        """Put a message on the interconnect."""

    def link_down(self, link: LinkDown) -> None:
        """Close a link with everything queued on it."""

    def publish(self, records: Sequence[Record]) -> None:
        """Hand on the event stream."""

    def step_begins(self, now_ns: int) -> None:
        """The kernel is at work from now on."""

    def step_ended(self) -> None:
        """The kernel is not at work any more."""

    def late(self, kernel_ns: int, late_ns: int) -> None:
        """The step that begins now, by the kernel's time, comes so much later than it was due."""

    def stopped(self, end: Panic | Halt) -> None:
        """The kernel stopped."""


class Driver:
    """The only caller of one kernel."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, kernel: SteppedKernel, outside: EffectSink
    ) -> None:
        self.steps = 0
        self.clock = Clock()
        """What the kernel's time is made with, of this host's monotonic clock."""
        self.gate: Callable[[KernelEvent], bool] | None = None
        """Says whether somebody else takes care that an event is taken later."""
        self._loop = loop
        self._kernel = kernel
        self._outside = outside
        self._calls = 0
        self._waiting: dict[int, OnOutcome] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._armed_ns = 0
        self._due_ns: int | None = None
        """When the kernel wants to be stepped at the latest, in its own time."""
        self._end: Panic | Halt | None = None

    def start(self) -> None:
        """The first step: the kernel boots."""
        self._step(Tick())

    def receive(self, frames: list[Buffer]) -> None:
        """A message arrived from a peer."""
        self._step(Receive(frames))

    def gone(self, partid: int, boot: int, pid: int) -> None:
        """The process of that boot of a peer was seen to end."""
        self._step(ProcessGone(partid, boot, pid))

    def forged(self, partid: int, claimed: int) -> None:
        """A peer spoke in the name of another."""
        self._step(Forged(partid, claimed))

    def call(self, call: Call, bulk: Buffer, answer: OnOutcome) -> None:
        """Ask the kernel; `answer` gets the outcome exactly once, perhaps before this returns."""
        if self._end is not None:
            answer(_refusal(self._end))
            return
        self._calls += 1
        self._waiting[self._calls] = answer
        self._step(Request(self._calls, call, bulk))

    def close(self) -> None:
        """No further step."""
        if self._timer is not None:
            self._timer.cancel()

    def _step(self, event: KernelEvent) -> None:
        if self.gate is None or not self.gate(event):
            self.take(event)

    def take(self, event: KernelEvent) -> None:
        """Step the kernel now, past the gate."""
        if self._end is not None:
            return
        self.steps += 1
        now_ns = time.monotonic_ns()
        kernel_ns = self.clock.kernel_ns(now_ns)
        late_ns = 0 if self._due_ns is None else kernel_ns - self._due_ns
        if late_ns > LATE_NS:
            self._outside.late(kernel_ns, late_ns)
        self._outside.step_begins(now_ns)
        try:
            effects = self._kernel.step(kernel_ns, event)
        except Exception as error:
            effects = Effects(stopped=_panic_of(error))
        finally:
            self._outside.step_ended()
        self._apply(now_ns, effects)

    def _apply(self, now_ns: int, effects: Effects) -> None:
        self._due_ns = effects.wake_at_ns
        if effects.trace:
            self._outside.publish(effects.trace)
        for message in effects.sends:
            if isinstance(message, Send):
                self._outside.send(now_ns, message)
            else:
                self._outside.link_down(message)
        for reply in effects.replies:
            self._answer(reply)
        if effects.stopped is not None:
            self._finish(effects.stopped)
        elif effects.wake_at_ns is not None:
            wake_at_ns = self.clock.real_ns(effects.wake_at_ns)
            if wake_at_ns is not None:
                self._arm(wake_at_ns)

    def _answer(self, reply: Reply) -> None:
        self._waiting.pop(reply.call_id)(reply.outcome)

    def _finish(self, end: Panic | Halt) -> None:
        self._end = end
        self.close()
        waiting, self._waiting = self._waiting, {}
        for answer in waiting.values():
            answer(_refusal(end))
        self._outside.stopped(end)

    def _arm(self, wake_at_ns: int) -> None:
        """Tick at `wake_at_ns`. A timer that is already set for earlier is left: its tick finds
        nothing due and sets the next one, which is cheaper than moving it at each step."""
        if self._timer is not None:
            if self._armed_ns <= wake_at_ns:
                return
            self._timer.cancel()
        self._armed_ns = wake_at_ns
        # uvloop counts whole milliseconds; round up, or the tick comes too early and spins. Counted
        # from now, not from the beginning of the step: long work that gave way goes on at once.
        delay_ms = max(0, -((time.monotonic_ns() - wake_at_ns) // 1_000_000))
        self._timer = self._loop.call_later(delay_ms / 1000, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._step(Tick())


def _panic_of(error: Exception) -> Panic:
    place = traceback.extract_tb(error.__traceback__)[-1]
    return Panic(
        reason=f"{type(error).__name__}: {error}", place=f"{place.filename}:{place.lineno}"
    )


def _refusal(end: Panic | Halt) -> Failed:
    how = "panicked" if isinstance(end, Panic) else "shut down"
    return Failed(errno.EHOSTDOWN, f"the partition {how}: {end.reason}", "xpmem-emu reboot P")
