"""Secondary MMUs that keep, or bring in, what is not there any more."""

from contextlib import AbstractContextManager
from functools import partial
from typing import Any
from unittest.mock import patch

from xpmem_emu.mm.designs import Deferred, Gathered, PerTable, RangeStartEnd
from xpmem_emu.mm.notifier import NotifierChain
from xpmem_emu.mmu.gru import Gru, GruContext
from xpmem_emu.mmu.guest import Guest
from xpmem_emu.mmu.mirror import Mirror
from xpmem_emu.mmu.secondary import SecondaryMmu
from xpmem_emu.mmu.shadow import ShadowMmu
from xpmem_emu.sim.mutations.slip import slip
from xpmem_emu.xpmem.exporter import Exporter

flush_missed = slip(
    GruContext, "drop", "self._gru.flush(self.asid, start >> PAGE_SHIFT, end >> PAGE_SHIFT)", "0"
)
flush_too_short = slip(Gru, "flush", "first <= key[1] < end", "first == key[1]")
asid_reused = slip(Gru, "_next", "self._entries.clear()", "pass")
retry_forgotten = slip(ShadowMmu, "fault", "if self.read_retry(address, sequence):", "if False:")
sequence_stands_still = slip(ShadowMmu, "drop", "self.sequence += 1", "pass")
in_progress_ignored = slip(Guest, "read_retry", " or self.active(address, address + 1)", "")
interval_too_short = slip(Mirror, "watches", "start < self.end", "start <= self.start")
range_stays_active = slip(
    SecondaryMmu,
    "invalidate_range_sync",
    "left for span in self._active for left in _outside(span, (start, end))",
    "span for span in self._active",
)
references_kept = slip(Guest, "_forget", "frames.unshadow(_frames(word))", "frames")
flush_forgotten = slip(Gathered, "flush", "mm.notifiers.invalidate_range(start, end)", "pass")
last_range_gathered = slip(Deferred, "_note", "min(low, start), max(high, end)", "start, end")
start_forgotten = slip(
    RangeStartEnd, "start", "await client.invalidate_range_start(start, end)", "pass"
)
fault_ignores_range = slip(Exporter, "_quiet", "or segment.invalidated(page)\n", "\n")
table_told_short = slip(PerTable, "_pieces", "(table + 1) * size", "table * size + 4096")


def miss_does_not_wait() -> AbstractContextManager[Any]:
    """Nobody looks whether a range is active, before the walk or after."""
    return patch.object(GruContext, "active", lambda self, start, end: False)


def ack_before_chain() -> AbstractContextManager[Any]:
    """The importer acknowledges first; its devices hear of it a little later."""

    def late(self: NotifierChain, start: int, end: int) -> None:
        for client in self.registered:
            told = partial(client.invalidate_special, start, end)
            if isinstance(client, SecondaryMmu):
                clock = client.mm.context.scheduler
                clock.call_at(clock.now_ns + 1, told)
            else:
                told()

    return patch.object(NotifierChain, "invalidate_special", late)
