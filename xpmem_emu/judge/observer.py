"""Who watches a run, and what may be seen of it: all, and nothing may be changed."""

from collections.abc import Mapping
from typing import Protocol

from xpmem_emu.inject.clock import Clock
from xpmem_emu.kernel.interface import Effects, KernelEvent
from xpmem_emu.kernel.kernel import Kernel


class Observed(Protocol):
    """Partitions whose kernels can be looked at, whoever runs them. Times in nanoseconds."""

    @property
    def now_ns(self) -> int:
        """The time of the world, whatever clocks of partitions show."""

    @property
    def steps(self) -> int:
        """How many steps all kernels took: the order of everything that happens."""

    @property
    def kernels(self) -> Mapping[int, Kernel]:
        """By partid: the kernels that run, or are stopped."""

    @property
    def superseded(self) -> Mapping[tuple[int, int], Kernel]:
        """By (partid, boot): those that are stopped and over which another one booted."""

    @property
    def clocks(self) -> Mapping[int, Clock]:
        """The clocks of partitions where a fault changed them."""

    def boot_of(self, partid: int) -> int:
        """The newest boot of a partition, 0 when it never ran."""

    def hung(self, partid: int) -> bool:
        """Whether the partition is stopped."""


class Observer:
    """Sees every step, in the order of the steps; this one looks at none."""

    def arriving(self, partid: int, event: KernelEvent) -> None:
        """Partition `partid` is about to take `event`."""

    def stepped(self, partid: int, effects: Effects) -> None:
        """It took it, and this came of it."""

    def crashed(self, partid: int) -> None:
        """The process of `partid` vanished."""

    def resumed(self, partid: int, stopped_ns: int) -> None:
        """`partid` goes on after it stood still for so long."""
