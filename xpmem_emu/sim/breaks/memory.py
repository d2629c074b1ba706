"""The memory of one partition: stores, fork, swap, reclaim."""

from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

import numpy as np

from xpmem_emu.kernel import calls_memory
from xpmem_emu.mm import lifecycle
from xpmem_emu.mm.access import store
from xpmem_emu.mm.gather import Gather
from xpmem_emu.mm.swap import SwapArea
from xpmem_emu.mm.transit import Transit


def canary() -> AbstractContextManager[Any]:
    """Every store flips a bit."""

    async def flipped(mm: Any, address: int, data: Any) -> None:
        await store(mm, address, bytes(byte ^ 0x40 for byte in data))

    return patch.object(calls_memory, "store", flipped)


def fork_without_recall() -> AbstractContextManager[Any]:
    """fork write-protects its own entries and tells nobody."""
    copy = lifecycle._copy_area

    def silent(child: Any, gather: Gather, vma: Any) -> None:
        with patch.object(Gather, "invalidate", lambda self, mm, start, end: None):
            copy(child, gather, vma)

    return patch.object(lifecycle, "_copy_area", silent)


def swap_loses() -> AbstractContextManager[Any]:
    """Nothing reaches the swap area."""
    return patch.object(SwapArea, "write", lambda self, slots, frames, numbers: None)


def reclaim_held() -> AbstractContextManager[Any]:
    """Whoever moves pages does not look whether somebody holds them."""

    def always(self: Transit, frames: Any, cached: Any) -> Any:
        return np.ones(len(frames), dtype=np.bool_)

    return patch.object(Transit, "quiet", always)
