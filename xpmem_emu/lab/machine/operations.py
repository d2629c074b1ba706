"""What a task or an interrupt handler of the costed machine does, one operation at a time.

A task is a generator that yields these; between two of them it takes no time and nobody sees a
state in between. What it asks for with `Take` is had when the generator goes on.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass

from xpmem_emu.lab.machine.locks import CostedLock, Latch, SleepingLock

StrandSteps = Generator["StrandOperation", None, None]
"""A task or a handler."""


@dataclass(frozen=True, slots=True)
class Work:
    """Keep the processor busy for so long."""

    ns: int

    def __post_init__(self) -> None:
        assert self.ns >= 0


@dataclass(frozen=True, slots=True)
class Take:
    """Take a lock for oneself, by spinning or by sleeping: as the lock is. `under`: a lock already
    held that makes the order of those below it indifferent."""

    lock: CostedLock
    under: CostedLock | None = None


@dataclass(frozen=True, slots=True)
class TakeShared:
    """Take a semaphore together with other readers."""

    lock: SleepingLock


@dataclass(frozen=True, slots=True)
class Give:
    """Give a lock back, however it was taken. Takes no time of the giver's."""

    lock: CostedLock


@dataclass(frozen=True, slots=True)
class Nap:
    """Sleep for so long; may sleep, as the name says."""

    ns: int


@dataclass(frozen=True, slots=True)
class SleepUntil:
    """Sleep until a latch is open."""

    latch: Latch


@dataclass(frozen=True, slots=True)
class SpinUntil:
    """Keep the processor until a latch is open."""

    latch: Latch


@dataclass(frozen=True, slots=True)
class Open:
    """Open a latch and wake whoever waits for it."""

    latch: Latch


class MaskInterrupts:
    """From here on interrupts of this processor are pending until they are unmasked."""


class UnmaskInterrupts:
    """Let interrupts in again, pending ones first."""


class PreemptionPoint:
    """Give the processor to who is ready, if anybody is (`cond_resched`)."""


@dataclass(frozen=True, slots=True)
class Raise:
    """Interrupt a processor. The handler runs there as soon as it lets interrupts in."""

    processor: int
    name: str
    handler: Callable[[], StrandSteps]


StrandOperation = (
    Work
    | Take
    | TakeShared
    | Give
    | Nap
    | SleepUntil
    | SpinUntil
    | Open
    | MaskInterrupts
    | UnmaskInterrupts
    | PreemptionPoint
    | Raise
)
