"""The lifecycles of cross-partition memory, as tables.

Lifecycles are verb pairs: make/remove, get/release, attach/detach, begin/end. DESTROYING is
visible from the first moment of the teardown, so that nobody starts anything new on the object
while the teardown sleeps (sources 1.14, 2.1).
"""

from enum import Enum

from xpmem_emu.tables import Machine


class Life(Enum):
    """State of a thread group, segment, permit or attachment."""

    LIVE = "live"
    DESTROYING = "destroying"
    DESTROYED = "destroyed"


class LifeEvent(Enum):
    """What moves an object through its life."""

    DESTROY = "destroy"
    TORN_DOWN = "torn_down"


LIFE: Machine[Life, LifeEvent] = Machine(
    "object life",
    Life.LIVE,
    {
        (Life.LIVE, LifeEvent.DESTROY): Life.DESTROYING,
        (Life.DESTROYING, LifeEvent.TORN_DOWN): Life.DESTROYED,
    },
)


class FaultState(Enum):
    """State of an in-flight fault of the importer."""

    VALID = "valid"
    INVALID = "invalid"
    ENDED = "ended"


class FaultEvent(Enum):
    """What happens to an in-flight fault."""

    INVALIDATE = "invalidate"
    END = "end"


INFLIGHT: Machine[FaultState, FaultEvent] = Machine(
    "in-flight fault",
    FaultState.VALID,
    {
        (FaultState.VALID, FaultEvent.INVALIDATE): FaultState.INVALID,
        (FaultState.INVALID, FaultEvent.INVALIDATE): FaultState.INVALID,
        (FaultState.VALID, FaultEvent.END): FaultState.ENDED,
        (FaultState.INVALID, FaultEvent.END): FaultState.ENDED,
    },
)
