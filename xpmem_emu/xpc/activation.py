"""The act_state of a partition: what we think of one peer, and the two rules about reasons.

    INACTIVE        no session; discovery looks for the peer
    ACTIVATION_REQ  the peer was seen or asked for us; our epoch is new, the thread not running yet
    ACTIVATING      telling the peer who we are until it shows that it knows this session
    ACTIVE          a session: channels, heartbeats
    DEACTIVATING    everything is withdrawn, waiting until both sides let go of it

Numbers and arrows are those of sources 3.3. This module only decides; `partition` does.
"""

from enum import IntEnum

from xpmem_emu.tables import StateMachine
from xpmem_emu.xpc.reasons import Reason


class ActState(IntEnum):
    """The wire values of act_state."""

    INACTIVE = 0
    ACTIVATION_REQ = 1
    ACTIVATING = 2
    ACTIVE = 3
    DEACTIVATING = 4


class ActEvent(IntEnum):
    """What moves a partition from one act_state to the next."""

    ACTIVATE = 0
    THREAD_RUNS = 1
    CONTACT = 2
    DEACTIVATE = 3
    DISENGAGED = 4


ACTIVATION: StateMachine[ActState, ActEvent] = StateMachine(
    "partition",
    ActState.INACTIVE,
    {
        (ActState.INACTIVE, ActEvent.ACTIVATE): ActState.ACTIVATION_REQ,
        (ActState.ACTIVATION_REQ, ActEvent.THREAD_RUNS): ActState.ACTIVATING,
        (ActState.ACTIVATION_REQ, ActEvent.DEACTIVATE): ActState.DEACTIVATING,
        (ActState.ACTIVATING, ActEvent.CONTACT): ActState.ACTIVE,
        (ActState.ACTIVATING, ActEvent.DEACTIVATE): ActState.DEACTIVATING,
        (ActState.ACTIVE, ActEvent.DEACTIVATE): ActState.DEACTIVATING,
        (ActState.DEACTIVATING, ActEvent.DISENGAGED): ActState.INACTIVE,
    },
)

UP = frozenset({ActState.ACTIVATION_REQ, ActState.ACTIVATING, ActState.ACTIVE})
"""States in which a partition wants the other one."""


def replaces(old: Reason, new: Reason) -> bool:
    """Whether `new` takes the place of `old` as the reason of a deactivation under way."""
    if new is Reason.REACTIVATING:
        return True
    return old is Reason.UNLOADING and new is not Reason.UNLOADING
