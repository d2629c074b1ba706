"""Slips of looking again: what was true before a sleep is taken to be true after it."""

from xpmem_emu.mm import fault, migrate
from xpmem_emu.sim.mutations.slip import slip
from xpmem_emu.xpc import control
from xpmem_emu.xpmem.access_server import AccessServer
from xpmem_emu.xpmem.exporter import Exporter
from xpmem_emu.xpmem.fault import ImporterFaults
from xpmem_emu.xpmem.get import AttachCalls
from xpmem_emu.xpmem.importer import Importer

no_second_look_at_grant = slip(
    Exporter, "_make_known", "_require_alive(grant)  # after the sleep", "pass"
)
pinned_after_release = slip(
    Exporter, "_pin", "[(first, count)] if grant.live and segment.live else []", "[(first, count)]"
)
access_after_release = slip(
    AccessServer,
    "_reach",
    "self._firewall.require_live(grant)\n        if mm.vmas.find",
    "if mm.vmas.find",
)
attach_of_released = slip(AttachCalls, "_map", "if not permit.live:  # while", "if False:  # while")
attach_unwatched = slip(AttachCalls, "_map", "permit.attachments.append(attachment)", "pass")
gone_attachment_used = slip(ImporterFaults, "_accept", "if not attachment.live:", "if False:")
lost_faults_installed = slip(
    Importer, "lose", "self._faults.invalidate(imported, everything)", "pass"
)
entry_changed_meanwhile = slip(
    fault,
    "_unchanged",
    "read_range(first, len(expected)) == expected",
    "read_range(first, len(expected)) >= 0",
)
migrate_takes_held = slip(
    migrate,
    "_move",
    "transit.quiet(old, in_file) & ~allocator.spoilt(old)",
    "~allocator.spoilt(old)",
)
any_boot_proves = slip(
    control, "_newer", "if left >> EPOCH_BITS == incarnation >> EPOCH_BITS:", "if True:"
)
