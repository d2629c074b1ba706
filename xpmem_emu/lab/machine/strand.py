"""What runs on a processor, a task or an interrupt handler, and the processor itself."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from types import GeneratorType

from xpmem_emu.lab.machine.locks import CostedLock, LockTaker
from xpmem_emu.lab.machine.operations import StrandSteps


class Doing(Enum):
    """What a processor does with its time."""

    BUSY = "busy"
    SPIN = "spin"
    IDLE = "idle"


@dataclass(eq=False, slots=True)
class Strand(LockTaker):
    """A task, or a handler that borrows the processor of one."""

    name: str
    steps: StrandSteps
    handler: bool = False
    doing: Doing = Doing.BUSY
    left_ns: int | None = 0
    """What is left of the present operation while it is not running; None: until it is woken."""
    ends_ns: int | None = None
    """When the present operation ends, while it is running and that is known."""
    token: int = 0
    """Says which of the ends that are on the agenda is still meant."""
    processor: "Processor | None" = None
    masked: bool = False
    held: dict[CostedLock, str] = field(default_factory=dict)
    """Locks, and where each was taken."""
    waiting_for: str = ""
    waiting_how: str = ""
    since_ns: int = 0

    @property
    def place(self) -> str:
        """The function that it is in, the innermost one."""
        steps = self.steps
        while isinstance(inner := getattr(steps, "gi_yieldfrom", None), GeneratorType):
            steps = inner
        return str(getattr(steps, "__name__", "?"))

    @property
    def atomic(self) -> str:
        """Why it may not sleep; empty if it may."""
        why = [f"{lock.name} taken in {at}" for lock, at in self.held.items() if not lock.sleeps]
        if self.handler:
            why.insert(0, "in an interrupt handler")
        if self.masked:
            why.append("interrupts off")
        return ", ".join(why)

    @property
    def off(self) -> str:
        """What is switched off while it waits with its processor."""
        return "interrupts and preemption" if self.masked or self.handler else "preemption"


@dataclass(eq=False, slots=True)
class Interrupt:
    """One that was raised and not served yet."""

    name: str
    handler: Callable[[], StrandSteps]
    raised_ns: int


@dataclass(eq=False, slots=True)
class Processor:
    """A task or nobody, the handler that interrupted it, and where its time went."""

    number: int
    stack: list[Strand] = field(default_factory=list)
    pending: deque[Interrupt] = field(default_factory=deque)
    doing: Doing = Doing.IDLE
    since_ns: int = 0
    spent_ns: dict[Doing, int] = field(default_factory=lambda: dict.fromkeys(Doing, 0))

    @property
    def top(self) -> Strand | None:
        """Who has it now."""
        return self.stack[-1] if self.stack else None

    def turn(self, now_ns: int, doing: Doing) -> None:
        """From now on it does this."""
        if doing is self.doing:
            return
        self.settle(now_ns)
        self.doing = doing

    def settle(self, now_ns: int) -> None:
        """Count what it has done until now."""
        self.spent_ns[self.doing] += now_ns - self.since_ns
        self.since_ns = now_ns
