"""S11 containment: no kernel panics, whatever the others do. Nothing here injects a panic."""

from collections.abc import Mapping

from xpmem_emu.kernel.events import KernelPanic
from xpmem_emu.sim.checkers.base import Checker, Handler
from xpmem_emu.trace import Event


class Containment(Checker):
    """Every panic is a violation."""

    def handlers(self) -> Mapping[type[Event], Handler]:
        """Panics."""
        return {KernelPanic: self._panic}

    def _panic(self, partid: int, event: KernelPanic) -> None:
        self.scene.report("S11", partid, f"panic: {event.reason} ({event.place})")
