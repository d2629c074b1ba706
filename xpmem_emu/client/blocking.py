"""The blocking client library: connect to a partition, spawn tasks, let them share memory.

    with connect("p0") as p0, connect("p1") as p1:
        exporter, importer = p0.spawn(), p1.spawn()

Tasks spawned by a connection are killed when it is closed, or when this process dies: a thread
of the library tells the partition that we live. Objects may be used by several threads; each call
in progress has a line of its own. A partition that rebooted is another one: connect again.
"""

from __future__ import annotations

import errno
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress

import msgspec

from xpmem_emu.client.dial import (
    BYE_TIMEOUT_S,
    CALL_TIMEOUT_S,
    CONNECT_TIMEOUT_S,
    credentials,
    new_hello,
    whereabouts,
)
from xpmem_emu.client.failures import OwnProcess, XpmemError, xpmem_error
from xpmem_emu.client.harness_operations import HarnessOperations
from xpmem_emu.client.line import Line
from xpmem_emu.client.operations import Blocking, OperationAnswer, OperationRequest
from xpmem_emu.client.partition_operations import PartitionOperations
from xpmem_emu.client.task_operations import TaskOperations
from xpmem_emu.client.wire import Ask, BootFacts
from xpmem_emu.codec import Buffer
from xpmem_emu.kernel.call import Call, TableRow

_LINES_MAX = 64


def connect(
    partition: str, cluster: str | None = None, *, boot: int = 0, timeout: float = CALL_TIMEOUT_S
) -> Partition:
    """Connect to a partition by name, or by its console endpoint (`ipc://`, `tcp://`), before
    which stands whose it is where keys guard it: `p0@tcp://host:7100`.

    `cluster`: else `$XPMEM_EMU_CLUSTER`, else `default`. `timeout` in seconds bounds each call.
    `boot`: which boot is meant (`facts.boot` of an earlier connection), 0: whichever runs. Keys are
    those of `$XPMEM_EMU_KEYS`, else those that the cluster was started with here. Raises
    XpmemError, ESTALE when another boot runs than is meant.
    """
    name, endpoint, keys = whereabouts(partition, cluster)
    return Partition(name, endpoint, boot=boot, timeout=timeout, keys=keys)


class Partition(HarnessOperations, PartitionOperations["Task"], Blocking):
    """One session with one boot of one partition."""

    def __init__(
        self,
        name: str,
        endpoint: str,
        *,
        boot: int = 0,
        timeout: float = CALL_TIMEOUT_S,
        keys: str = "",
    ) -> None:
        """`keys` is a folder. Raises XpmemError when nobody answers at `endpoint`, or not the
        boot that is meant."""
        self.name = name
        self.endpoint = endpoint
        self.timeout = timeout
        hello = new_hello(boot)
        self._lock = threading.Lock()
        self._idle: list[Line] = []
        self._lines = threading.BoundedSemaphore(_LINES_MAX)
        self._closed = threading.Event()
        self.process = OwnProcess()
        self._credentials = credentials(name, endpoint, keys)
        line = Line(endpoint, hello, CONNECT_TIMEOUT_S, self._credentials)
        self.facts: BootFacts = line.facts
        # From now on that boot is meant, by every further line too.
        self._hello = msgspec.structs.replace(hello, boot=line.facts.boot)
        self._idle.append(line)
        self._heart = threading.Thread(
            target=self._beat, name=f"xpmem-emu heart of {name}", daemon=True
        )
        self._heart.start()

    def __repr__(self) -> str:
        return f"<Partition {self.facts.name} boot {self.facts.boot}>"

    def __enter__(self) -> Partition:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.is_ours():
            self.close()

    def task(self, pid: int) -> Task:
        """The task `pid`, which exists already."""
        return Task(self, pid)

    def call(self, call: Call, bulk: Buffer = b"", timeout: float | None = None) -> OperationAnswer:
        """Any call of `kernel.calls`. Raises XpmemError or TaskSignalled."""
        return self.exchange([OperationRequest(call, bulk)], timeout)[0]

    def events(self) -> EventStream:
        """The events of the partition from now on, as flat mappings, without end."""
        return EventStream(self)

    def close(self) -> None:
        """End the session; returns when the tasks it spawned are gone. Raises XpmemError EBADF in a
        forked child, whose it is not; never otherwise."""
        self.process.require()
        if self._closed.is_set():
            return
        with suppress(XpmemError):
            self.exchange([OperationRequest(None, kind=Ask.BYE)], BYE_TIMEOUT_S)
        self._closed.set()
        self._heart.join(BYE_TIMEOUT_S)
        with self._lock:
            for line in self._idle:
                line.close()
            self._idle.clear()

    # -- lines -----------------------------------------------------------------------------

    def exchange(
        self, requests: Sequence[OperationRequest], timeout: float | None = None
    ) -> list[OperationAnswer]:
        with self.borrowed_line() as line:
            return line.exchange(requests, self.timeout if timeout is None else timeout)

    @contextmanager
    def borrowed_line(self) -> Iterator[Line]:
        """A line for the exclusive use of the calling thread. Raises XpmemError."""
        # Before any lock, which in a child may be held by a thread that it does not have.
        self.process.require()
        with self._lines:
            with self._lock:
                line = self._idle.pop() if self._idle else None
            line = line or self._new_line()
            try:
                yield line
            finally:
                with self._lock:
                    if self._closed.is_set() or line.broken:
                        line.close()
                    else:
                        self._idle.append(line)

    def _new_line(self) -> Line:
        """Raises XpmemError ESTALE when the partition has rebooted."""
        if self._closed.is_set():
            raise xpmem_error(errno.EBADF, f"the connection to {self.name} is closed")
        return Line(self.endpoint, self._hello, CONNECT_TIMEOUT_S, self._credentials)

    def _beat(self) -> None:
        """Keep the lease, until closed, or until the partition or the session is gone."""
        pause_s = self.facts.lease_s / 5
        # A short visit needs no heart, and a line opened now might say hello after the goodbye.
        if self._closed.wait(pause_s):
            return
        with suppress(XpmemError), closing(self._new_line()) as line:
            while not self._closed.wait(pause_s):
                # A partition that stands still answers late; that is no reason to give it up.
                with suppress(TimeoutError):
                    line.exchange([OperationRequest(None, kind=Ask.PING)], pause_s)


class EventStream:
    """The live events of a partition, from the moment it is made. Lost ones show as
    `{"event": "harness:dropped", "count": n}`. An iterator and a context manager."""

    def __init__(self, partition: Partition) -> None:
        """Raises XpmemError."""
        self._process = partition.process
        self._stack = ExitStack()
        self._line = self._stack.enter_context(partition.borrowed_line())
        self._subscription = self._line.subscribe(partition.timeout)
        self._stack.callback(self._unsubscribe, CONNECT_TIMEOUT_S)
        self._queue: deque[TableRow] = deque()

    def __iter__(self) -> EventStream:
        return self

    def __next__(self) -> TableRow:
        while not self._queue:
            batch = self._line.next_events(self._subscription)
            if batch.dropped:
                self._queue.append({"event": "harness:dropped", "count": batch.dropped})
            self._queue.extend(batch.events)
        return self._queue.popleft()

    def __enter__(self) -> EventStream:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.is_ours():
            self.close()

    def close(self) -> None:
        """No more events. Raises XpmemError EBADF in a forked child."""
        self._process.require()
        self._stack.close()

    def _unsubscribe(self, timeout: float) -> None:
        request = OperationRequest(self._subscription, kind=Ask.UNSUBSCRIBE)
        with suppress(XpmemError):
            self._line.exchange([request], timeout)


class Task(TaskOperations["Task"], Blocking):
    """A simulated process on a partition."""

    def __init__(self, partition: Partition, pid: int) -> None:
        self.partition = partition
        self.pid = pid

    def __repr__(self) -> str:
        return f"<Task {self.pid} on {self.partition.name}>"

    def sibling(self, pid: int) -> Task:
        return self.partition.task(pid)

    def exchange(self, requests: Sequence[OperationRequest]) -> list[OperationAnswer]:
        return self.partition.exchange(requests)
