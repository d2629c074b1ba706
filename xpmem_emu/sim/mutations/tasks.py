"""Tasks, their calls and their ends."""

from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

from xpmem_emu.kernel.admission import Admission
from xpmem_emu.kernel.kernel import Kernel
from xpmem_emu.kernel.tasks import Task, TaskTable
from xpmem_emu.mm.lifecycle import exit_mmap, fork
from xpmem_emu.mm.mm_types import AddressSpace
from xpmem_emu.sim.mutations.patches import everywhere, together
from xpmem_emu.xpmem.device import Device


def teardown_has_two_owners() -> AbstractContextManager[Any]:
    """Who finds a device being closed takes it for closed; and exec does not wait for close."""
    teardown = Device._teardown

    async def hasty(self: Device, group: Any) -> None:
        if group.live:
            await teardown(self, group)

    return together(patch.object(Device, "_teardown", hasty), exec_leaves_calls())


def exec_leaves_calls() -> AbstractContextManager[Any]:
    """exec replaces the address space under the other calls of its task."""

    async def hasty(self: TaskTable, task: Task) -> None:
        old, task.mm = task.mm, self._memory.new_address_space(task.pid)
        await exit_mmap(old)

    return patch.object(TaskTable, "exec", hasty)


def killed_fork_lives() -> AbstractContextManager[Any]:
    """A fork that slept forgets that its task was killed meanwhile."""

    async def forgetful(mm: AddressSpace, pid: int) -> AddressSpace:
        child = await fork(mm, pid)
        thread = mm.context.scheduler.current
        assert thread is not None
        thread.killed = False
        return child

    return everywhere(fork, forgetful)


def healing_needs_places() -> AbstractContextManager[Any]:
    """Who heals or ends something waits in line with those that he would let go."""

    def full(self: Admission, purpose: Any) -> bool:
        return len(self._scheduler.threads) >= self.limit

    return patch.object(Admission, "full", full)


def stop_answers_nobody() -> AbstractContextManager[Any]:
    """A kernel that stops leaves its calls unanswered."""

    def silent(self: Kernel, stopped: Any) -> None:
        self.stopped = stopped
        self.scheduler.close()

    return patch.object(Kernel, "_stop", silent)
