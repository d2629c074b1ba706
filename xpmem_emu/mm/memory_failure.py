"""Frames that go bad, and are good again: somebody outside says which (sources T17)."""

import errno

from xpmem_emu.errors import KernelError
from xpmem_emu.mm.mm_types import MemoryContext
from xpmem_emu.mm.pte import PARTID_SHIFT

POISONED_MAX = 4096
"""Every access looks at each of them."""


def poison_frame(context: MemoryContext, home: int, frame: int) -> None:
    """Frame `frame` of partition `home` went bad. Raises KernelError EINVAL, ENOSPC."""
    context.physical.require_frame(home, frame)
    if len(context.physical.poisoned) >= POISONED_MAX:
        raise KernelError(errno.ENOSPC, f"{POISONED_MAX} frames are poisoned, heal some")
    if home == context.partid:
        context.frames.poison(frame)
    context.physical.poisoned.add(home << PARTID_SHIFT | frame)


def unpoison_frame(context: MemoryContext, home: int, frame: int) -> None:
    """The frame is good again. Raises KernelError EINVAL."""
    context.physical.require_frame(home, frame)
    if home == context.partid:
        context.frames.unpoison(frame)
    context.physical.poisoned.discard(home << PARTID_SHIFT | frame)
