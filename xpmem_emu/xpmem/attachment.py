"""The two kinds of attachments.

Inside a coherence domain it is mapped: faults bring entries in (fault.py). Across domains it is
far: it never has an entry, and every access is a message (remote_access.py). State only; nothing is
decided here but what the importer may do to its own mapping.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from xpmem_emu.errors import Signalled
from xpmem_emu.mm.mm_types import Vma
from xpmem_emu.mm.vma_ops import FarOps
from xpmem_emu.xpc.xpc import XpcError
from xpmem_emu.xpmem.objects import Attachment


@dataclass(eq=False)
class MappedAttachment(Attachment):
    """Inside the coherence domain: special entries lead to the home's frames."""

    access = "direct"
    resolve: Callable[["MappedAttachment", Vma, int, bool], Awaitable[None]]

    async def fault(self, vma: Vma, address: int, write: bool) -> None:
        """Ask the home for frames."""
        assert vma.ops is self
        await self.resolve(self, vma, address, write)

    def check(self, vma: Vma, address: int) -> None:
        """SIGBUS when the home partition is lost."""
        if self.imported.gone or not self.reachable(self.imported):
            raise self.sigbus(address, self.imported.gone or "the home partition is lost")


@dataclass(eq=False)
class FarAttachment(FarOps, Attachment):
    """Across coherence domains: loads and stores are carried to the home, one by one."""

    access = "by message"
    carry_load: Callable[["FarAttachment", Vma, int, memoryview], Awaitable[None]]
    carry_store: Callable[["FarAttachment", Vma, int, memoryview], Awaitable[None]]

    async def load(self, vma: Vma, address: int, into: memoryview) -> None:
        """Ask the home for the bytes."""
        await self.carry_load(self, vma, address, into)

    async def store(self, vma: Vma, address: int, data: memoryview) -> None:
        """Send the bytes to the home."""
        await self.carry_store(self, vma, address, data)

    def unanswered(self, address: int, error: XpcError) -> Signalled:
        """A machine check if it was sent: what no handler can know, none is asked about."""
        if not error.ending.sent:
            return super().unanswered(address, error)
        reason = (
            "machine check: the access may or may not have been carried out: "
            f"{self.imported.gone or error}"
        )
        return self.machine_check(address, reason)

    def machine_check(self, address: int, reason: str) -> Signalled:
        """The SIGBUS that kills, whatever the task handles (sources T17)."""
        return self.sigbus(address, reason, forced=True)
