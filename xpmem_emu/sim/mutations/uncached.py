"""Fetch-and-op pages that are cached or filled by strangers, and transfers that do too much."""

from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

from xpmem_emu.errors import KernelError
from xpmem_emu.mm import gup
from xpmem_emu.mmu.secondary import SecondaryMmu
from xpmem_emu.sim.mutations.patches import together
from xpmem_emu.sim.mutations.slip import slip
from xpmem_emu.xpmem.bte import Bte
from xpmem_emu.xpmem.fault import ImporterFaults

mspec_cached = slip(
    ImporterFaults, "_map", "access |= pte.UNCACHED if flags & EXTENT_UNCACHED else 0", "pass"
)
device_caches_mspec = slip(SecondaryMmu, "walk", "if word & UNCACHED:", "if False:")
bte_repeats_twice = slip(Bte, "_may_repeat", "deadlines.bte_retries", "deadlines.bte_retries + 1")


def hole_filled() -> AbstractContextManager[Any]:
    """Whoever asks for a page of mspec gets a page of zeros."""
    return patch.object(gup, "_is_hole", lambda vma, entry: False)


def bte_writes_beyond() -> AbstractContextManager[Any]:
    """What a read did not bring is written all the same, and then the transfer fails."""
    read, write = Bte._read, Bte._write
    failed: dict[int, KernelError] = {}

    async def reads(self: Bte, transfer: Any, source: Any, at: int, size: int) -> Any:
        try:
            return await read(self, transfer, source, at, size)
        except KernelError as error:
            failed[id(transfer)] = error
            return b"\xee" * size

    async def writes(self: Bte, transfer: Any, target: Any, at: int, data: Any) -> None:
        error, arrived = failed.pop(id(transfer), None), transfer.arrived
        await write(self, transfer, target, at, data)
        if error is not None:
            transfer.arrived = arrived
            raise error

    return together(patch.object(Bte, "_read", reads), patch.object(Bte, "_write", writes))
