"""S21: whoever leads to an uncached page of mspec leads to it uncached.

Which frames are such is what the page tables of their homes say. That is asked once a task has
mapped any.
"""

from xpmem_emu.judge.checkers.base import Checker
from xpmem_emu.judge.checkers.raw import FRAME_SHIFT, PARTID_SHIFT, cached_foreign, uncached_frames
from xpmem_emu.judge.checkers.translations import translations_of
from xpmem_emu.judge.invariants import Invariant
from xpmem_emu.judge.scene import EventHandlers, Scene
from xpmem_emu.kernel import calls
from xpmem_emu.kernel.interface import Request
from xpmem_emu.kernel.kernel import Kernel
from xpmem_emu.mmu.events import MmuInstall
from xpmem_emu.trace import Event
from xpmem_emu.xpmem.events import PageInstall

_LOCAL = (1 << PARTID_SHIFT) - 1


class Aliases(Checker):
    """Compares raw words of different kernels that lead to one frame."""

    judges = (Invariant.S21,)
    looks_at = "page-table words and translations of importers against the words of the home"

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self._any = False
        self._installed = False

    def asked(self, partid: int, request: Request) -> None:
        """Somebody wants pages of mspec."""
        call = request.call
        self._any = self._any or (
            isinstance(call, calls.Mmap) and bool(call.flags & calls.MAP_MSPEC)
        )

    def handlers(self) -> EventHandlers:
        """What may make an alias."""
        return {PageInstall: self._made, MmuInstall: self._made}

    def _made(self, partid: int, event: Event) -> None:
        self._installed = True

    def stepped(self, partid: int) -> None:
        """Look at what this partition leads to."""
        kernel = self.scene.kernels.get(partid)
        installed, self._installed = self._installed, False
        if not (self._any and installed) or kernel is None or kernel.stopped is not None:
            return
        found = {("a page table", gpfn) for gpfn in cached_foreign(kernel)}
        found |= {(kind, word >> FRAME_SHIFT) for kind, _, _, word in translations_of(kernel)}
        for home, owner in self.scene.kernels.items():
            bad = uncached_frames(owner)
            for what, gpfn in sorted(found):
                if gpfn >> PARTID_SHIFT == home and gpfn & _LOCAL in bad and _sees(kernel, owner):
                    text = (
                        f"{what} of p{partid} caches uncached frame {gpfn & _LOCAL:#x} of p{home}"
                    )
                    self.report(Invariant.S21, partid, text)


def _sees(kernel: Kernel, owner: Kernel) -> bool:
    """Whether it is the memory of that very boot."""
    windows = kernel.memory.physical._windows
    return windows.get(owner.partid) is owner.memory.physical._windows[owner.partid]
