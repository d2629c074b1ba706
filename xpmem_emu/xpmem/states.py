"""The lifecycle of cross-partition memory, as a table.

Lifecycles are verb pairs: make/remove, get/release, attach/detach, begin/end. DESTROYING is
visible from the first moment of the teardown, so that nobody starts anything new on the object
while the teardown sleeps (sources 1.14, 2.1).
"""

from enum import Enum

from xpmem_emu.tables import StateMachine


class LifecycleState(Enum):
    """State of a thread group, segment, permit or attachment."""

    LIVE = "live"
    DESTROYING = "destroying"
    DESTROYED = "destroyed"


class LifecycleEvent(Enum):
    """What moves an object through its life."""

    DESTROY = "destroy"
    TORN_DOWN = "torn_down"


LIFECYCLE: StateMachine[LifecycleState, LifecycleEvent] = StateMachine(
    "object life",
    LifecycleState.LIVE,
    {
        (LifecycleState.LIVE, LifecycleEvent.DESTROY): LifecycleState.DESTROYING,
        (LifecycleState.DESTROYING, LifecycleEvent.TORN_DOWN): LifecycleState.DESTROYED,
    },
)
