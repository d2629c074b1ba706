"""Slips of waiting: somebody goes on although what it needs is not over."""

from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

from xpmem_emu.kernel.tasks import TaskTable
from xpmem_emu.mm import lifecycle
from xpmem_emu.sim.mutations.patches import together
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
fault_ignores_recall = slip(Exporter, "_quiet", "or segment.recalled(page)\n", "")


def fork_meets_transit() -> AbstractContextManager[Any]:
    """Fork looks for pages in transit more than once; none of it waits."""

    async def nothing(*_: object) -> None:
        pass

    return together(
        patch.object(lifecycle, "settle", nothing), patch.object(lifecycle, "settle_areas", nothing)
    )
