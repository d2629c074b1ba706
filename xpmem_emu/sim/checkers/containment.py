"""S11 containment: no kernel panics, whatever the others do.

A panic is excused by what was injected at that partition, and by nothing else: a failpoint that
panicked in that very step, somebody who asked for it, or a machine check on a frame that was said
to be bad (T17). The last does not hold where the frame is a task's or a peer's affair: a fence, a
recall, a reclaim or a task's own access must get along with a page that went bad.
"""

import re
from collections.abc import Mapping

from xpmem_emu.fabric.events import FaultBegin, FaultEnd
from xpmem_emu.fabric.faults import PoisonFault
from xpmem_emu.fabric.grammar import parse_fault
from xpmem_emu.kernel.breaking import CrashKernel, Poison, Unpoison
from xpmem_emu.kernel.events import KernelBoot, KernelPanic
from xpmem_emu.kernel.interface import Request
from xpmem_emu.sim.checkers.base import Checker, Handler, Scene
from xpmem_emu.trace import Event

_MACHINE_CHECK = re.compile(r"KernelBug: machine check in kernel mode: frame (0x[0-9a-f]+) ")
_FAILPOINT = re.compile(r"KernelBug: failpoint (\S+) panics")
_CONTAINED = ("xpmem_fence/", "xpmem_recall/", "xpc", "reclaim/", "load/", "store/", "amo/")
"""Threads that must not stop the kernel for a page that is not the kernel's own."""


class Containment(Checker):
    """Every panic is a violation, but for those that were asked for."""

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self._bad: dict[int, set[int]] = {}
        """Frames of each partition that were said to be bad."""
        self._faults: dict[str, PoisonFault] = {}
        self._asked: set[int] = set()

    def handlers(self) -> Mapping[type[Event], Handler]:
        """Panics, and what may be behind one."""
        return {
            KernelBoot: self._booted, KernelPanic: self._panic, FaultBegin: self._fault_begins,
            FaultEnd: self._fault_ends,
        }  # fmt: skip

    def asked(self, partid: int, request: Request) -> None:
        """Somebody breaks a kernel, or a frame of it."""
        match request.call:
            case CrashKernel():
                self._asked.add(partid)
            case Poison(home=home, frame=frame) if home == partid:
                self._bad.setdefault(home, set()).add(frame)
            case Unpoison(home=home, frame=frame) if home == partid:
                self._bad.get(home, set()).discard(frame)

    def _booted(self, partid: int, event: KernelBoot) -> None:
        self._asked.discard(partid)
        self._bad.pop(partid, None)

    def _fault_begins(self, partid: int, event: FaultBegin) -> None:
        fault = parse_fault(event.fault)
        if isinstance(fault, PoisonFault):
            self._faults[event.name] = fault
            self._bad.setdefault(fault.partids[0], set()).add(fault.frame)

    def _fault_ends(self, partid: int, event: FaultEnd) -> None:
        fault = self._faults.pop(event.name, None)
        if fault is not None:
            self._bad.get(fault.partids[0], set()).discard(fault.frame)

    def _panic(self, partid: int, event: KernelPanic) -> None:
        if not self._excused(partid, event):
            self.scene.report("S11", partid, f"panic: {event.reason} ({event.place})")

    def _excused(self, partid: int, event: KernelPanic) -> bool:
        if partid in self._asked:
            return True
        if match := _FAILPOINT.match(event.reason):
            shots = self.scene.injuries.shots(partid, self.scene.now_ns)
            return any(
                shot.point == match[1] and shot.action.startswith("panic") for shot in shots
            )
        if match := _MACHINE_CHECK.match(event.reason):
            known = int(match[1], 16) in self._bad.get(partid, ())
            return known and not event.place.startswith(_CONTAINED)
        return False
