"""Slips of the exporter: recalls, pins, grants, fences, segments."""

from xpmem_emu.sim.mutations.slip import slip
from xpmem_emu.xpmem.device import Device
from xpmem_emu.xpmem.exporter import Exporter
from xpmem_emu.xpmem.fence import Fence
from xpmem_emu.xpmem.make import MakeCalls
from xpmem_emu.xpmem.recall import Recalls

pins_never_returned = slip(Recalls, "unpin", "segment.group.pinned -= len(frames)", "pass")
detach_forgets_attachment = slip(
    Exporter, "_detach", "grant.attachments.pop(request.attachment, None)", "pass"
)
fence_end_wakes_nobody = slip(Fence, "_migrate", "self._moved.wake_all()  # what", "pass  # what")
close_does_not_wait_for_fence = slip(
    Device, "_torn_down", "await self._fence.passed(group, 0, TASK_SIZE)", "pass"
)
remove_does_not_wait_for_fence = slip(
    MakeCalls,
    "remove",
    "await self._fence.passed(segment.group, segment.vaddr, segment.vaddr + segment.size)",
    "pass",
)
own_imports_not_recalled = slip(Recalls, "begin", "self._drop_local(Invalidate([local]))", "pass")
others_recalls_not_awaited = slip(
    Recalls, "settle", "while pages is not None and segment.recalled(pages):", "while False:"
)
recall_end_wakes_nobody = slip(Recalls, "_run", "recall.segment.changed.wake_all()", "pass")
sequence_not_bumped = slip(Recalls, "begin", "segment.sequence += 1", "pass")
