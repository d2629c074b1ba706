"""Readers of the event stream of one partition: the ring of recent events, subscribers, a file.

Publishing costs one list extension when nobody listens; records become mappings only for a
reader. A subscriber that does not keep up loses events, never memory: its queue is bounded and
the loss is counted into the stream that it does get.
"""

from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import BinaryIO

import msgspec

from xpmem_emu import codec
from xpmem_emu.client.wire import EventBatch
from xpmem_emu.live import log
from xpmem_emu.trace import Record

_BATCH = 512
"""Most events in one message to a subscriber."""


Pack = Callable[[EventBatch], bytes]
"""Makes the message of a batch for one subscriber."""
Transmit = Callable[[bytes], bool]
"""Sends a message to one subscriber; False: it cannot take one now."""


class Subscription:
    """One reader of the live stream."""

    def __init__(self, pack: Pack, transmit: Transmit, limit: int) -> None:
        self._pack = pack
        self._transmit = transmit
        self._limit = limit
        self._queue: deque[Record] = deque()
        self._dropped = 0
        self._message = b""
        """What it could not take, and is tried again as it is: who does not read costs nothing."""
        self._in_message = 0

    def add(self, records: Sequence[Record]) -> None:
        """Queue what fits."""
        room = self._limit - len(self._queue)
        self._queue.extend(records[:room])
        self._dropped += max(0, len(records) - room)

    def flush(self) -> bool:
        """Send what is queued; False: some is left for later."""
        queue = self._queue
        while queue or self._dropped or self._message:
            if not self._message:
                batch = list(islice(queue, _BATCH))
                records = [record.flat() for record in batch]
                self._message = self._pack(EventBatch(records, self._dropped))
                self._in_message, self._dropped = len(batch), 0
            if not self._transmit(self._message):
                return False
            self._message = b""
            for _ in range(self._in_message):
                queue.popleft()
        return True


class StreamServer:
    """All readers. `remember` and `queue_max` are numbers of events."""

    def __init__(self, remember: int, queue_max: int, log: BinaryIO | None) -> None:
        self._ring: deque[Record] = deque(maxlen=remember)
        self._told: deque[msgspec.Raw] = deque(maxlen=remember)
        """The ring as far as somebody asked for it, packed: each event once, however many ask."""
        self._untold = 0
        """Events of the ring that are not in `_told` yet."""
        self._queue_max = queue_max
        self._log = log
        self._subscriptions: dict[object, Subscription] = {}

    def publish(self, records: Sequence[Record]) -> bool:
        """Hand `records` to every reader; True when subscribers wait for a flush."""
        self._ring.extend(records)
        self._untold = min(self._untold + len(records), len(self._ring))
        if self._log is not None:
            self._write(self._log, records)
        for subscription in self._subscriptions.values():
            subscription.add(records)
        return bool(self._subscriptions)

    def recent(self) -> list[msgspec.Raw]:
        """The last events as flat mappings, oldest first, packed."""
        new = islice(self._ring, len(self._ring) - self._untold, None)
        self._told.extend(msgspec.Raw(codec.encode(record.flat())) for record in new)
        self._untold = 0
        return list(self._told)

    def subscribe(self, key: object, pack: Pack, transmit: Transmit) -> None:
        """A new reader from now on, known as `key`."""
        self._subscriptions[key] = Subscription(pack, transmit, self._queue_max)

    def unsubscribe(self, key: object) -> None:
        """The reader goes; an unknown one is none."""
        self._subscriptions.pop(key, None)

    def flush(self) -> bool:
        """Send everybody what is queued; False: somebody is slow, flush again later."""
        slow = [one for one in self._subscriptions.values() if not one.flush()]
        return not slow

    def _write(self, file: BinaryIO, records: Sequence[Record]) -> None:
        try:
            file.write(b"".join(msgspec.json.encode(one.flat()) + b"\n" for one in records))
        except OSError as error:
            # A full disk must not stop the partition; the file ends here.
            log.error("event log ended", why=str(error))
            self._log = None
