"""Slips of accounts: places, pins and rights that are not noted, not returned, or one too many."""

from xpmem_emu.mm import files, protect
from xpmem_emu.sim.mutations.slip import slip
from xpmem_emu.xpmem.blocks import _Crew
from xpmem_emu.xpmem.exporter import Exporter
from xpmem_emu.xpmem.fault import ImporterFaults
from xpmem_emu.xpmem.get import AttachCalls
from xpmem_emu.xpmem.import_registry import ImportRegistry
from xpmem_emu.xpmem.module import Xpmem
from xpmem_emu.xpmem.pfn_table import PfnTable

one_collision_too_few = slip(
    ImporterFaults,
    "resolve",
    "if collisions > self._services.image.faults.collisions:",
    "if collisions >= self._services.image.faults.collisions:",
)
one_try_too_few = slip(
    Exporter,
    "_make_known",
    "range(self._services.image.faults.collisions + 1)",
    "range(max(self._services.image.faults.collisions, 1))",
)
reservation_never_returned = slip(Exporter, "_pin", "segment.group.pinning -= pages[1]", "pass")
pin_places_not_reserved = slip(
    Exporter,
    "_within_limit",
    "segment.group.pinned - segment.group.pinning",
    "segment.group.pinned",
)
one_pin_too_many = slip(Exporter, "_within_limit", "if room < 1:", "if room < 0:")
read_ahead_leaks = slip(
    Exporter, "_pin", "self._recalls.unpin(segment, segment.table.drop_unheld(*pages))", "pass"
)
rights_remembered = slip(PfnTable, "take", "leaf.flags[lo:hi] = 0", "pass")
read_ahead_meets_evictions = slip(
    ImporterFaults, "_clip", "taken += [eviction.pages for eviction in imported.evictions]", "pass"
)
reaped_under_eviction = slip(
    ImportRegistry,
    "reap",
    "imported.permits or imported.inflight or imported.evictions",
    "imported.permits or imported.inflight",
)
late_get_kept = slip(Xpmem, "late_reply", "self.homes.tell(partid, session, Release(apid))", "pass")
late_attach_kept = slip(
    Xpmem, "late_reply", "self.homes.tell(partid, session, Detach(apid, number, []))", "pass"
)
failed_attach_untold = slip(
    AttachCalls,
    "attach",
    "self._homes.tell(imported.home, imported.incarnation, Detach(apid, number, []))",
    "pass",
)
protect_of_some = slip(protect, "mprotect", "require_covered(mm, start, end)", "pass")
blocks_made_at_once = slip(_Crew, "__init__", "iter(blocks)", "iter(list(blocks))")
empty_write_extends = slip(files, "pwrite", "if not len(data):", "if False:")
