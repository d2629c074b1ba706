"""S11 containment: no kernel panics, whatever the others do.

But for one reason: a kernel that itself touches a poisoned frame gets a machine check, and must
stop (T17). Nothing else that the simulator does may end in a panic.
"""

from collections.abc import Mapping

from xpmem_emu.kernel.events import KernelPanic
from xpmem_emu.sim.checkers.base import Checker, Handler
from xpmem_emu.trace import Event

_MACHINE_CHECK = "KernelBug: machine check in kernel mode"


class Containment(Checker):
    """Every panic is a violation."""

    def handlers(self) -> Mapping[type[Event], Handler]:
        """Panics."""
        return {KernelPanic: self._panic}

    def _panic(self, partid: int, event: KernelPanic) -> None:
        if not event.reason.startswith(_MACHINE_CHECK):
            self.scene.report("S11", partid, f"panic: {event.reason} ({event.place})")
