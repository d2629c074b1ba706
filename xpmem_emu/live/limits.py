"""What one client may take of a console, and whose request is next.

Requests wait in one bounded queue per client and are served in turn, one of each, so a client with
a thousand requests delays another's by one request. All numbers are per client: a client with a
key is its key, over however many connections; one of a unix socket is its session.

Nothing here knows what a request is.
"""

from collections import OrderedDict, deque
from typing import Generic, TypeVar

import zmq

T = TypeVar("T")

QUEUED_MAX = 256
"""Requests that wait for their turn."""
REQUESTS_PER_S = 20_000
"""Requests of a client with a key; a burst may have as many at once."""
BULK_MAX = 1 << 22
"""Bytes of bulk in one request, or asked for with one: longer transfers come in pieces."""
UNREAD_MAX = 1 << 26
"""Bytes of bulk in answers that the client has not taken yet."""
BATCH = 8
"""Requests that are read before some are served; libzmq takes one of each connection in turn."""
TURN_NS = 200_000
"""How long requests are served before everything else of the partition has its turn."""


class Turns(Generic[T]):
    """Requests in the order in which they are served."""

    def __init__(self) -> None:
        self._queues: OrderedDict[object, deque[T]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def put(self, client: object, request: T) -> bool:
        """Queue a request; False: its client has too many waiting."""
        queue = self._queues.setdefault(client, deque())
        if len(queue) >= QUEUED_MAX:
            return False
        queue.append(request)
        return True

    def take(self) -> T | None:
        """The next request, None when none waits. Its client is served again after all others."""
        if not self._queues:
            return None
        client, queue = self._queues.popitem(last=False)
        request = queue.popleft()
        if queue:
            self._queues[client] = queue
        return request


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
    """Bulk of answers to one client that libzmq still holds for it."""

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
