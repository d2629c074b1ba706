"""What a peer has shown of itself: its incarnations, its reserved page, its state, its heartbeat.

Facts only; what follows from them is decided in `control` and `partition`. An incarnation is
boot << 16 | epoch: the peer's boot, and how often it has (re)activated us since.
"""

from dataclasses import dataclass

from xpmem_emu.xpc.activation import ActState
from xpmem_emu.xpc.messages import RsvdPage

EPOCH_BITS = 16
EPOCH_MAX = (1 << EPOCH_BITS) - 1


@dataclass(slots=True)
class Remote:
    """One peer, as seen from here."""

    seen: int = 0
    """Highest incarnation that it ever showed; 0: never heard of."""
    left: int = 0
    """Its incarnation in our last session that is over, until it shows a newer one; else 0."""
    page: RsvdPage | None = None
    """The reserved page of its present boot."""
    act_state: ActState = ActState.INACTIVE
    """Its state towards us, as last heard in its present incarnation."""
    knows_us: bool = False
    """It named our present incarnation while it wanted a session."""
    let_go: bool = False
    """It said, or proved, that it holds nothing of the session any more."""
    heartbeat: int = 0
    """Its last value in its present incarnation: progress is a larger one."""
    checked: int = -1
    """The heartbeat at the last check."""
    offline: bool = False
    """The last heartbeat was the offline form: no progress is expected."""

    def renew(self, incarnation: int) -> None:
        """It showed a newer incarnation: what was known of the old one does not hold."""
        if incarnation >> EPOCH_BITS != self.seen >> EPOCH_BITS:
            self.page = None
        # A value from before may be anything, and must not hide the ones that are to come.
        self.heartbeat, self.offline = 0, False
        self.seen = incarnation
        self.act_state = ActState.INACTIVE
        self.knows_us = False
        self.let_go = True

    def beat(self, value: int, offline: bool) -> bool:
        """Note a heartbeat; False when it is not newer than the last one."""
        if value <= self.heartbeat:
            return False
        self.heartbeat, self.offline = value, offline
        return True

    def progressed(self) -> bool:
        """Whether the counter moved since the last call, or need not have moved."""
        moved = self.heartbeat != self.checked or self.offline
        self.checked = self.heartbeat
        return moved
