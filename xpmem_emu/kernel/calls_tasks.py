"""Calls about tasks and about the kernel as a whole."""

import errno
from typing import TYPE_CHECKING

from xpmem_emu.codec import Buffer
from xpmem_emu.errors import KernelError, Signal, SignalInfo
from xpmem_emu.kernel.calls import Exec, Exit, Fork, Kill, Setuid, Shutdown, Spawn
from xpmem_emu.kernel.tasks import Task, TaskState
from xpmem_emu.xpc.reasons import Reason

if TYPE_CHECKING:
    from xpmem_emu.kernel.calls import Call
    from xpmem_emu.kernel.dispatch import Handler, Returned
    from xpmem_emu.kernel.kernel import Kernel


class TaskCalls:
    """spawn, fork, exec, exit, kill, setuid, shutdown."""

    def __init__(self, kernel: "Kernel") -> None:
        self._kernel = kernel

    def handlers(self) -> "dict[type[Call], Handler]":
        """What serves which call."""
        return {
            Spawn: self._spawn,
            Fork: self._fork,
            Exec: self._exec,
            Exit: self._exit,
            Kill: self._kill,
            Setuid: self._setuid,
            Shutdown: self._shutdown,
        }

    async def _spawn(self, call: Spawn, task: None, bulk: Buffer) -> "Returned":
        capable = call.uid == 0 if call.cap_ipc_owner is None else call.cap_ipc_owner
        spawned = self._kernel.tasks.spawn(call.name, call.uid, call.gids, capable, call.handled)
        return spawned.pid, b""

    async def _fork(self, call: Fork, task: Task, bulk: Buffer) -> "Returned":
        child = await self._kernel.tasks.fork(task)
        return child.pid, b""

    async def _exec(self, call: Exec, task: Task, bulk: Buffer) -> "Returned":
        await self._kernel.tasks.exec(task)
        return None, b""

    async def _exit(self, call: Exit, task: None, bulk: Buffer) -> "Returned":
        ending = self._kernel.tasks.find(call.pid)
        self._kernel.tasks.end(ending, None, f"exited with status {call.status}")
        await ending.gone.wait()
        return None, b""

    async def _kill(self, call: Kill, task: None, bulk: Buffer) -> "Returned":
        try:
            signal = Signal(call.signal)
        except ValueError:
            names = ", ".join(f"{signal.name} {signal.value}" for signal in Signal)
            raise KernelError(
                errno.EINVAL, f"signal {call.signal} is not simulated", names
            ) from None
        target = self._kernel.tasks.find(call.pid)
        self._kernel.kill(call.pid, SignalInfo(signal, call.reason))
        if target.state is not TaskState.RUNNING:
            await target.gone.wait()
        return None, b""

    async def _setuid(self, call: Setuid, task: Task, bulk: Buffer) -> "Returned":
        task.become(call.uid, call.gids)
        return None, b""

    async def _shutdown(self, call: Shutdown, task: None, bulk: Buffer) -> "Returned":
        self._kernel.stopping = True
        ending = list(self._kernel.tasks)
        for each in ending:
            self._kernel.kill(each.pid, SignalInfo(Signal.SIGKILL, call.reason))
        for each in ending:
            await each.gone.wait()
        await self._kernel.xpc.shutdown(Reason.UNLOADING)
        return None, b""
