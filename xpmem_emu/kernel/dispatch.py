"""From a typed call to the code that carries it out.

The handlers are grouped by subject (tasks, memory, files, xpmem, looking); each group lists the
call types that it serves. This module only finds them.
"""

import errno
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from xpmem_emu.codec import Buffer
from xpmem_emu.errors import KernelError
from xpmem_emu.kernel.calls import Call, Exit, Kill, Reclaim, Value
from xpmem_emu.kernel.calls_breaking import BreakingCalls
from xpmem_emu.kernel.calls_files import FileCalls
from xpmem_emu.kernel.calls_look import LookCalls
from xpmem_emu.kernel.calls_memory import MemoryCalls
from xpmem_emu.kernel.calls_tasks import TaskCalls
from xpmem_emu.kernel.calls_xpmem import XpmemCalls
from xpmem_emu.kernel.tasks import Task

if TYPE_CHECKING:
    from xpmem_emu.kernel.kernel import Kernel

Returned = tuple[Value, Buffer]
Handler = Callable[[Any, Any, Buffer], Awaitable[Returned]]
"""(call, its task or None, bulk) -> (value, bulk)."""


class Dispatcher:
    """All calls of one kernel."""

    def __init__(self, kernel: "Kernel") -> None:
        self._kernel = kernel
        self._handlers: dict[type[Call], Handler] = {}
        groups = (TaskCalls, MemoryCalls, FileCalls, XpmemCalls, LookCalls, BreakingCalls)
        for group in groups:
            self._handlers |= group(kernel).handlers()

    def task_of(self, call: Call) -> Task | None:
        """The task that makes the call. Exit and Kill are done to a task, not by it; a Reclaim that
        names no task is for all. Raises KernelError ESRCH, EINTR."""
        pid = getattr(call, "pid", None)
        if pid is None or isinstance(call, Exit | Kill) or (isinstance(call, Reclaim) and not pid):
            return None
        task = self._kernel.tasks.find(pid)
        if task.executing is not None:
            raise KernelError(errno.EINTR, task.ending(), "wait for the answer of the exec")
        return task

    async def run(self, call: Call, task: Task | None, bulk: Buffer) -> Returned:
        """Carry out `call`. Raises KernelError and Signalled."""
        handler = self._handlers.get(type(call))
        if handler is None:
            raise KernelError(errno.ENOSYS, f"{type(call).__name__} is not a call of this kernel")
        return await handler(call, task, bulk)
