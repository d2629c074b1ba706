"""What exporter and importer owe each other: recalls, entries, holders, permits."""

from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

from xpmem_emu.mm.atomic import atomic
from xpmem_emu.sim.mutations.patches import together
from xpmem_emu.sim.mutations.slip import slip
from xpmem_emu.xpc.messages import Ack, Invalidate, InvalidateAck, Release
from xpmem_emu.xpmem import access_server, fault
from xpmem_emu.xpmem.exporter import Exporter
from xpmem_emu.xpmem.fault import ImporterFaults
from xpmem_emu.xpmem.ids import IdParts
from xpmem_emu.xpmem.importer import Importer
from xpmem_emu.xpmem.objects import ImportedSegment, InFlight
from xpmem_emu.xpmem.pfn_table import PfnTable
from xpmem_emu.xpmem.recall import Recalls

_ZAP_LATE_NS = 3_000_000


def install_invalid() -> AbstractContextManager[Any]:
    """Pages of in-flight faults are not marked."""
    return patch.object(InFlight, "spoil", lambda self, pages: False)


def zap_one_attachment() -> AbstractContextManager[Any]:
    """Of several attachments that show a page only the first loses its entry."""
    zap = Importer._zap

    def lazy(self: Importer, imported: ImportedSegment, ranges: Any) -> int:
        everything = dict(imported.attachments)
        for number in list(everything)[1:]:
            del imported.attachments[number]
        try:
            return zap(self, imported, ranges)
        finally:
            imported.attachments.clear()
            imported.attachments.update(everything)

    return patch.object(Importer, "_zap", lazy)


def free_before_ack() -> AbstractContextManager[Any]:
    """Holders are told, but nobody waits."""
    tell = Recalls._tell

    async def hasty(self: Recalls, plan: Any) -> list[int]:
        async def later() -> None:
            await tell(self, plan)

        self._services.scheduler.spawn("hasty", later())
        return []

    return patch.object(Recalls, "_tell", hasty)


def ack_before_zap() -> AbstractContextManager[Any]:
    """The acknowledgement leaves, the entries go a little later."""
    invalidate = Importer.invalidate

    def early(self: Importer, home: int, message: Invalidate) -> InvalidateAck:
        async def later() -> None:
            scheduler = self._services.scheduler
            await scheduler.sleep_until(scheduler.now_ns + _ZAP_LATE_NS)
            invalidate(self, home, message)

        if home == self._services.partid:
            return invalidate(self, home, message)
        self._services.scheduler.spawn("late", later())
        return InvalidateAck()

    return patch.object(Importer, "invalidate", early)


def forget_holder() -> AbstractContextManager[Any]:
    """A partition is noted as a holder only of pages that nobody else holds."""
    hold = PfnTable.hold

    def forgetful(self: PfnTable, partid: int, page: int, count: int) -> Any:
        if any(other != partid for other in self.holders()):
            return self.extents(page, count)
        return hold(self, partid, page, count)

    return patch.object(PfnTable, "hold", forgetful)


def evict_overtakes_fault() -> AbstractContextManager[Any]:
    """Pages that are being given back may be asked for again at once."""

    def impatient(self: ImportedSegment, pages: Any) -> bool:
        return any(
            fault.pages[0] < pages[0] + pages[1] and pages[0] < sum(fault.pages)
            for fault in self.inflight
        )

    meets = slip(
        ImporterFaults,
        "_clip",
        "taken += [eviction.pages for eviction in imported.evictions]",
        "pass",
    )
    return together(patch.object(ImportedSegment, "busy", impatient), meets())


def release_keeps_holders() -> AbstractContextManager[Any]:
    """The exporter forgets the permit and keeps the pages pinned."""

    def keeping(self: Exporter, importer: int, request: Release) -> Ack:
        grant = self.grants.get((importer, request.apid))
        if grant is not None:
            self.firewall.end(grant, "the permit was released")
        return Ack()

    return patch.multiple(Exporter, _release=keeping, _detach=_detach_keeping)


def _detach_keeping(self: Exporter, importer: int, request: Any) -> Ack:
    grant = self.grants.get((importer, request.apid))
    if grant is not None:
        grant.attachments.pop(request.attachment, None)
    return Ack()


def unpin_twice() -> AbstractContextManager[Any]:
    """What a recall gives back is given back again."""
    unpin = Recalls.unpin

    def double(self: Recalls, segment: Any, frames: Any) -> None:
        unpin(self, segment, frames)
        unpin(self, segment, frames)

    return patch.object(Recalls, "unpin", double)


def lose_without_zap() -> AbstractContextManager[Any]:
    """When a home is lost its pages stay mapped."""
    lose = Importer.lose

    def careless(self: Importer, home: int, reason: str) -> None:
        with patch.object(Importer, "_zap", lambda self, imported, ranges: 0):
            lose(self, home, reason)

    return patch.object(Importer, "lose", careless)


def amo_twice() -> AbstractContextManager[Any]:
    """The exporter carries additions of importers out twice."""

    async def twice(mm: Any, address: int, operation: Any, operand: int, compare: int) -> int:
        if operation.name == "ADD":
            await atomic(mm, address, operation, operand, compare)
        return await atomic(mm, address, operation, operand, compare)

    return patch.object(access_server, "atomic", twice)


def stale_ids() -> AbstractContextManager[Any]:
    """Ids look the same after a reboot."""

    def pack(self: IdParts) -> int:
        return self.partid << 48 | 1 << 40 | self.tgid << 20 | self.uniq

    return patch.object(IdParts, "pack", pack)


def read_only_ignored() -> AbstractContextManager[Any]:
    """Entries are writable although the exporter may only read the page."""
    return patch.object(fault, "EXTENT_READ_ONLY", 0)


def grants_outlive() -> AbstractContextManager[Any]:
    """The permits of a lost importer stay granted."""
    return patch.object(Exporter, "forget_importer", lambda self, importer: None)


def release_forgets_to_tell() -> AbstractContextManager[Any]:
    """The exporter never learns that a permit was released."""

    def keeping(self: Exporter, importer: int, request: Release) -> Ack:
        grant = self.grants.get((importer, request.apid))
        if grant is not None:
            self.drop(grant.segment, importer, [(0, grant.segment.pages)])
        return Ack()

    return patch.object(Exporter, "_release", keeping)


def pins_unlimited() -> AbstractContextManager[Any]:
    """The limit on pinned pages is not looked at."""
    return patch.object(Exporter, "_within_limit", lambda self, segment, touched, pages: pages)
