"""L9: a block transfer repeats itself as often as its image says, in all (sources T18)."""

from collections import Counter

from xpmem_emu.judge.checkers.base import Checker
from xpmem_emu.judge.invariants import Invariant
from xpmem_emu.judge.scene import EventHandlers, Scene
from xpmem_emu.kernel.events import KernelBoot
from xpmem_emu.xpmem.events import BteRetry


class Repeats(Checker):
    """Counts the retries of each transfer."""

    judges = (Invariant.L9,)
    looks_at = "the retries of each block transfer against the image"

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self._retries: Counter[tuple[int, int]] = Counter()

    def handlers(self) -> EventHandlers:
        """Each retry; numbers begin anew with a boot."""
        return {BteRetry: self._repeated, KernelBoot: self._booted}

    def _booted(self, partid: int, event: KernelBoot) -> None:
        for key in [key for key in self._retries if key[0] == partid]:
            del self._retries[key]

    def _repeated(self, partid: int, event: BteRetry) -> None:
        self._retries[partid, event.transfer] += 1
        most = self.scene.image.deadlines.bte_retries
        if self._retries[partid, event.transfer] > most:
            text = (
                f"transfer {event.transfer} of task {event.pid} is repeated more than {most} times"
            )
            self.report(Invariant.L9, partid, text)
