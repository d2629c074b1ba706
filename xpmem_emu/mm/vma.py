"""Virtual memory areas and what may stand behind them.

A Vma is a range of pages with one protection and one backing: anonymous memory, a file (`inode`),
or foreign frames installed by somebody else (`ops`). `pgoff` is the page index of its first page
in the backing; for anonymous memory it is the page number the area was first mapped at, which
keeps reverse-map indices valid when mremap moves the area.

Areas change under the mmap_lock held for writing; whoever holds it for reading may rely on them.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import IntFlag
from typing import TYPE_CHECKING, Protocol

from xpmem_emu.errors import KernelBug, Signal, SignalInfo, Signalled
from xpmem_emu.units import PAGE_SHIFT

if TYPE_CHECKING:
    from xpmem_emu.mm.address_space import AddressSpace
    from xpmem_emu.mm.inode import Inode
    from xpmem_emu.mm.rmap import AnonVma


class Prot(IntFlag):
    """Allowed accesses; Linux numbers. WRITE implies READ, as on x86."""

    NONE = 0
    READ = 1
    WRITE = 2


class VmaFlags(IntFlag):
    """What an area is besides its protection."""

    NONE = 0
    SHARED = 1 << 0
    UNCACHED = 1 << 1
    """Fetch-and-op memory (sources T6)."""
    PFNMAP = 1 << 2
    """Frames without accounting: madvise(DONTNEED) refuses it (sources T5)."""
    IO = 1 << 3
    DONTCOPY = 1 << 4
    DONTEXPAND = 1 << 5
    DONTDUMP = 1 << 6
    RESERVED = 1 << 7
    READONLY = 1 << 8
    """mprotect must not make it writable: whoever gave the memory did not allow stores."""


class VmaOps(Protocol):
    """Who provides the pages of an area that this package cannot fill by itself."""

    async def fault(self, vma: "Vma", address: int, write: bool) -> None:
        """Install entries around `address`, or raise Signalled. Called with no lock held and may
        sleep long: the area may have changed or gone meanwhile. The caller walks again."""

    def check(self, vma: "Vma", address: int) -> None:
        """May the access through the SPECIAL entry at `address` go on? Raises Signalled."""

    def unmapped(self, vma: "Vma", start: int, end: int) -> None:
        """[start, end) of the area is being removed, its entries are cleared already; the area
        still has its old bounds, cuts follow as `split`."""

    def split(self, vma: "Vma", tail: "Vma") -> None:
        """The area was cut; decide what `tail.ops` is. It is `vma.ops` when called."""


class FarOps(ABC):
    """Ops of an area that never has an entry: what is behind it can be spoken to, not mapped.
    Every access is carried there and back."""

    @abstractmethod
    async def load(self, vma: "Vma", address: int, into: memoryview) -> None:
        """Fill `into` with the bytes from `address` on, which lie in `vma`. Raises Signalled."""

    @abstractmethod
    async def store(self, vma: "Vma", address: int, data: memoryview) -> None:
        """Write `data` at `address`, all of it in `vma`. Raises Signalled."""

    async def fault(self, vma: "Vma", address: int, write: bool) -> None:
        """Nobody asks for an entry here."""
        raise KernelBug(f"an entry was asked for in {vma}, which has none")

    def check(self, vma: "Vma", address: int) -> None:
        """Nobody finds an entry here."""
        raise KernelBug(f"an entry was found in {vma}, which has none")


class DeadOps:
    """The link to the backing is cut: every access is SIGBUS, with the reason given here."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    async def fault(self, vma: "Vma", address: int, write: bool) -> None:
        """Raise SIGBUS."""
        self.check(vma, address)

    def check(self, vma: "Vma", address: int) -> None:
        """Raise SIGBUS."""
        raise Signalled(SignalInfo(Signal.SIGBUS, self.reason, address))

    def unmapped(self, vma: "Vma", start: int, end: int) -> None:
        """Nobody is interested."""

    def split(self, vma: "Vma", tail: "Vma") -> None:
        """Both halves are dead."""


@dataclass(slots=True, eq=False)
class Vma:
    """One area [start, end) of `mm`, in bytes. `linked` is false once it was removed."""

    mm: "AddressSpace"
    start: int
    end: int
    prot: Prot
    flags: VmaFlags
    pgoff: int
    inode: "Inode | None" = None
    ops: VmaOps | None = None
    anon_vma: "AnonVma | None" = None
    linked: bool = False

    @property
    def first(self) -> int:
        """Its first virtual page number."""
        return self.start >> PAGE_SHIFT

    @property
    def pages(self) -> int:
        """How many pages it has."""
        return (self.end - self.start) >> PAGE_SHIFT

    @property
    def shared(self) -> bool:
        """Whether stores are seen by everybody who maps the same backing."""
        return bool(self.flags & VmaFlags.SHARED)

    @property
    def writable(self) -> bool:
        """Whether stores are allowed."""
        return bool(self.prot & Prot.WRITE)

    def index_of(self, vpn: int) -> int:
        """The page index of `vpn` in the backing."""
        return vpn - self.first + self.pgoff

    def continues(self, before: "Vma") -> bool:
        """Whether this area could be the tail of `before`. Areas with ops never are."""
        return (
            before.end == self.start
            and before.prot == self.prot
            and before.flags == self.flags
            and before.inode is self.inode
            and before.ops is None
            and self.ops is None
            and before.pgoff + before.pages == self.pgoff
            and (before.anon_vma is self.anon_vma or None in (before.anon_vma, self.anon_vma))
        )

    def __str__(self) -> str:
        access = "".join("rw"[i] if self.prot & 1 << i else "-" for i in range(2))
        return f"{self.start:#x}-{self.end:#x} {access}{'s' if self.shared else 'p'}"
