"""An attachment: part of a segment, mapped into an importer's address space.

It is the `ops` of its VMA. The mapping is shared, not inherited by fork, not dumped, cannot grow
and has no struct pages behind it (facts 1.7). When the importer itself unmaps or moves part of
it, XPMEM kills the process, as the real driver does (facts 1.11); a VMA cut off from it (by a
partial mprotect) leads nowhere: every access to that piece is SIGBUS.

State only; how a fault is resolved is faults.py.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from xpmem_emu.errors import Signal, SignalInfo, Signalled
from xpmem_emu.mm.address_space import AddressSpace
from xpmem_emu.mm.vma import DeadOps, Vma
from xpmem_emu.units import PAGE_SHIFT
from xpmem_emu.xpmem.extents import Range
from xpmem_emu.xpmem.objects import Imported, Mortal, Permit

CUT_OFF = "this piece was cut off from its attachment by a partial change of the mapping"


@dataclass(eq=False)
class Attachment(Mortal):
    """One mapping of a segment. `pages` are the segment's pages that it shows."""

    number: int
    permit: Permit
    mm: AddressSpace
    address: int
    pages: Range
    resolve: Callable[["Attachment", Vma, int], Awaitable[None]]
    reachable: Callable[[Imported], bool]
    kill: Callable[[int, SignalInfo], None]

    @property
    def imported(self) -> Imported:
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

    def sigbus(self, address: int, reason: str) -> Signalled:
        """The signal that an access at `address` gets, with everything that is known."""
        self.imported.last_failure = reason
        page = self.page_at(address)
        segid, home = self.imported.segid, self.imported.home
        return Signalled(SignalInfo(Signal.SIGBUS, reason, address, segid, home, page))

    # -- VmaOps ----------------------------------------------------------------------------

    async def fault(self, mm: AddressSpace, vma: Vma, address: int, write: bool) -> None:
        """Resolve a missing page; called with no lock held, may sleep for long."""
        await self.resolve(self, vma, address)

    def check(self, mm: AddressSpace, vma: Vma, address: int) -> None:
        """The home partition must still be ACTIVE in the session of the PTE."""
        if self.imported.gone or not self.reachable(self.imported):
            raise self.sigbus(address, self.imported.gone or "the home partition is lost")

    def unmapped(self, mm: AddressSpace, vma: Vma, start: int, end: int) -> None:
        """The importer unmapped or moved [start, end) behind XPMEM's back."""
        reason = (
            f"the process unmapped or moved [{start:#x}, {end:#x}) of an xpmem attachment "
            "itself; xpmem_detach is the way"
        )
        self.kill(self.permit.group.tgid, SignalInfo(Signal.SIGKILL, reason, start))

    def split(self, vma: Vma, tail: Vma) -> None:
        """The VMA was cut in two; the piece behind the cut loses its attachment."""
        tail.ops = DeadOps(CUT_OFF)
