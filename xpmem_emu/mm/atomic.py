"""Atomic memory operations on aligned 64-bit words of uncached memory (sources T6).

As in the memory controller of a fetch-and-op page: the kernel that owns the frame carries the
operation out, so there is one place where the word changes. Cached memory is refused, because
another processor's plain store could slip between the read and the write.
"""

import errno
from enum import IntEnum

from xpmem_emu.errors import KernelError
from xpmem_emu.mm.access import walk_word
from xpmem_emu.mm.mm_types import AddressSpace
from xpmem_emu.mm.vma_flags import VmaFlags

AMO_SIZE = 8
_MASK = (1 << 64) - 1


class AmoOperation(IntEnum):
    """Wire codes of the operations; append-only."""

    FETCH = 0
    ADD = 1
    SWAP = 2
    COMPARE_SWAP = 3
    STORE = 4


def require_uncached(mm: AddressSpace, address: int) -> None:
    """Raise KernelError EINVAL unless `address` is an aligned word of uncached memory."""
    if address % AMO_SIZE:
        raise KernelError(errno.EINVAL, f"{address:#x} is not aligned to {AMO_SIZE} bytes")
    vma = mm.vmas.find(address)
    if vma is not None and not vma.flags & VmaFlags.UNCACHED:
        raise KernelError(
            errno.EINVAL,
            f"{address:#x} is cached memory",
            "atomic operations need memory mapped with MAP_UNCACHED",
        )


async def atomic(
    mm: AddressSpace, address: int, operation: AmoOperation, operand: int, compare: int
) -> int:
    """Apply `operation` to the word at `address` of local memory; the word before it.

    Raises KernelError EINVAL for cached or unaligned words, Signalled as a store would.
    """
    require_uncached(mm, address)
    word = await walk_word(mm, address, write=True)
    require_uncached(mm, address)  # another area may have taken its place while the walk slept
    before = int.from_bytes(word, "little")
    after = {
        AmoOperation.FETCH: before,
        AmoOperation.ADD: (before + operand) & _MASK,
        AmoOperation.SWAP: operand,
        AmoOperation.COMPARE_SWAP: operand if before == compare else before,
        AmoOperation.STORE: operand,
    }[operation]
    word[:] = after.to_bytes(AMO_SIZE, "little")
    return before
