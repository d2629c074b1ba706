"""From a typed call to the function that carries it out.

Which function serves which call is a table that is handed in where a kernel is put together (see
`boot`): nothing here knows the handlers, and they know the kernel.
"""

import errno
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from xpmem_emu.codec import Buffer
from xpmem_emu.errors import KernelError
from xpmem_emu.kernel.calls import Call, Exit, Kill, Reclaim, Value
from xpmem_emu.kernel.tasks import Task, TaskTable

Returned = tuple[Value, Buffer]
"""(value, bulk)."""
Handler = Callable[[Any, Any, Any, Buffer], Awaitable[Returned]]
"""(kernel, call, its task or None, bulk) -> (value, bulk)."""
Handlers = Mapping[type[Call], Handler]


def task_of(call: Call, tasks: TaskTable) -> Task | None:
    """The task that makes the call. Exit and Kill are done to a task, not by it; a Reclaim that
    names no task is for all. Raises KernelError ESRCH, EINTR."""
    pid = getattr(call, "pid", None)
    if pid is None or isinstance(call, Exit | Kill) or (isinstance(call, Reclaim) and not pid):
        return None
    task = tasks.find(pid)
    if task.executing is not None:
        raise KernelError(errno.EINTR, task.ending(), "wait for the answer of the exec")
    return task
