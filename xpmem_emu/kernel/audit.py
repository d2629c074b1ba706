"""Counting what is in use, and comparing everything that must agree.

`audit` gives the counts: the same before and after, or something leaked (S3, S10). Every count is
zero on an idle kernel without tasks, except those that describe the machine.

`check` compares every index and count of the kernel with what it stands for, as DEBUG_VM does:
memory (mm/audit, mm/audit_areas), cross-partition memory (xpmem/audit), requests in flight
(xpc/xpc), and here tasks, threads and calls. A kernel with audits on does so after every step in
which something happened. A difference is a KernelBug that names both numbers.
"""

import numpy as np

from xpmem_emu.errors import KernelBug
from xpmem_emu.kernel.kernel import Kernel
from xpmem_emu.kernel.tasks import Task, TaskState
from xpmem_emu.mm.audit import audit_memory, compare
from xpmem_emu.mmu.gru import GruContext
from xpmem_emu.mmu.guest import Guest
from xpmem_emu.mmu.secondary import devices_of
from xpmem_emu.xpmem.audit import check_xpmem


def check_kernel(kernel: Kernel) -> None:
    """Raises KernelBug with the first difference."""
    audit_memory(kernel.memory)
    check_xpmem(kernel.xpmem, kernel.services)
    kernel.xpc.check()
    _check_tasks(kernel)
    _check_threads(kernel)
    _check_devices(kernel)


def audit_kernel(kernel: Kernel) -> dict[str, int]:
    """The counts. Raises KernelBug when any of them disagree."""
    check_xpmem(kernel.xpmem, kernel.services)
    kernel.xpc.check()
    xpmem = kernel.xpmem
    segments = list(xpmem.exporter.segments.values())
    imports = xpmem.imports.all()
    counts = {
        "tasks": len(kernel.tasks),
        "groups": len(xpmem.device.groups),
        "segments": len(segments),
        "grants": len(xpmem.exporter.grants),
        "imports": len(imports),
        "permits": sum(len(imported.permits) for imported in imports),
        "attachments": sum(len(imported.attachments) for imported in imports),
        "imported_pages": sum(imported.table.pages for imported in imports),
        "inflight_faults": xpmem.faults.inflight,
        "far_accesses": xpmem.far.under_way,
        "evictions": sum(len(imported.evictions) for imported in imports),
        "page_requests": sum(len(segment.requests) for segment in segments),
        "recalls": sum(len(segment.recalls) for segment in segments),
        "pins": kernel.memory.frames.pinned,
        "quarantined": sum(xpmem.fence.quarantined().values()),
        "calls": kernel.calls_pending,
        "devices": sum(len(devices_of(mm)) for mm in kernel.memory.address_spaces.values()),
    }
    memory = {f"mm_{key}": value for key, value in audit_memory(kernel.memory).items()}
    xpc = {f"xpc_{key}": value for key, value in kernel.xpc.audit().items()}
    return counts | memory | xpc


def _check_tasks(kernel: Kernel) -> None:
    """Every address space is of a task, unless it is being made or is on its way out."""
    spaces = kernel.memory.address_spaces
    pids = {task.pid for task in kernel.tasks}
    for task in kernel.tasks:
        if spaces.get(task.mm.number) is not task.mm and task.state is TaskState.RUNNING:
            raise KernelBug(f"audit: the address space of task {task.pid} is not listed")
        if task.mm.dead and task.state is TaskState.RUNNING:
            raise KernelBug(f"audit: task {task.pid} runs in a dead address space")
        group = kernel.xpmem.device.groups.get(task.pid)
        if group is not None and group.getting > len(task.threads):
            calls = len(task.threads)
            raise KernelBug(
                f"audit: {group.getting} permits asked for in {calls} calls of {task.pid}"
            )
        if task.executing is not None and task.executing not in task.threads:
            raise KernelBug(f"audit: the exec of task {task.pid} is no call of it")
    for mm in spaces.values():
        if not mm.dead and mm.pid not in pids and not kernel.tasks.forking(mm.pid):
            raise KernelBug(f"audit: address space {mm.number} is of no task, not of {mm.pid}")


def _check_devices(kernel: Kernel) -> None:
    """The GRU's contexts are those of address spaces, and guests hold the references they count."""
    devices = [each for mm in kernel.memory.address_spaces.values() for each in devices_of(mm)]
    contexts = {each.asid: each for each in devices if isinstance(each, GruContext)}
    if contexts != kernel.gru.contexts:
        raise KernelBug(f"audit: the GRU has contexts {sorted(kernel.gru.contexts)}")
    held = np.zeros(kernel.memory.frames.total, dtype=np.int64)
    for guest in devices:
        if isinstance(guest, Guest):
            np.add.at(held, guest.referred(), 1)
    compare("references of guests to frame", held, kernel.memory.frames.shadowed)


def _check_threads(kernel: Kernel) -> None:
    """Threads sleep, hold no spinlock, and are known to the task that owns them; who was let in is
    still to be answered."""
    threads = kernel.scheduler.threads
    for thread in threads:
        if not thread.parked:
            raise KernelBug(f"audit: thread {thread.name} does not sleep after a step")
        for lock in thread.held:
            if lock.atomic:
                raise KernelBug(f"audit: thread {thread.name} sleeps with {lock.name}")
        owner = thread.owner
        if isinstance(owner, Task) and thread not in owner.threads:
            raise KernelBug(f"audit: task {owner.pid} does not know its thread {thread.name}")
    inside = sum(kernel._admission.under_way.values())
    if inside != kernel.calls_pending:
        raise KernelBug(f"audit: {inside} calls let in, {kernel.calls_pending} calls pending")
    owned = 0
    for task in kernel.tasks:
        for thread in task.threads:
            owned += 1
            if thread.owner is not task or thread not in threads:
                raise KernelBug(f"audit: thread {thread.name} is not of task {task.pid}")
    if owned > kernel.calls_pending:
        raise KernelBug(f"audit: {owned} threads of tasks, {kernel.calls_pending} calls pending")
