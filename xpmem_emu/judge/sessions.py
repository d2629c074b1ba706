"""Which partition believes to have a session with which, from `xpc:partition` events alone."""

from collections import defaultdict

from xpmem_emu.kernel.events import KernelBoot
from xpmem_emu.xpc.events import PartitionChange


class Sessions:
    """Views of all partitions: `active(a, b)` is what a thinks of b."""

    def __init__(self) -> None:
        self._active: dict[tuple[int, int], int] = {}
        self._ended: dict[tuple[int, int], list[int]] = defaultdict(list)

    def booted(self, partid: int, event: KernelBoot, moment: int) -> None:
        """A new kernel knows nobody; what the one before it had ended with it."""
        for pair in [pair for pair in self._active if pair[0] == partid]:
            del self._active[pair]
            self._ended[pair].append(moment)

    def changed(self, partid: int, event: PartitionChange, moment: int) -> None:
        """`partid` says what it thinks of a peer."""
        pair = (partid, event.peer)
        if event.state == "ACTIVE":
            self._active[pair] = event.incarnation
        elif self._active.pop(pair, None) is not None:
            self._ended[pair].append(moment)

    def active(self, partid: int, peer: int) -> bool:
        """Whether `partid` has a session with `peer`; with itself it always has."""
        return partid == peer or (partid, peer) in self._active

    def incarnation(self, partid: int, peer: int) -> int | None:
        """The peer's incarnation in that session."""
        return self._active.get((partid, peer))

    def gave_up(self, partid: int, peer: int, since: int, until: int) -> bool:
        """Whether `partid` ended a session with `peer` between two steps, both included."""
        return any(since <= moment <= until for moment in self._ended.get((partid, peer), ()))
