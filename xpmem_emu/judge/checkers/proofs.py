"""S7, the proof of death: frames leave quarantine only when their session can touch nothing.

Two things prove that: the harness told this home that the process of that very boot has ended, or
the same boot has begun a newer session, which it does only after it dropped everything. Another
boot of the partition proves nothing: the process before may merely be stopped.
"""

from collections import Counter

from xpmem_emu.judge.checkers.base import Checker
from xpmem_emu.judge.invariants import Invariant
from xpmem_emu.judge.scene import EventHandlers, Scene
from xpmem_emu.kernel.events import KernelBoot
from xpmem_emu.xpc.events import PartitionChange
from xpmem_emu.xpmem.events import QuarantineEmpty

_EPOCH_BITS = 16


class Proofs(Checker):
    """Keeps its own account of who proved what."""

    judges = (Invariant.S7,)
    looks_at = (
        "quarantines that end, against what the harness saw end and who rejoined in the same boot"
    )

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self._epochs: Counter[tuple[int, int]] = Counter()
        """(partition, peer) -> how often it has activated the peer in its present boot."""

    def handlers(self) -> EventHandlers:
        """Sessions as they begin, quarantines as they end."""
        return {
            KernelBoot: self._booted,
            PartitionChange: self._partition,
            QuarantineEmpty: self._released,
        }

    def _booted(self, partid: int, event: KernelBoot) -> None:
        for pair in [pair for pair in self._epochs if pair[0] == partid]:
            del self._epochs[pair]

    def _partition(self, partid: int, event: PartitionChange) -> None:
        if event.state == "ACTIVATION_REQ":
            self._epochs[partid, event.peer] += 1

    def _released(self, partid: int, event: QuarantineEmpty) -> None:
        importer, boot = event.importer, event.incarnation >> _EPOCH_BITS
        if (partid, importer, boot) in self.scene.proofs:
            return
        if importer in self.scene.injuries.forgers:
            return  # it said that it left, and who keeps to no rule may say anything
        now = boot << _EPOCH_BITS | self._epochs[importer, partid]
        if self.scene.boots.get(importer) != boot or now <= event.incarnation:
            self.report(
                Invariant.S7,
                partid,
                f"{event.frames} frames of p{importer}, session"
                f" {event.incarnation:#x}, left quarantine without proof: {event.proof}",
            )
