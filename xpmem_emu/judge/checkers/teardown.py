"""S10, when all tasks have ended and all is quiet.

Counts come from the kernel's own audit call and, past it, from raw state: frames in use, pins,
threads, mapped pages.
"""

from collections.abc import Mapping

from xpmem_emu.judge.checkers.raw import foreign
from xpmem_emu.judge.invariants import Invariant, Judge
from xpmem_emu.judge.scene import Scene
from xpmem_emu.kernel.kernel import Kernel

JUDGE = Judge("teardown", (Invariant.S10,), "what is left when all tasks have ended")
FIXED = frozenset({"mm_frames_total", "calls", "xpc_remembered"})
"""The machine itself, the call that asks, and answers kept until their slot is used again."""
_PERMANENT = ("xpc_discovery", "xpc_hb")


def check_teardown(scene: Scene, partid: int, kernel: Kernel, audit: Mapping[str, int]) -> None:
    """Report what is left on a partition without tasks."""
    left = {key: count for key, count in audit.items() if count and key not in FIXED}
    frames = kernel.memory.frames
    left |= {
        f"raw {name}": count
        for name, count in (
            ("frames in use", int((frames.refcount > 0).sum())),
            ("pins", int(frames.pins.sum())),
            ("quarantined", int((frames.quarantined > 0).sum())),
            ("foreign entries", len(foreign(kernel).frames)),
        )
        if count
    }
    threads = sorted(
        thread.name
        for thread in kernel.scheduler.threads
        if thread.name not in _PERMANENT and not _is_partition(thread.name)
    )
    if threads:
        left["threads"] = len(threads)
    if left:
        scene.report(Invariant.S10, partid, f"left over: {left} {' '.join(threads[:5])}".rstrip())


def _is_partition(name: str) -> bool:
    return name.startswith("xpc") and name[3:].isdigit()
