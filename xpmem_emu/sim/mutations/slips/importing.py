"""Slips of the importer: faults, what is given back, permits, attachments."""

from xpmem_emu.sim.mutations.slip import slip
from xpmem_emu.xpmem.fault import ImporterFaults
from xpmem_emu.xpmem.import_registry import ImportRegistry
from xpmem_emu.xpmem.importer import Importer
from xpmem_emu.xpmem.module import Xpmem

fault_end_wakes_nobody = slip(ImporterFaults, "_end", "imported.changed.wake_all()", "pass")
place_not_passed_on = slip(ImporterFaults, "_end", "self._place.wake_all()", "pass")
evict_end_wakes_nobody = slip(ImportRegistry, "_finish", "imported.changed.wake_all()", "pass")
one_fault_too_many = slip(
    ImporterFaults,
    "resolve",
    ">= self._services.image.limits.inflight_faults",
    "> self._services.image.limits.inflight_faults",
)
read_ahead_meets_faults = slip(
    ImporterFaults, "_clip", "taken += [fault.pages for fault in imported.inflight]", "pass"
)
spoilt_neighbours_installed = slip(
    ImporterFaults, "_ask", "outside(reply.extents, fault.spoilt)", "reply.extents"
)
release_overtakes_detach = slip(
    Importer,
    "_tell",
    "while any(eviction in imported.evictions for eviction in pending):",
    "while False:",
)
any_home_recalls = slip(
    Importer, "invalidate", "if imported is None or imported.home != home:", "if imported is None:"
)
zap_one_page_short = slip(
    Importer,
    "_zap",
    "start + (part[1] << PAGE_SHIFT)",
    "start + (max(part[1] - 1, 1) << PAGE_SHIFT)",
)
detach_keeps_entries = slip(Importer, "detach", "zap_special(mm, vma.start, vma.end)", "pass")
reaped_with_answers_out = slip(ImportRegistry, "reap", "(used or imported.left)", "used")
late_pages_kept = slip(
    Xpmem, "late_reply", "self._give_back(asked, found=not answer.errno)", "pass"
)
detach_wakes_nobody = slip(Importer, "detach", "attachment.permit.group.changed.wake_all()", "pass")
reaped_under_fault = slip(
    ImportRegistry,
    "reap",
    "imported.permits or imported.inflight or imported.evictions",
    "imported.permits or imported.evictions",
)
