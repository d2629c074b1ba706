"""An attachment: part of a segment, mapped into an importer's address space.

It is the `ops` of its VMA. The mapping is shared, not inherited by fork, not dumped, cannot grow
and has no struct pages behind it (sources 1.7). When the importer itself unmaps or moves part of
it, XPMEM kills the process, as the real driver does (sources 1.11); a VMA cut off from it (by a
partial mprotect) leads nowhere: every access to that piece is SIGBUS.

Inside a coherence domain it is mapped: faults bring entries in (fault.py). Across domains it is
far: it never has an entry, and every access is a message (remote_access.py). State only; nothing is
decided here but what the importer may do to its own mapping.
"""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import ClassVar

from xpmem_emu.errors import Signal, SignalInfo, Signalled
from xpmem_emu.mm.address_space import AddressSpace
from xpmem_emu.mm.vma import DeadOps, FarOps, Vma
from xpmem_emu.units import PAGE_SHIFT
from xpmem_emu.xpc.xpc import XpcError
from xpmem_emu.xpmem.extents import Range
from xpmem_emu.xpmem.objects import ImportedSegment, Lifecycle, Permit

CUT_OFF = "this piece was cut off from its attachment by a partial change of the mapping"


@dataclass(eq=False)
class Attachment(Lifecycle, ABC):
    """One mapping of a segment. `pages` are the segment's pages that it shows."""

    access: ClassVar[str]
    """How loads and stores get there."""

    number: int
    permit: Permit
    mm: AddressSpace
    address: int
    pages: Range
    reachable: Callable[[ImportedSegment], bool]
    kill: Callable[[int, SignalInfo], None]

    @property
    def imported(self) -> ImportedSegment:
        """The segment as this partition sees it."""
        return self.permit.imported

    @property
    def end(self) -> int:
        """First address after the mapping."""
        return self.address + (self.pages[1] << PAGE_SHIFT)

    def page_at(self, address: int) -> int:
        """The segment's page behind an address of the mapping."""
        return self.pages[0] + ((address - self.address) >> PAGE_SHIFT)

    def vpn_of(self, page: int) -> int:
        """The virtual page number at which a page of the segment is mapped."""
        return (self.address >> PAGE_SHIFT) + page - self.pages[0]

    def sigbus(self, address: int, reason: str, *, forced: bool = False) -> Signalled:
        """The signal that an access at `address` gets, with everything that is known. A machine
        check is `forced`: it kills, whatever the task handles (sources T17)."""
        self.imported.last_failure = reason
        page = self.page_at(address)
        segid, home = self.imported.segid, self.imported.home
        return Signalled(SignalInfo(Signal.SIGBUS, reason, address, segid, home, page, forced))

    def unanswered(self, address: int, error: XpcError) -> Signalled:
        """The signal for a store or an atomic operation that got no answer."""
        return self.sigbus(address, self.imported.gone or str(error))

    def require_usable(self, vma: Vma, address: int) -> None:
        """Raise SIGBUS for reasons that are known here (sources 1.10 a to d, i, j)."""
        imported = self.imported
        if imported.gone:
            raise self.sigbus(address, imported.gone)
        if not self.live or not self.permit.live or vma.ops is not self:
            raise self.sigbus(address, "the attachment is being detached")
        if not self.reachable(imported):
            raise self.sigbus(address, f"partition p{imported.home} is lost")

    # -- VmaOps ----------------------------------------------------------------------------

    @abstractmethod
    async def fault(self, vma: Vma, address: int, write: bool) -> None:
        """Resolve a missing page; called with no lock held, may sleep for long."""

    @abstractmethod
    def check(self, vma: Vma, address: int) -> None:
        """The home partition must still be ACTIVE in the session of the PTE."""

    def unmapped(self, vma: Vma, start: int, end: int) -> None:
        """The importer unmapped or moved [start, end) behind XPMEM's back."""
        reason = (
            f"the process unmapped or moved [{start:#x}, {end:#x}) of an xpmem attachment "
            "itself; xpmem_detach is the way"
        )
        self.kill(self.permit.group.tgid, SignalInfo(Signal.SIGKILL, reason, start))

    def split(self, vma: Vma, tail: Vma) -> None:
        """The VMA was cut in two; the piece behind the cut loses its attachment."""
        tail.ops = Severed(CUT_OFF, self)

    def owns(self, vma: Vma) -> bool:
        """Whether this area is the attachment's mapping, or a piece that was cut off from it."""
        return vma.ops is self or (isinstance(vma.ops, Severed) and vma.ops.attachment is self)


class Severed(DeadOps):
    """A piece of an attachment that shows nothing any more, and is unmapped with it."""

    def __init__(self, reason: str, attachment: Attachment) -> None:
        super().__init__(reason)
        self.attachment = attachment


@dataclass(eq=False)
class MappedAttachment(Attachment):
    """Inside the coherence domain: special entries lead to the home's frames."""

    access = "direct"
    resolve: Callable[["MappedAttachment", Vma, int, bool], Awaitable[None]]

    async def fault(self, vma: Vma, address: int, write: bool) -> None:
        """Ask the home for frames."""
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
