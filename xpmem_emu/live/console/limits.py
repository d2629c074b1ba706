"""What one client may take of a console, and whose request is next.

Requests wait in one bounded queue per client and are served in turn, so a client with a thousand
requests delays another's by one request, and one with expensive requests has fewer turns. All
numbers are per client: a client with a key is its key, over however many connections; one of a unix
socket is its session.

Nothing here knows what a request is.
"""

from collections import deque
from heapq import heappop, heappush
from typing import Generic, TypeVar

import zmq

_T = TypeVar("_T")

QUEUED_MAX = 256
"""Requests that wait for their turn."""
REQUESTS_PER_S = 20_000
"""Requests of a client with a key; a burst may have as many at once."""
UNREAD_MAX = 1 << 26
"""Bytes in large answers that the client has not taken yet."""
LARGE = 4096
"""Bytes from which on an answer counts: bulk, and a list of what is or was."""
REQUEST_BATCH = 8
"""Requests that are read before some are served; libzmq takes one of each connection in turn."""
TURN_NS = 200_000
"""How long requests are served before everything else of the partition has its turn."""
_ACCOUNTS_MAX = 4096
"""Clients of which is known how long they were served, before those are forgotten that have no
debts."""


class Turns(Generic[_T]):
    """Requests in the order in which they are served: of the client first that was served for the
    shortest time, where those that had nothing to ask have saved nothing up."""

    def __init__(self) -> None:
        self._queues: dict[object, deque[_T]] = {}
        self._order: list[tuple[int, int, object]] = []
        """(time served, number of the turn, client), a heap with an entry for each queue."""
        self._served_ns: dict[object, int] = {}
        self._turn = 0
        self._now_ns = 0
        """What the client that had its turn last had been served for, before."""

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def put(self, client: object, request: _T) -> bool:
        """Queue a request; False: its client has too many waiting."""
        queue = self._queues.get(client)
        if queue is None:
            queue = self._queues[client] = deque()
            self._stand_in_line(client)
        elif len(queue) >= QUEUED_MAX:
            return False
        queue.append(request)
        return True

    def take(self) -> _T | None:
        """The next request, None when none waits."""
        if not self._order:
            return None
        self._now_ns, _, client = heappop(self._order)
        queue = self._queues[client]
        request = queue.popleft()
        if queue:
            self._stand_in_line(client)
        else:
            del self._queues[client]
        return request

    def charge(self, client: object, spent_ns: int) -> None:
        """`client` was served for so long. Counts from its next turn but one."""
        self._served_ns[client] = max(self._now_ns, self._served_ns.get(client, 0)) + spent_ns
        if len(self._served_ns) > _ACCOUNTS_MAX:
            self._served_ns = {
                one: served for one, served in self._served_ns.items() if served > self._now_ns
            }

    def _stand_in_line(self, client: object) -> None:
        self._turn += 1
        served_ns = max(self._now_ns, self._served_ns.get(client, 0))
        heappush(self._order, (served_ns, self._turn, client))


class Allowance:
    """How many requests a client may make now: what time gave it, up to one second's worth."""

    def __init__(self, now_ns: int) -> None:
        self._left = float(REQUESTS_PER_S)
        self._counted_ns = now_ns

    def take(self, now_ns: int) -> bool:
        """Use up one request; False: there is none left."""
        gained = (now_ns - self._counted_ns) * REQUESTS_PER_S / 1e9
        self._counted_ns = now_ns
        self._left = min(self._left + gained, float(REQUESTS_PER_S))
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Unread:
    """Large answers to one client that libzmq still holds for it."""

    def __init__(self) -> None:
        self._held: deque[tuple[zmq.MessageTracker, int]] = deque()
        self._bytes = 0

    def add(self, tracker: zmq.MessageTracker, size: int) -> None:
        """`size` bytes are on their way until `tracker` is done."""
        while self._held and self._held[0][0].done:
            self._bytes -= self._held.popleft()[1]
        self._held.append((tracker, size))
        self._bytes += size

    def too_many(self) -> bool:
        """Whether the client should read before it asks for more."""
        if self._bytes <= UNREAD_MAX:
            return False
        # One connection may be stuck while others, behind it here, are read.
        self._held = deque(one for one in self._held if not one[0].done)
        self._bytes = sum(size for _, size in self._held)
        return self._bytes > UNREAD_MAX
