"""Slips of waiting: somebody goes on although what it needs is not over."""

from xpmem_emu.kernel.tasks import TaskTable
from xpmem_emu.mm import lifecycle
from xpmem_emu.sim.mutations.slip import slip
from xpmem_emu.xpmem.device import Device
from xpmem_emu.xpmem.exporter import Exporter
from xpmem_emu.xpmem.fence import Fence
from xpmem_emu.xpmem.importer import Importer

release_waits_for_nobody = slip(Importer, "release", "while permit.attachments:", "while False:")
teardown_waits_for_nobody = slip(
    Device, "_teardown", "while group.permits or group.segments:", "while False:"
)
fence_tries_once = slip(Fence, "_migrate", "while len(live := ", "if len(live := ")
exit_does_not_wait_for_fence = slip(
    lifecycle, "exit_mmap", "await client.invalidate_range_end(0, TASK_SIZE)", "pass"
)
exit_waits_for_no_call = slip(TaskTable, "_reap", "while task.threads:", "while False:")
exec_keeps_killed = slip(
    TaskTable, "exec", "await task.idle.wait_killable() is", "await task.idle.wait() is"
)
exec_kills_nobody = slip(TaskTable, "exec", "self._scheduler.kill(thread)", "pass")
fork_meets_transit = slip(
    lifecycle, "fork", "await settle(mm, 0, TASK_SIZE)\n        if mm", "if mm"
)
fault_ignores_recall = slip(Exporter, "_quiet", "or segment.recalled(page)\n", "")
