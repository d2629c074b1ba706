"""What a run did so far, as all who judge it see it, and what was found wrong."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from xpmem_emu.failpoints.events import PointHit
from xpmem_emu.image import Image
from xpmem_emu.inject.events import InjectionBegin, InjectionEnd, InjectionHit, StoodStill
from xpmem_emu.judge.injuries import Injuries
from xpmem_emu.judge.invariants import Invariant
from xpmem_emu.judge.observer import Observed
from xpmem_emu.judge.sessions import Sessions
from xpmem_emu.judge.verdict import Violation
from xpmem_emu.kernel.events import KernelBoot, KernelHalt, KernelPanic
from xpmem_emu.kernel.kernel import Kernel
from xpmem_emu.trace import Event
from xpmem_emu.xpc.events import PartitionChange

VIOLATIONS_MAX = 20
"""More of one run are not collected: the first one is the one to look at."""
EventHandler = Callable[[int, Any], None]
"""(partition, event of the type it is registered for)."""
EventHandlers = Mapping[type[Event], EventHandler]


class Listener(Protocol):
    """Whatever hears events of a run."""

    def handlers(self) -> EventHandlers:
        """What looks at which event."""


@dataclass
class Scene:
    """A run as the checkers see it."""

    image: Image
    sessions: Sessions = field(default_factory=Sessions)
    injuries: Injuries = field(default_factory=Injuries)
    boots: dict[int, int] = field(default_factory=dict)
    """The newest boot of each partition."""
    proofs: set[tuple[int, int, int]] = field(default_factory=set)
    """(who was told, partition, boot of it that the harness saw end)."""
    leaving: set[int] = field(default_factory=set)
    """Partitions that somebody told to shut down."""
    violations: list[Violation] = field(default_factory=list)
    cluster: Observed | None = None
    """Known once all kernels have booted; before that nothing is shared."""
    now_ns: int = 0
    clock_ns: int | None = None
    """What the clock of the partition of the present event shows, where that may differ."""
    thread: str = ""
    """The thread of the present event."""
    moment: int = 0
    """Number of the present step."""
    _known_ns: dict[int, int] = field(default_factory=dict)
    """How far clocks were ahead of the world when last a fault began or ended."""

    @property
    def kernels(self) -> Mapping[int, Kernel]:
        """By partid, those that run or are stopped; none where only events are judged."""
        return {} if self.cluster is None else self.cluster.kernels

    def handlers(self) -> EventHandlers:
        """What the scene itself hears of, before any checker does."""
        return {
            PartitionChange: self._partition,
            KernelBoot: self._booted,
            KernelPanic: self._down,
            KernelHalt: self._down,
            InjectionHit: self._hit,
            PointHit: self._acted,
            InjectionBegin: self._fault_begins,
            InjectionEnd: self._fault_ends,
            StoodStill: self._still,
        }

    def _partition(self, partid: int, event: PartitionChange) -> None:
        self.sessions.changed(partid, event, self.moment)

    def _booted(self, partid: int, event: KernelBoot) -> None:
        self.sessions.booted(partid, event, self.moment)
        self.boots[partid] = event.boot
        self.leaving.discard(partid)
        self._known_ns.pop(partid, None)
        self.injuries.booted(self.now_ns, partid)

    def _down(self, partid: int, event: Event) -> None:
        self.injuries.went_down(self.now_ns, partid)

    def _hit(self, partid: int, event: InjectionHit) -> None:
        self.injuries.hit(self.now_ns, event)

    def _acted(self, partid: int, event: PointHit) -> None:
        self.injuries.acted(self.now_ns, partid, event)

    def _fault_begins(self, partid: int, event: InjectionBegin) -> None:
        self._note_clocks()
        self.injuries.begun(self.now_ns, event)

    def _fault_ends(self, partid: int, event: InjectionEnd) -> None:
        self._note_clocks()
        self.injuries.ended(self.now_ns, event)

    def _still(self, partid: int, event: StoodStill) -> None:
        self.injuries.stood_still(self.now_ns, partid)

    def unwell(self, partid: int, since_ns: int) -> bool:
        """Whether it was not itself at any time since, or is stopped now, or its clock has just
        jumped: of that the kernel knows before anybody is told."""
        cluster = self.cluster
        if cluster is not None and (
            cluster.hung(partid) or self._ahead_ns(partid) != self._known_ns.get(partid, 0)
        ):
            return True
        return self.injuries.unwell(partid, since_ns)

    def _ahead_ns(self, partid: int) -> int:
        clock = None if self.cluster is None else self.cluster.clocks.get(partid)
        return 0 if clock is None else clock.kernel_ns(self.now_ns) - self.now_ns

    def _note_clocks(self) -> None:
        if self.cluster is not None:
            self._known_ns = {partid: self._ahead_ns(partid) for partid in self.cluster.clocks}

    def report(self, invariant: Invariant, partid: int, text: str) -> None:
        """Note a violation."""
        if len(self.violations) < VIOLATIONS_MAX:
            self.violations.append(Violation(invariant, partid, self.now_ns, text))
