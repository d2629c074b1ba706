"""Calls about tasks and about the kernel as a whole."""

import errno

from xpmem_emu.codec import Buffer
from xpmem_emu.errors import KernelError, Signal, SignalInfo
from xpmem_emu.kernel.calls import Exec, Exit, Fork, Kill, Setuid, Shutdown, Spawn
from xpmem_emu.kernel.kernel import Handlers, Kernel, Returned
from xpmem_emu.kernel.tasks import Task, TaskState
from xpmem_emu.xpc.reasons import Reason


async def _spawn(kernel: Kernel, call: Spawn, task: None, bulk: Buffer) -> Returned:
    capable = call.uid == 0 if call.cap_ipc_owner is None else call.cap_ipc_owner
    spawned = kernel.tasks.spawn(call.name, call.uid, call.gids, capable, call.handled)
    return spawned.pid, b""


async def _fork(kernel: Kernel, call: Fork, task: Task, bulk: Buffer) -> Returned:
    child = await kernel.tasks.fork(task)
    return child.pid, b""


async def _exec(kernel: Kernel, call: Exec, task: Task, bulk: Buffer) -> Returned:
    await kernel.tasks.exec(task)
    return None, b""


async def _exit(kernel: Kernel, call: Exit, task: None, bulk: Buffer) -> Returned:
    ending = kernel.tasks.find(call.pid)
    kernel.tasks.end(ending, None, f"exited with status {call.status}")
    await ending.gone.wait()
    return None, b""


async def _kill(kernel: Kernel, call: Kill, task: None, bulk: Buffer) -> Returned:
    try:
        signal = Signal(call.signal)
    except ValueError:
        names = ", ".join(f"{signal.name} {signal.value}" for signal in Signal)
        raise KernelError(errno.EINVAL, f"signal {call.signal} is not simulated", names) from None
    target = kernel.tasks.find(call.pid)
    kernel.kill(call.pid, SignalInfo(signal, call.reason))
    if target.state is not TaskState.RUNNING:
        await target.gone.wait()
    return None, b""


async def _setuid(kernel: Kernel, call: Setuid, task: Task, bulk: Buffer) -> Returned:
    task.become(call.uid, call.gids)
    return None, b""


async def _shutdown(kernel: Kernel, call: Shutdown, task: None, bulk: Buffer) -> Returned:
    kernel.stopping = True
    ending = list(kernel.tasks)
    for each in ending:
        kernel.kill(each.pid, SignalInfo(Signal.SIGKILL, call.reason))
    for each in ending:
        await each.gone.wait()
    await kernel.xpc.shutdown(Reason.UNLOADING)
    return None, b""


HANDLERS: Handlers = {
    Spawn: _spawn,
    Fork: _fork,
    Exec: _exec,
    Exit: _exit,
    Kill: _kill,
    Setuid: _setuid,
    Shutdown: _shutdown,
}
