"""S18, when nothing is under way: then no account says that something is.

No call is unanswered and no message is on its way; tasks still have what they have. Then no fault,
recall, request, goodbye or transit is under way, no place is reserved, no slot taken, nobody waits
on a queue and nobody holds a lock, whatever counts it.
"""

from collections.abc import Iterator

from xpmem_emu.judge.invariants import Invariant, Judge
from xpmem_emu.judge.scene import Scene
from xpmem_emu.kernel.kernel import Kernel
from xpmem_emu.mmu.secondary import devices_of

JUDGE = Judge(
    "quiet",
    (Invariant.S18,),
    "every count of what is under way, places reserved, locks and queues, when no call is left",
)
_XPC = ("slots", "waiting")


def check_quiet(scene: Scene) -> None:
    """Look at every partition that runs."""
    for partid, kernel in scene.kernels.items():
        if kernel.stopped is None and partid not in scene.injuries.forgers:
            left = {what: count for what, count in _accounts(kernel) if count}
            if left:
                scene.report(Invariant.S18, partid, f"nothing is under way, and there are {left}")


def _accounts(kernel: Kernel) -> Iterator[tuple[str, int]]:
    yield from _sharing(kernel)
    memory = kernel.memory
    yield "operations on memory", memory.operations
    yield "frames on loan", memory.loans
    yield "waiters for memory", len(memory.changed)
    for mm in memory.address_spaces.values():
        lock = mm.mmap_lock
        yield "users of mmap_locks", len(lock._readers) + len(lock._waiters) + bool(lock.writer)
        for device in devices_of(mm):
            yield "ranges that devices take for active", len(device._active)
            yield "misses of devices that wait", len(device._settled)
    xpc = kernel.xpc.audit()
    yield from ((f"{each} of xpc", xpc[each]) for each in _XPC)
    yield "calls that have a place", sum(kernel._admission.under_way.values())
    yield "children being made", len(kernel.tasks._forking)
    for task in kernel.tasks:
        yield "threads of tasks", len(task.threads) + len(task.idle)
        yield "tasks in exec", task.executing is not None


def _sharing(kernel: Kernel) -> Iterator[tuple[str, int]]:
    xpmem = kernel.xpmem
    yield "faults in flight", xpmem.faults.inflight
    yield "waiters for faults", len(xpmem.faults._place)
    yield "accesses by message", xpmem.far.under_way
    for imported in xpmem.imports.all():
        yield "faults on segments", len(imported.inflight)
        yield "pages being given back", len(imported.evictions)
        yield "waiters for pages", len(imported.changed)
        yield "answers to come", 0 if imported.gone else imported.left.total()
    for segment in xpmem.exporter.segments.values():
        yield "recalls", len(segment.recalls)
        yield "requests for pages", len(segment.requests)
        yield "waiters for segments", len(segment.changed)
    for group in xpmem.device._notifiers:
        yield "places for permits", group.getting
        yield "places for pins", group.pinning
        yield "recalls of groups", len(group.recalls)
        yield "waiters for groups", len(group.changed)
