"""S16, from the exporter's tables and the objects that a call makes.

Permits and attachments of one task of a peer, pages pinned under a limit, remembered answers and
graves: counted in the exporter's tables after each step that may have added to one. So are faults
in flight, by their begins and ends. Nor does a call build, in the step that begins it, what is as
long as its arguments are large.
"""

import sys
from collections import Counter

from xpmem_emu.judge.checkers.base import Checker
from xpmem_emu.judge.invariants import Invariant
from xpmem_emu.judge.scene import EventHandlers, Scene
from xpmem_emu.kernel.call import op_of
from xpmem_emu.kernel.events import KernelBoot
from xpmem_emu.kernel.interface import Request
from xpmem_emu.kernel.kernel import Kernel
from xpmem_emu.xpc.events import Received
from xpmem_emu.xpmem.events import FaultBegin, FaultEnd, PagesPin, PermitGet

GRAVES_MAX = 256
_VAST = 1 << 30
_OBJECTS_MAX = 1 << 16
"""Objects of Python that no call of a vast length makes in one step."""
_LENGTHS = ("size", "length", "old_length", "new_length", "pages")
_CHANNELS, _CLASSES = 2, 2
_GROWS = frozenset({"GET", "ATTACH"})
_TGID_SHIFT, _TGID_MASK = 20, (1 << 20) - 1


class Tables(Checker):
    """Counts what is in tables."""

    judges = (Invariant.S16,)
    looks_at = (
        "permits and attachments of a peer's task, pins under a limit, answers, graves, "
        "faults in flight; objects that a call of a vast length makes at once"
    )

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self._grown = False
        self._pinned: dict[tuple[int, int], int] = {}
        """(partition, task) -> pages pinned at the last look."""
        self._pins = False
        self._faults: Counter[int] = Counter()
        """Those in flight of each partition."""
        self._vast: tuple[str, int] | None = None
        """A call of a vast length begins: its name, and how many objects there were."""

    def handlers(self) -> EventHandlers:
        """What adds to a table."""
        return {
            KernelBoot: self._booted,
            Received: self._received,
            PermitGet: self._grows,
            PagesPin: self._pin,
            FaultBegin: self._fault,
            FaultEnd: self._fault_ends,
        }

    def asked(self, partid: int, request: Request) -> None:
        """A call begins."""
        if any(getattr(request.call, name, 0) >= _VAST for name in _LENGTHS):
            name = op_of(request.call)
            self._vast = name, sys.getallocatedblocks()

    def _received(self, partid: int, event: Received) -> None:
        self._grown = self._grown or event.kind in _GROWS

    def _grows(self, partid: int, event: PermitGet) -> None:
        self._grown = True

    def _pin(self, partid: int, event: PagesPin) -> None:
        self._pins = True

    def _booted(self, partid: int, event: KernelBoot) -> None:
        self.crashed(partid)

    def _fault(self, partid: int, event: FaultBegin) -> None:
        self._faults[partid] += 1
        most = self.scene.image.limits.inflight_faults
        if self._faults[partid] > most:
            self._say(partid, f"{self._faults[partid]} faults in flight, of {most}")

    def _fault_ends(self, partid: int, event: FaultEnd) -> None:
        self._faults[partid] -= 1

    def crashed(self, partid: int) -> None:
        """Its tables are gone."""
        self._faults.pop(partid, None)
        self._grown = self._pins = False

    def stepped(self, partid: int) -> None:
        """Look at the tables that may have grown."""
        if self._vast is not None:
            (name, before), self._vast = self._vast, None
            if sys.getallocatedblocks() - before > _OBJECTS_MAX:
                self._say(partid, f"{name} builds what is as long as its arguments are large")
        if not (self._grown or self._pins):
            return
        grown, pins, self._grown, self._pins = self._grown, self._pins, False, False
        kernel = self.scene.kernels.get(partid)
        if kernel is None or kernel.stopped is not None:
            return
        if grown:
            self._check_grants(partid, kernel)
            self._check_messages(partid, kernel)
        if pins:
            self._check_pins(partid, kernel)

    def _check_grants(self, partid: int, kernel: Kernel) -> None:
        limits = kernel.image.limits
        permits: Counter[tuple[int, int]] = Counter()
        attachments: Counter[tuple[int, int]] = Counter()
        for (importer, apid), grant in kernel.xpmem.exporter.grants.items():
            whose = importer, apid >> _TGID_SHIFT & _TGID_MASK
            permits[whose] += 1
            attachments[whose] += len(grant.attachments)
        for what, counts, most in (
            ("permits", permits, limits.permits_per_task),
            ("attachments", attachments, limits.attachments_per_task),
        ):
            for (importer, tgid), count in counts.items():
                if count > most:
                    self._say(partid, f"{count} {what} of task {tgid} of p{importer}, of {most}")
        graves = len(kernel.xpmem.exporter.firewall._graves)
        if graves > GRAVES_MAX:
            self._say(partid, f"{graves} graves of permits, of {GRAVES_MAX}")

    def _check_messages(self, partid: int, kernel: Kernel) -> None:
        most = kernel.image.xpc.slots * _CHANNELS * _CLASSES
        for peer, partition in kernel.xpc.partitions.items():
            if partition.session is not None:
                remembered = partition.session.audit()["remembered"]
                if remembered > most + 1:
                    self._say(partid, f"{remembered} answers to p{peer} remembered, of {most}")

    def _check_pins(self, partid: int, kernel: Kernel) -> None:
        most = kernel.xpmem.exporter.pin_limit
        for tgid, group in kernel.xpmem.device.groups.items():
            before = self._pinned.get((partid, tgid), 0)
            self._pinned[partid, tgid] = group.pinned
            if most and group.pinned > max(most, before):
                self._say(partid, f"{group.pinned} pages of task {tgid} pinned, of {most}")

    def _say(self, partid: int, text: str) -> None:
        self.report(Invariant.S16, partid, text)
