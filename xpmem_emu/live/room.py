"""How many descriptors a partition may open, and what for.

Each connection takes one, and libzmq ends the process when it is to accept one on a unix socket and
none is left. So the limit is raised as far as the system lets us, what the partition itself and its
peers need is set aside, and the rest is how many connections clients may have. What comes beyond is
turned away by us; see `connections`.
"""

import errno
import resource
from dataclasses import dataclass

from xpmem_emu.errors import KernelError
from xpmem_emu.live.console.connections import LEAD, SURPLUS_MAX

CLIENTS_MAX = 4096
"""Connections of clients, however many descriptors there are."""
SESSIONS_MAX = 1024
_CLIENTS_MIN = 16
_OWN = 64
"""Event loop, logs, arena, sockets, looks at life files."""
_PER_PEER = 6
"""Its arena, its life file, the link to it; one of each to spare."""
_BEFORE_CUT = LEAD + SURPLUS_MAX
"""Connections too many that an endpoint may have for a moment."""


@dataclass(frozen=True, slots=True)
class Room:
    """Connections that each endpoint may have, and sessions of clients: as the library uses them,
    half as many. `descriptors` is the limit of the system."""

    descriptors: int
    peers: int
    clients: int

    @property
    def sessions(self) -> int:
        """Clients that may be connected at once."""
        return min(SESSIONS_MAX, self.clients // 2)


def room_for(peers: int, descriptors: int) -> Room:
    """How `descriptors` are divided. Raises KernelError EMFILE when they are too few."""
    of_peers = 2 * peers + 16
    own = _OWN + _PER_PEER * peers + of_peers
    # Of both endpoints, where that is possible: below, only clients may come in a crowd.
    left = descriptors - own - (2 * _BEFORE_CUT if descriptors >= 4 * LEAD else _BEFORE_CUT)
    if left < _CLIENTS_MIN:
        raise KernelError(
            errno.EMFILE,
            f"{descriptors} open files are allowed, and a partition with {peers} "
            f"peers needs {descriptors - left + _CLIENTS_MIN}",
            f"ulimit -Hn {2 * _wanted(peers)} (as root), or fewer partitions",
        )
    return Room(descriptors, of_peers, min(CLIENTS_MAX, left))


def make_room(peers: int) -> Room:
    """Raise the limit of this process as far as it helps. Raises KernelError EMFILE."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _wanted(peers)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return room_for(peers, wanted if soft == resource.RLIM_INFINITY else soft)


def _wanted(peers: int) -> int:
    """Descriptors beyond which no more are of use."""
    return _OWN + _PER_PEER * peers + 2 * peers + 16 + 2 * _BEFORE_CUT + CLIENTS_MAX
