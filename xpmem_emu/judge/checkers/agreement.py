"""S18, by the one judge that is the kernel's own.

Its audit (kernel/audit, as DEBUG_VM is) reads both sides of every relation and says where they
differ. A panic of a kernel with audits on says the same; here it is looked at now and then, in
every run, because what was miscounted mostly stays so.
"""

from collections import Counter

from xpmem_emu.errors import KernelBug
from xpmem_emu.judge.checkers.base import Checker
from xpmem_emu.judge.invariants import Invariant
from xpmem_emu.judge.scene import Scene
from xpmem_emu.kernel.audit import check_kernel

EVERY = 24
"""Of so many steps of a partition in which something happened, one is followed by a look."""


class Agreement(Checker):
    """Has each kernel compare its tables."""

    judges = (Invariant.S18,)
    looks_at = f"the kernel's own audit (below), after one step of {EVERY} and when all is quiet"

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self._steps: Counter[int] = Counter()
        self._said: set[int] = set()
        """Partitions that disagree with themselves: told once for each boot."""

    def crashed(self, partid: int) -> None:
        """Its tables are gone."""
        self._said.discard(partid)

    def stepped(self, partid: int) -> None:
        """Look, when it is time."""
        self._steps[partid] += 1
        if self._steps[partid] % EVERY == 0:
            self._look(partid)

    def settled(self) -> None:
        """Nothing is under way: look at everybody."""
        for partid in self.scene.kernels:
            self._look(partid)

    def _look(self, partid: int) -> None:
        kernel = self.scene.kernels.get(partid)
        if kernel is None or kernel.stopped is not None or partid in self._said:
            return
        try:
            check_kernel(kernel)
        except KernelBug as difference:
            self._said.add(partid)
            self.report(Invariant.S18, partid, str(difference))
