"""Slips of what must be refused: whose permit or segment it is, modes, lengths."""

from xpmem_emu.sim.breaks.slips import slip
from xpmem_emu.xpmem.getting import Getting
from xpmem_emu.xpmem.making import Making

strangers_release = slip(Getting, "own_permit", "ident.tgid != process.pid", "False")
strangers_attach = slip(Getting, "_refused", "if permit.group.tgid != process.pid:", "if False:")
strangers_remove = slip(
    Making, "remove", "if not here or ident.tgid != process.pid:", "if not here:"
)
odd_mode_taken = slip(Making, "make", "permit_value & ~0o777", "permit_value & ~0o7777")
empty_segment_made = slip(Making, "make", "if size == 0:", "if False:")
unaligned_segment_made = slip(
    Making, "make", "vaddr & PAGE_MASK or size & PAGE_MASK", "vaddr & PAGE_MASK"
)
segment_beyond_end = slip(Making, "make", "vaddr + size > TASK_SIZE", "vaddr > TASK_SIZE")
