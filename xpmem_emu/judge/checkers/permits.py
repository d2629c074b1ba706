"""S15, from the tables of both sides.

No permit is granted to a partition without a session, none outlives the session, and nobody is
served without one. When a release has returned nothing of the permit is mapped. When all is quiet
each grant is a permit of a task of its importer, each permit on a segment that is still there is a
grant, and no attachment is mapped through a permit that is gone.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from xpmem_emu.judge.checkers.base import Checker
from xpmem_emu.judge.invariants import Invariant
from xpmem_emu.judge.scene import EventHandlers, Scene
from xpmem_emu.kernel.calls import XpmemRelease
from xpmem_emu.kernel.events import KernelBoot
from xpmem_emu.kernel.interface import Done, Reply, Request
from xpmem_emu.kernel.kernel import Kernel
from xpmem_emu.mm.mm_types import Vma
from xpmem_emu.xpc.events import PartitionChange
from xpmem_emu.xpmem.events import CopyServe, FaultServe, PermitGet, PermitRelease

_TOP = 1 << 47


class Permits(Checker):
    """Compares the tables of exporters and importers."""

    judges = (Invariant.S15,)
    looks_at = (
        "tables of exporters and importers; none of a lost session; nothing served without a "
        "permit, nothing mapped of one whose release returned; when quiet, attachments and held "
        "pages as both sides note them"
    )

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self._lost: set[int] = set()
        """Peers that the partition of the present step gave up."""
        self._forgers: set[int] = set()
        self._permitted: Counter[tuple[int, int]] = Counter()
        """(segment, importer) -> how many permits it has."""
        self._releasing: dict[int, int] = {}
        """Calls under way -> the permit that they release."""

    def handlers(self) -> EventHandlers:
        """Permits as they are granted, sessions as they end."""
        return {
            KernelBoot: self._booted,
            PermitGet: self._granted,
            PermitRelease: self._ended,
            PartitionChange: self._partition,
            FaultServe: self._served,
            CopyServe: self._served,
        }

    def _booted(self, partid: int, event: KernelBoot) -> None:
        for segid, importer in [each for each in self._permitted if each[0] >> 48 == partid]:
            del self._permitted[segid, importer]

    def _ended(self, partid: int, event: PermitRelease) -> None:
        self._permitted[event.segid, event.importer] -= 1

    def _served(self, partid: int, event: FaultServe | CopyServe) -> None:
        if self._permitted[event.segid, event.importer] <= 0:
            text = f"p{event.importer} was served of segment {event.segid:#x}, and has no permit"
            self._say(partid, text)

    def _granted(self, partid: int, event: PermitGet) -> None:
        self._permitted[event.segid, event.importer] += 1
        if not self.scene.sessions.active(partid, event.importer):
            self.report(
                Invariant.S15,
                partid,
                f"permit {event.apid:#x} was granted to p{event.importer}, without a session",
            )

    def _partition(self, partid: int, event: PartitionChange) -> None:
        if event.state not in ("ACTIVE", "ACTIVATION_REQ", "ACTIVATING"):
            self._lost.add(event.peer)

    def asked(self, partid: int, request: Request) -> None:
        """A call begins that releases a permit."""
        if isinstance(request.call, XpmemRelease):
            self._releasing[request.call_id] = request.call.apid

    def answered(self, partid: int, reply: Reply) -> None:
        """It ends: nothing of the permit is left in its partition."""
        apid = self._releasing.pop(reply.call_id, 0)
        kernel = self.scene.kernels.get(partid)
        if apid and kernel is not None and isinstance(reply.outcome, Done):
            for mm in kernel.memory.address_spaces.values():
                if any(_shown(vma) == apid for vma in mm.vmas):
                    self._say(partid, f"permit {apid:#x} was released, and task {mm.pid} shows it")

    def crashed(self, partid: int) -> None:
        """Nobody asks any more what it kept."""
        self._lost = set()

    def stepped(self, partid: int) -> None:
        """Nothing may be left of who was given up."""
        self._forgers |= self.scene.injuries.forgers
        lost, self._lost = self._lost, set()
        kernel = self.scene.kernels.get(partid)
        if not lost or kernel is None or kernel.stopped is not None:
            return
        for importer, apid in kernel.xpmem.exporter.grants:
            if importer in lost and not self.scene.sessions.active(partid, importer):
                self._say(partid, f"permit {apid:#x} of p{importer} outlived its session")

    def settled(self) -> None:
        """Nothing is under way: both sides say the same."""
        kernels = {
            partid: kernel
            for partid, kernel in self.scene.kernels.items()
            if kernel.stopped is None
        }
        for partid, kernel in kernels.items():
            for importer, apid in kernel.xpmem.exporter.grants:
                there = kernels.get(importer)
                if there is None or importer in self._forgers:
                    continue
                if apid not in {permit.apid for permit in _permits(there)}:
                    self._say(partid, f"permit {apid:#x} is granted; p{importer} has none")
            for permit in _permits(kernel):
                home = kernels.get(permit.imported.home)
                if home is None or permit.imported.gone or permit.imported.home in self._forgers:
                    continue
                lives = permit.imported.segid in home.xpmem.exporter.segments
                if not self.scene.sessions.active(permit.imported.home, partid):
                    continue
                if lives and (partid, permit.apid) not in home.xpmem.exporter.grants:
                    self._say(partid, f"permit {permit.apid:#x} is held, and not granted")
            self._check_areas(partid, kernel)

    def quiet(self) -> None:
        """No call and no message is under way, and tasks still have what they have: what exporters
        noted of attachments and of pages is what importers have."""
        kernels = self.scene.kernels
        for home, kernel in kernels.items():
            for importer, there in kernels.items():
                judged = not {home, importer} & (self._forgers | self.scene.injuries.forgers)
                lives = kernel.stopped is None and there.stopped is None
                if judged and lives and self.scene.sessions.active(home, importer):
                    self._compare(home, kernel, importer, there)

    def _compare(self, home: int, kernel: Kernel, importer: int, there: Kernel) -> None:
        permits = {permit.apid: permit for permit in _permits(there)}
        for (who, apid), grant in kernel.xpmem.exporter.grants.items():
            if who == importer and apid in permits:
                mapped = {each.number for each in permits[apid].attachments}
                if set(grant.attachments) != mapped:
                    text = f"permit {apid:#x} has attachments {sorted(mapped)} in p{importer}"
                    self._say(home, f"{text}, and {sorted(grant.attachments)} were noted")
        for segid, segment in kernel.xpmem.exporter.segments.items():
            held = {
                page
                for first, count in segment.table.held_by(importer, 0, segment.pages)
                for page in range(first, first + count)
            }
            imported = there.xpmem.imports.find(segid)
            known = (
                set() if imported is None else set(imported.table.known(0, segment.pages).tolist())
            )
            shown = (
                set()
                if imported is None
                else {
                    page
                    for each in imported.attachments.values()
                    for page in range(each.pages[0], sum(each.pages))
                }
            )
            # Of pages that are shown an answer may have been dropped: they go with what shows them.
            if not known <= held <= known | shown:
                text = f"pages {sorted(held)[:9]} of segment {segid:#x} are noted as held"
                self._say(home, f"{text} by p{importer}, which knows {sorted(known)[:9]}")

    def _check_areas(self, partid: int, kernel: Kernel) -> None:
        held = {permit.apid for permit in _permits(kernel)}
        for mm in kernel.memory.address_spaces.values():
            for vma in mm.vmas.intersecting(0, _TOP):
                permit = getattr(vma.ops, "permit", None)
                if permit is not None and permit.apid not in held:
                    self._say(partid, f"an attachment outlived permit {permit.apid:#x}")

    def _say(self, partid: int, text: str) -> None:
        self.report(Invariant.S15, partid, text)


def _shown(vma: Vma) -> int:
    """The permit of the attachment that an area shows, or is a severed piece of; 0 when of none."""
    permit = getattr(getattr(vma.ops, "attachment", vma.ops), "permit", None)
    return 0 if permit is None else int(permit.apid)


def _permits(kernel: Kernel) -> Iterator[Any]:
    """Every permit of every task."""
    for group in kernel.xpmem.device.groups.values():
        yield from group.permits.values()
