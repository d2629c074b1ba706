"""How each mutant breaks the kernel: one context manager each, all patches from outside.

Every one takes away one step that the protocol rests on and leaves everything else alone. Names
and meanings are in `mutants`.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

import numpy as np

from xpmem_emu.kernel import calls_memory
from xpmem_emu.mm import lifecycle
from xpmem_emu.mm.access import store
from xpmem_emu.mm.atomic import atomic
from xpmem_emu.mm.gather import Gather
from xpmem_emu.mm.swap import SwapArea
from xpmem_emu.mm.transit import Transit
from xpmem_emu.xpc import control, xpc
from xpmem_emu.xpc.answers import Arrival, ReceiveRing
from xpmem_emu.xpc.frame import FIRST_ADMIN_CODE
from xpmem_emu.xpc.messages import Ack, Invalidate, InvalidateAck, Release
from xpmem_emu.xpc.slots import SendRing
from xpmem_emu.xpmem import serving
from xpmem_emu.xpmem.exporter import Exporter
from xpmem_emu.xpmem.fence import Fence
from xpmem_emu.xpmem.ids import Ident
from xpmem_emu.xpmem.importer import Importer
from xpmem_emu.xpmem.objects import Imported, InFlight
from xpmem_emu.xpmem.pfn_table import PfnTable
from xpmem_emu.xpmem.recall import Recalls

Break = Callable[[], AbstractContextManager[Any]]
_ZAP_LATE_NS = 3_000_000


def canary() -> AbstractContextManager[Any]:
    """Every store flips a bit."""

    async def flipped(mm: Any, address: int, data: Any) -> None:
        await store(mm, address, bytes(byte ^ 0x40 for byte in data))

    return patch.object(calls_memory, "store", flipped)


def install_invalid() -> AbstractContextManager[Any]:
    """The `valid` mark of in-flight faults is not looked at."""
    return patch.object(InFlight, "valid", property(lambda self: True))


def zap_one_attachment() -> AbstractContextManager[Any]:
    """Of several attachments that show a page only the first loses its entry."""
    zap = Importer._zap

    def lazy(self: Importer, imported: Imported, ranges: Any) -> int:
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


def no_quarantine() -> AbstractContextManager[Any]:
    """No reference is taken on the frames of a lost importer."""
    return patch.object(Fence, "_keep", lambda self, session, frames: None)


def no_migration() -> AbstractContextManager[Any]:
    """The fence finds nothing to move."""
    return patch.object(Fence, "_live", lambda self, session: np.zeros(0, dtype=np.int64))


def quarantine_without_proof() -> AbstractContextManager[Any]:
    """The end of a session counts as proof that its process is gone."""
    begin = Fence.begin

    def trusting(self: Fence, importer: int, incarnation: int, reason: str) -> None:
        begin(self, importer, incarnation, reason)
        self.prove_gone(importer, incarnation, "because")

    return patch.object(Fence, "begin", trusting)


def accept_old_incarnation() -> AbstractContextManager[Any]:
    """The gate in front of XPC lets the numbered messages of every session in."""
    admit = control.admit

    def open_gate(local: Any, partition: Any, header: Any, message: Any) -> bool:
        return admit(local, partition, header, message) or message.code >= FIRST_ADMIN_CODE

    return patch.object(xpc, "admit", open_gate)


def no_dedup() -> AbstractContextManager[Any]:
    """A request that was answered is taken for a new one when it comes again."""
    admit = ReceiveRing.admit

    def forgetful(self: ReceiveRing, number: int) -> Arrival:
        arrival = admit(self, number)
        if arrival is Arrival.ANSWERED:
            self._answers.pop(self.slot_of(number))
            return Arrival.NEW
        return arrival

    return patch.object(ReceiveRing, "admit", forgetful)


def amo_twice() -> AbstractContextManager[Any]:
    """The exporter carries additions of importers out twice."""

    async def twice(mm: Any, address: int, operation: Any, operand: int, compare: int) -> int:
        if operation.name == "ADD":
            await atomic(mm, address, operation, operand, compare)
        return await atomic(mm, address, operation, operand, compare)

    return patch.object(serving, "atomic", twice)


def evict_overtakes_fault() -> AbstractContextManager[Any]:
    """Pages that are being given back may be asked for again at once."""

    def impatient(self: Imported, pages: Any) -> bool:
        return any(fault.pages[0] < pages[0] + pages[1] and pages[0] < sum(fault.pages)
                   for fault in self.inflight)

    return patch.object(Imported, "busy", impatient)


def release_keeps_holders() -> AbstractContextManager[Any]:
    """The exporter forgets the permit and keeps the pages pinned."""

    def keeping(self: Exporter, importer: int, request: Release) -> Ack:
        grant = self.grants.get((importer, request.apid))
        if grant is not None:
            self._forget(grant, "the permit was released")
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


def fork_without_recall() -> AbstractContextManager[Any]:
    """fork write-protects its own entries and tells nobody."""
    copy = lifecycle._copy_area

    def silent(child: Any, gather: Gather, vma: Any) -> None:
        with patch.object(Gather, "invalidate", lambda self, mm, start, end: None):
            copy(child, gather, vma)

    return patch.object(lifecycle, "_copy_area", silent)


def stale_ids() -> AbstractContextManager[Any]:
    """Ids look the same after a reboot."""

    def pack(self: Ident) -> int:
        return self.partid << 48 | 1 << 40 | self.tgid << 20 | self.uniq

    return patch.object(Ident, "pack", pack)


def swap_loses() -> AbstractContextManager[Any]:
    """Nothing reaches the swap area."""
    return patch.object(SwapArea, "write", lambda self, slots, frames, numbers: None)


def reclaim_held() -> AbstractContextManager[Any]:
    """Whoever moves pages does not look whether somebody holds them."""

    def always(self: Transit, frames: Any, cached: Any) -> Any:
        return np.ones(len(frames), dtype=np.bool_)

    return patch.object(Transit, "quiet", always)


def deaf_faults() -> AbstractContextManager[Any]:
    """An attempt that got no answer is neither repeated nor given up."""
    return patch.object(SendRing, "_expire", lambda self, flight: None)
