"""What every checker stands on: the scene it watches and the way to say that something is wrong."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from xpmem_emu.image import Image
from xpmem_emu.sim.checkers.sessions import Sessions
from xpmem_emu.sim.cluster import SimCluster
from xpmem_emu.trace import Event

VIOLATIONS_MAX = 20
"""More of one run are not collected: the first one is the one to look at."""


class Violation(msgspec.Struct, frozen=True):
    """An invariant that did not hold. `partid` is -1 where no partition is to blame."""

    invariant: str
    partid: int
    time_ns: int
    text: str

    def __str__(self) -> str:
        where = f" on p{self.partid}" if self.partid >= 0 else ""
        return f"{self.invariant}{where} at {self.time_ns / 1e6:.3f} ms: {self.text}"


@dataclass
class Scene:
    """A run as the checkers see it."""

    image: Image
    sessions: Sessions = field(default_factory=Sessions)
    violations: list[Violation] = field(default_factory=list)
    cluster: SimCluster | None = None
    """Known once all kernels have booted; before that nothing is shared."""
    now_ns: int = 0
    clock_ns: int | None = None
    """What the clock of the partition of the present event shows, where that may differ."""
    moment: int = 0
    """Number of the present step."""

    def report(self, invariant: str, partid: int, text: str) -> None:
        """Note a violation."""
        if len(self.violations) < VIOLATIONS_MAX:
            self.violations.append(Violation(invariant, partid, self.now_ns, text))


Handler = Callable[[int, Any], None]
"""(partition, event of the type it is registered for)."""


class Checker:
    """Base: sees events of the types it names, then the end of each step."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene

    def handlers(self) -> Mapping[type[Event], Handler]:
        """What looks at which event."""
        return {}

    def stepped(self, partid: int) -> None:
        """A step of `partid` with at least one event ended; raw memory is as it left it."""

    def crashed(self, partid: int) -> None:
        """The process of `partid` vanished."""
