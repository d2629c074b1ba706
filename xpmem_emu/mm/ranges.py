"""Checks that the memory system calls share: alignment, length, and what is mapped.

Addresses, lengths and offsets are what a 64-bit register can hold. Where rounding a length up to
whole pages leaves the register, Linux goes on with 0, and so does `aligned_length`.
"""

import errno

from xpmem_emu.errors import KernelError
from xpmem_emu.mm.mm_types import AddressSpace
from xpmem_emu.units import PAGE_MASK, TASK_SIZE, page_align_up

WORDS_END = 1 << 64
OFFSET_END = 1 << 63


def require_aligned(address: int) -> None:
    """Raise EINVAL unless `address` is page aligned."""
    if address & PAGE_MASK:
        raise KernelError(errno.EINVAL, f"address {address:#x} is not page aligned")


def aligned_length(length: int) -> int:
    """`length` in whole pages, within 64 bits."""
    return page_align_up(length) % WORDS_END


def require_offset(offset: int, what: str) -> None:
    """Raise EINVAL when `offset` is negative as a signed 64-bit number."""
    if offset >= OFFSET_END:
        raise KernelError(errno.EINVAL, f"{what} {offset:#x} is negative as an off_t")


def aligned_range(address: int, length: int, beyond: int) -> tuple[int, int]:
    """[start, end) in whole pages. Raises EINVAL when unaligned, `beyond` past TASK_SIZE. A range
    of no bytes lies nowhere, so it is never beyond."""
    require_aligned(address)
    end = address + page_align_up(length)
    if length and end > TASK_SIZE:
        raise KernelError(beyond, f"{address:#x} + {length:#x} is beyond the end of user space")
    return address, end


def require_covered(mm: AddressSpace, start: int, end: int) -> None:
    """Raise ENOMEM when some page of [start, end) is not mapped."""
    if not mm.vmas.covers(start, end):
        raise KernelError(errno.ENOMEM, f"part of {start:#x}-{end:#x} is not mapped")


def require_alive(mm: AddressSpace) -> None:
    """Raise ESRCH when the address space is on its way out."""
    if mm.dead:
        raise KernelError(errno.ESRCH, f"task {mm.pid} is exiting")
