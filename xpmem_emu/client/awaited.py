"""The awaited client library: the same operations on asyncio or uvloop, any number at a time.

One connection per partition; requests in flight are bounded, the others wait their turn. Tasks
spawned by a connection are killed when it is closed or when this process dies, as with the
blocking client.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from functools import partial

import zmq

from xpmem_emu.client.connection import Answered, Connection, EventsCame, answers_in, ping
from xpmem_emu.client.dial import (
    BYE_TIMEOUT_S,
    CALL_TIMEOUT_S,
    CONNECT_TIMEOUT_S,
    Dial,
    credentials,
    new_hello,
    whereabouts,
)
from xpmem_emu.client.failures import OwnProcess, XpmemError, xpmem_error
from xpmem_emu.client.harness_operations import HarnessOperations
from xpmem_emu.client.loop import Inbox, send_now
from xpmem_emu.client.operations import Awaited, OperationAnswer, OperationRequest
from xpmem_emu.client.partition_operations import PartitionOperations
from xpmem_emu.client.task_operations import TaskOperations
from xpmem_emu.client.wire import Ask, BootFacts, EventBatch
from xpmem_emu.codec import Buffer, convert
from xpmem_emu.kernel.call import Call, TableRow

IN_FLIGHT_MAX = 64
_BATCHES_MAX = 64
_CONNECT_POLL_S = 0.005


async def connect_async(
    partition: str, cluster: str | None = None, *, boot: int = 0, timeout: float = CALL_TIMEOUT_S
) -> AsyncPartition:
    """Connect as `xpmem_emu.connect` does. To be closed, or used with `async with`."""
    name, endpoint, keys = whereabouts(partition, cluster)
    connection = AsyncPartition(name, endpoint, timeout=timeout, keys=keys)
    try:
        await connection.open(boot)
    except BaseException:
        connection.abandon()
        raise
    return connection


class AsyncPartition(HarnessOperations, PartitionOperations["AsyncTask"], Awaited):
    """One session with one boot of one partition. Made by `connect_async`."""

    facts: BootFacts

    def __init__(self, name: str, endpoint: str, *, timeout: float, keys: str = "") -> None:
        self.name = name
        self.endpoint = endpoint
        self.timeout = timeout
        self._process = OwnProcess()
        self._loop = asyncio.get_running_loop()
        self._connection = Connection(endpoint, IN_FLIGHT_MAX)
        self._waiting: dict[int, asyncio.Future[OperationAnswer]] = {}
        self._streams: dict[int, _Inflow] = {}
        self._dial = Dial(endpoint, credentials(name, endpoint, keys))
        self._socket = self._dial.socket
        self._inbox = Inbox(self._loop, self._socket, self._received)
        self._expiry: asyncio.TimerHandle | None = None
        self._heart: asyncio.Task[None] | None = None

    async def __aenter__(self) -> AsyncPartition:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process.is_ours():
            await self.close()

    def task(self, pid: int) -> AsyncTask:
        """The task `pid`, which exists already."""
        return AsyncTask(self, pid)

    async def call(
        self, call: Call, bulk: Buffer = b"", timeout: float | None = None
    ) -> OperationAnswer:
        """Any call of `kernel.calls`. Raises XpmemError or TaskSignalled."""
        (answer,) = await self.exchange([OperationRequest(call, bulk)], timeout)
        return answer

    async def exchange(
        self, requests: Sequence[OperationRequest], timeout: float | None = None
    ) -> list[OperationAnswer]:
        asked = self._ask(requests, timeout).values()
        return answers_in(await asyncio.gather(*asked, return_exceptions=True))

    async def events(self) -> AsyncIterator[TableRow]:
        """The events from the first iteration on, as flat mappings, without end. Lost ones show
        as `{"event": "harness:dropped", "count": n}`."""
        ((ident, subscribed),) = self._ask([OperationRequest(None, kind=Ask.SUBSCRIBE)]).items()
        inflow = self._streams[ident] = _Inflow()
        try:
            await subscribed
            while (batch := await inflow.queue.get()) is not None:
                if batch.dropped:
                    yield {"event": "harness:dropped", "count": batch.dropped}
                for event in batch.events:
                    yield event
            self._connection.require()
        finally:
            del self._streams[ident]
            with suppress(XpmemError):
                unsubscribe = OperationRequest(ident, kind=Ask.UNSUBSCRIBE)
                await self.exchange([unsubscribe], CONNECT_TIMEOUT_S)

    async def open(self, boot: int) -> None:
        """Say hello to that boot, 0: to whichever runs. Raises XpmemError when nobody answers in
        time, ESTALE when another boot does."""
        deadline_s = self._loop.time() + CONNECT_TIMEOUT_S
        while not self._dial.connected(0):
            if self._loop.time() > deadline_s:
                raise self._dial.unanswered()
            await asyncio.sleep(_CONNECT_POLL_S)
        hello = OperationRequest(new_hello(boot), kind=Ask.HELLO)
        (answer,) = await self.exchange([hello], CONNECT_TIMEOUT_S)
        self.facts = convert(answer.value, BootFacts)
        self._heart = asyncio.create_task(self._beat())

    async def close(self) -> None:
        """End the session; returns when the tasks it spawned are gone. Raises XpmemError EBADF in a
        forked child, whose it is not; never otherwise."""
        self._process.require()
        if self._socket.closed:
            return
        with suppress(XpmemError):
            await self.exchange([OperationRequest(None, kind=Ask.BYE)], BYE_TIMEOUT_S)
        self.abandon()

    def abandon(self) -> None:
        """Close without a word; calls in flight fail."""
        if self._heart is not None:
            self._heart.cancel()
        if self._expiry is not None:
            self._expiry.cancel()
        self._inbox.close()
        self._dial.give_up()
        closed = xpmem_error(errno.EBADF, f"the connection to {self.name} is closed")
        self._gone(self._connection.end(closed))

    # -- the connection --------------------------------------------------------------------

    def _ask(
        self, requests: Sequence[OperationRequest], timeout: float | None = None
    ) -> dict[int, asyncio.Future[OperationAnswer]]:
        """What becomes of them, by their idents, in their order."""
        # Before anything is scheduled: a forked child has no loop that would run it.
        self._process.require()
        seconds = self.timeout if timeout is None else timeout
        now_s = self._loop.time()
        asked = {
            ident: self._loop.create_future()
            for ident in self._connection.ask(requests, now_s, seconds)
        }
        for ident, future in asked.items():
            self._waiting[ident] = future
            future.add_done_callback(partial(self._done, ident))
        self._expire_at(now_s + seconds)
        self._send()
        return asked

    def _done(self, ident: int, _future: object) -> None:
        """It has an outcome, or nobody waits for it any more: the turn is somebody else's."""
        del self._waiting[ident]
        self._connection.forget([ident])
        self._send()

    def _send(self) -> None:
        while (frames := self._connection.next_message()) is not None:
            if not send_now(self._socket, frames):
                self._gone(self._connection.lose())
                return
            self._inbox.look_again()

    def _received(self, frames: list[Buffer]) -> None:
        match self._connection.receive(frames):
            case Answered() as answered:
                self._ended([answered])
            case EventsCame(ident, batch) if ident in self._streams:
                self._streams[ident].put(batch)

    def _ended(self, requests: Sequence[Answered]) -> None:
        for one in requests:
            future = self._waiting[one.ident]
            if future.done():
                continue  # cancelled, and not heard of yet
            if isinstance(one.outcome, OperationAnswer):
                future.set_result(one.outcome)
            else:
                future.set_exception(one.outcome)

    def _gone(self, requests: Sequence[Answered]) -> None:
        self._ended(requests)
        for inflow in self._streams.values():
            inflow.queue.put_nowait(None)

    def _expire_at(self, deadline_s: float) -> None:
        """Look then for requests that waited long enough, if not earlier."""
        if self._expiry is not None:
            if self._expiry.when() <= deadline_s:
                return
            self._expiry.cancel()
        self._expiry = self._loop.call_at(deadline_s, self._expire)

    def _expire(self) -> None:
        self._expiry = None
        self._ended(self._connection.expire(self._loop.time()))
        if (next_s := self._connection.deadline_s) is not None:
            self._expire_at(next_s)

    async def _beat(self) -> None:
        """Keep the lease, and notice when the partition goes away."""
        while not self._connection.ended:
            await asyncio.sleep(min(self.facts.lease_s / 5, 0.5))
            if not self._socket.poll(0, zmq.POLLOUT):
                self._gone(self._connection.lose())
                return
            # Nobody waits for the answer: calls notice by themselves.
            send_now(self._socket, ping())


class _Inflow:
    """Batches that one reader of events has not taken yet; a slow reader loses some."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[EventBatch | None] = asyncio.Queue()
        """None: no more will come."""
        self._lost = 0

    def put(self, batch: EventBatch) -> None:
        if self.queue.qsize() >= _BATCHES_MAX:
            self._lost += len(batch.events) + batch.dropped
        else:
            self.queue.put_nowait(EventBatch(batch.events, batch.dropped + self._lost))
            self._lost = 0


class AsyncTask(TaskOperations["AsyncTask"], Awaited):
    """A simulated process on a partition."""

    def __init__(self, partition: AsyncPartition, pid: int) -> None:
        self.partition = partition
        self.pid = pid

    def sibling(self, pid: int) -> AsyncTask:
        return self.partition.task(pid)

    async def exchange(self, requests: Sequence[OperationRequest]) -> list[OperationAnswer]:
        return await self.partition.exchange(requests)
