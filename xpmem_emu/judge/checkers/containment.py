"""S11, and L3 when a kernel stops: what excuses a panic, and who must still be answered.

A panic is excused by what was injected at that partition, and by nothing else: a failpoint that
panicked in that very step, or somebody who asked for it. A page that went bad is none (sources
T17): it costs who needs it a machine check, and no kernel reads it. And however a kernel ends, it
answers in that step every call that it has begun (L3).
"""

import re

from xpmem_emu.judge.checkers.base import Checker
from xpmem_emu.judge.invariants import Invariant
from xpmem_emu.judge.scene import EventHandlers, Scene
from xpmem_emu.kernel.breaking import CrashKernel, RawLoad
from xpmem_emu.kernel.events import KernelBoot, KernelHalt, KernelPanic
from xpmem_emu.kernel.interface import Reply, Request

_FAILPOINT = re.compile(r"KernelBug: failpoint (\S+) panics")


class Containment(Checker):
    """Every panic is a violation, but for those that were asked for."""

    judges = (Invariant.S11, Invariant.L3)
    looks_at = (
        "panics, and whether what was injected explains them; a page that went bad does not. "
        "Calls that a kernel did not answer when it stopped"
    )

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self._asked: set[int] = set()
        """Partitions that somebody panics."""
        self._calls: dict[int, set[int]] = {}
        """Calls of each partition that were not answered."""
        self._ended: set[int] = set()

    def handlers(self) -> EventHandlers:
        """The ends of kernels."""
        return {KernelBoot: self._booted, KernelPanic: self._panic, KernelHalt: self._halt}

    def asked(self, partid: int, request: Request) -> None:
        """A call that is owed an answer, or breaks the kernel."""
        self._calls.setdefault(partid, set()).add(request.call_id)
        if isinstance(request.call, CrashKernel | RawLoad):
            self._asked.add(partid)

    def answered(self, partid: int, reply: Reply) -> None:
        """A call that is owed nothing any more."""
        self._calls.get(partid, set()).discard(reply.call_id)

    def stepped(self, partid: int) -> None:
        """Whether a kernel that ended has left anybody waiting."""
        if partid in self._ended and (left := self._calls.pop(partid, None)):
            self.report(Invariant.L3, partid, f"it stopped and left {len(left)} calls unanswered")
        self._ended.discard(partid)

    def crashed(self, partid: int) -> None:
        """A process that vanishes answers nothing."""
        self._calls.pop(partid, None)

    def _booted(self, partid: int, event: KernelBoot) -> None:
        self._asked.discard(partid)
        self._calls.pop(partid, None)

    def _halt(self, partid: int, event: KernelHalt) -> None:
        self._ended.add(partid)

    def _panic(self, partid: int, event: KernelPanic) -> None:
        self._ended.add(partid)
        if not self._excused(partid, event):
            self.report(Invariant.S11, partid, f"panic: {event.reason} ({event.place})")

    def _excused(self, partid: int, event: KernelPanic) -> bool:
        if partid in self._asked:
            return True
        if match := _FAILPOINT.match(event.reason):
            shots = self.scene.injuries.shots(partid, self.scene.now_ns)
            return any(shot.point == match[1] and shot.action.startswith("panic") for shot in shots)
        return False
