"""Providers of areas that need no kernel to be told: far memory, and memory that is gone.

What an area asks of its provider is `VmaOps` (mm_types).
"""

from abc import ABC, abstractmethod

from xpmem_emu.errors import KernelBug, Signal, SignalInfo, Signalled
from xpmem_emu.mm.mm_types import Vma


class FarOps(ABC):
    """Ops of an area that never has an entry: what is behind it can be spoken to, not mapped.
    Every access is carried there and back."""

    @abstractmethod
    async def load(self, vma: Vma, address: int, into: memoryview) -> None:
        """Fill `into` with the bytes from `address` on, which lie in `vma`. Raises Signalled."""

    @abstractmethod
    async def store(self, vma: Vma, address: int, data: memoryview) -> None:
        """Write `data` at `address`, all of it in `vma`. Raises Signalled."""

    async def fault(self, vma: Vma, address: int, write: bool) -> None:
        """Nobody asks for an entry here."""
        raise KernelBug(f"an entry was asked for in {vma}, which has none")

    def check(self, vma: Vma, address: int) -> None:
        """Nobody finds an entry here."""
        raise KernelBug(f"an entry was found in {vma}, which has none")


class DeadOps:
    """The link to the backing is cut: every access is SIGBUS, with the reason given here."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    async def fault(self, vma: Vma, address: int, write: bool) -> None:
        """Raise SIGBUS."""
        self.check(vma, address)

    def check(self, vma: Vma, address: int) -> None:
        """Raise SIGBUS."""
        raise Signalled(SignalInfo(Signal.SIGBUS, self.reason, address))

    def unmapped(self, vma: Vma, start: int, end: int) -> None:
        """Nobody is interested."""

    def split(self, vma: Vma, tail: Vma) -> None:
        """Both halves are dead."""
