"""Slips of what must be refused: whose permit or segment it is, modes, lengths."""

from xpmem_emu.sim.mutations.slip import slip
from xpmem_emu.xpmem.get import AttachCalls
from xpmem_emu.xpmem.make import MakeCalls

strangers_release = slip(AttachCalls, "own_permit", "ident.tgid != process.pid", "False")
strangers_attach = slip(
    AttachCalls, "_refused", "if permit.group.tgid != process.pid:", "if False:"
)
strangers_remove = slip(
    MakeCalls, "remove", "if not here or ident.tgid != process.pid:", "if not here:"
)
odd_mode_taken = slip(MakeCalls, "make", "permit_value & ~0o777", "permit_value & ~0o7777")
empty_segment_made = slip(MakeCalls, "make", "if size == 0:", "if False:")
unaligned_segment_made = slip(
    MakeCalls, "make", "vaddr & PAGE_MASK or size & PAGE_MASK", "vaddr & PAGE_MASK"
)
segment_beyond_end = slip(MakeCalls, "make", "vaddr + size > TASK_SIZE", "vaddr > TASK_SIZE")
