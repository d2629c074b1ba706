"""Who watches a simulated cluster, step by step. It sees all, and changes nothing."""

from typing import Protocol

from xpmem_emu.kernel.interface import Effects, KernelEvent


class Observer(Protocol):
    """Who watches a run. Both methods are called for every step, in the order of the steps."""

    def arriving(self, partid: int, event: KernelEvent) -> None:
        """Partition `partid` is about to take `event`."""

    def stepped(self, partid: int, effects: Effects) -> None:
        """It took it, and this came of it."""


class Unwatched:
    """The observer that looks at nothing."""

    def arriving(self, partid: int, event: KernelEvent) -> None:
        """Nothing."""

    def stepped(self, partid: int, effects: Effects) -> None:
        """Nothing."""
