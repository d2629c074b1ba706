"""The awaited client library: the same operations on asyncio or uvloop, any number at a time.

One connection per partition; requests in flight are bounded, the others wait their turn. Tasks
spawned by a connection are killed when it is closed or when this process dies, as with the
blocking client.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import TypeVar

import zmq

from xpmem_emu.client.blocking import CALL_TIMEOUT_S, CONNECT_TIMEOUT_S, new_hello, whereabouts
from xpmem_emu.client.connection import read_answer, read_message, request_frames
from xpmem_emu.client.dial import Dial, credentials
from xpmem_emu.client.failures import OwnProcess, TaskSignalled, XpmemError, xpmem_error
from xpmem_emu.client.loop import Inbox, send_now
from xpmem_emu.client.operations import Awaited, OperationAnswer, OperationRequest, Steps
from xpmem_emu.client.partition_operations import PartitionOperations, TableRow
from xpmem_emu.client.task_operations import TaskOperations
from xpmem_emu.client.wire import Ask, BootFacts, EventBatch, Say
from xpmem_emu.codec import Buffer, convert
from xpmem_emu.kernel.calls import Call

_T = TypeVar("_T")

IN_FLIGHT_MAX = 64
_BYE_TIMEOUT_S = 2.0
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


class AsyncPartition(PartitionOperations["AsyncTask"], Awaited):
    """One session with one boot of one partition. Made by `connect_async`."""

    facts: BootFacts

    def __init__(self, name: str, endpoint: str, *, timeout: float, keys: str = "") -> None:
        self.name = name
        self.endpoint = endpoint
        self.timeout = timeout
        self._process = OwnProcess()
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[OperationAnswer]] = {}
        self._streams: dict[int, _Inflow] = {}
        self._turn = asyncio.Semaphore(IN_FLIGHT_MAX)
        self._dial = Dial(endpoint, credentials(name, endpoint, keys))
        self._socket = self._dial.socket
        self._inbox = Inbox(asyncio.get_running_loop(), self._socket, self._received)
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
        return await self._ask(OperationRequest(call, bulk), timeout)

    async def run(self, steps: Steps[_T]) -> _T:
        try:
            requests = next(steps)
            while True:
                try:
                    answers = await self._exchange(requests)
                except (XpmemError, TaskSignalled) as failure:
                    requests = steps.throw(failure)
                else:
                    requests = steps.send(answers)
        except StopIteration as end:
            result: _T = end.value
            return result

    async def events(self) -> AsyncIterator[TableRow]:
        """The events from the first iteration on, as flat mappings, without end. Lost ones show
        as `{"event": "harness:dropped", "count": n}`."""
        ident = next(self._ids)
        inflow = self._streams[ident] = _Inflow()
        try:
            await self._ask(OperationRequest(None, kind=Ask.SUBSCRIBE), None, ident)
            while True:
                batch = await inflow.queue.get()
                if batch.dropped:
                    yield {"event": "harness:dropped", "count": batch.dropped}
                for event in batch.events:
                    yield event
        finally:
            del self._streams[ident]
            with suppress(XpmemError):
                await self._ask(OperationRequest(ident, kind=Ask.UNSUBSCRIBE), CONNECT_TIMEOUT_S)

    async def open(self, boot: int) -> None:
        """Say hello to that boot, 0: to whichever runs. Raises XpmemError when nobody answers in
        time, ESTALE when another boot does."""
        deadline = asyncio.get_running_loop().time() + CONNECT_TIMEOUT_S
        while not self._dial.connected(0):
            if asyncio.get_running_loop().time() > deadline:
                raise self._dial.unanswered()
            await asyncio.sleep(_CONNECT_POLL_S)
        answer = await self._ask(
            OperationRequest(new_hello(boot), kind=Ask.HELLO), CONNECT_TIMEOUT_S
        )
        self.facts = convert(answer.value, BootFacts)
        self._heart = asyncio.create_task(self._beat())

    async def close(self) -> None:
        """End the session; returns when the tasks it spawned are gone. Raises XpmemError EBADF in a
        forked child, whose it is not; never otherwise."""
        self._process.require()
        if self._socket.closed:
            return
        with suppress(XpmemError):
            await self._ask(OperationRequest(None, kind=Ask.BYE), _BYE_TIMEOUT_S)
        self.abandon()

    def abandon(self) -> None:
        """Close without a word; calls in flight fail."""
        if self._heart is not None:
            self._heart.cancel()
        self._inbox.close()
        self._dial.give_up()
        self._fail_all(xpmem_error(errno.EBADF, f"the connection to {self.name} is closed"))

    # -- the connection --------------------------------------------------------------------

    async def _exchange(self, requests: Sequence[OperationRequest]) -> list[OperationAnswer]:
        """All answers, or the first failure, once every request was answered."""
        # Before anything is scheduled: a forked child has no loop that would run it.
        self._process.require()
        asked = (self._ask(request, None) for request in requests)
        answers: list[OperationAnswer] = []
        for outcome in await asyncio.gather(*asked, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome
            answers.append(outcome)
        return answers

    async def _ask(
        self, request: OperationRequest, timeout: float | None, ident: int | None = None
    ) -> OperationAnswer:
        self._process.require()
        seconds = self.timeout if timeout is None else timeout
        async with self._turn:
            ident = next(self._ids) if ident is None else ident
            if self._socket.closed or not send_now(self._socket, request_frames(ident, request)):
                raise self._reset()
            self._inbox.look_again()
            future = self._waiting[ident] = asyncio.get_running_loop().create_future()
            try:
                return await asyncio.wait_for(future, seconds)
            except TimeoutError:
                raise xpmem_error(
                    errno.ETIMEDOUT,
                    f"no answer from {self.endpoint} within {seconds:g} s",
                    "xpmem-emu ps (is the partition stopped?), or a longer timeout",
                ) from None
            finally:
                self._waiting.pop(ident, None)

    def _received(self, frames: list[Buffer]) -> None:
        envelope, bulk = read_message(frames)
        if envelope.kind == Say.EVENTS:
            if envelope.id in self._streams:
                self._streams[envelope.id].put(convert(envelope.body, EventBatch))
            return
        future = self._waiting.get(envelope.id)
        if future is None or future.done():
            return
        try:
            future.set_result(read_answer(envelope, bulk))
        except (XpmemError, TaskSignalled) as failure:
            future.set_exception(failure)

    async def _beat(self) -> None:
        """Keep the lease, and notice when the partition goes away."""
        while True:
            await asyncio.sleep(min(self.facts.lease_s / 5, 0.5))
            if not self._connected():
                self._fail_all(self._reset())
                return
            # Outside of the window, and nobody waits for the answer: calls notice by themselves.
            send_now(self._socket, request_frames(0, OperationRequest(None, kind=Ask.PING)))

    def _connected(self) -> bool:
        return bool(self._socket.poll(0, zmq.POLLOUT))

    def _fail_all(self, error: XpmemError) -> None:
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(error)

    def _reset(self) -> XpmemError:
        return xpmem_error(
            errno.ECONNRESET,
            f"the partition at {self.endpoint} went away",
            "xpmem-emu ps; connect again",
        )


class _Inflow:
    """Batches that one reader of events has not taken yet; a slow reader loses some."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[EventBatch] = asyncio.Queue(_BATCHES_MAX)
        self._lost = 0

    def put(self, batch: EventBatch) -> None:
        if self.queue.full():
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

    async def run(self, steps: Steps[_T]) -> _T:
        return await self.partition.run(steps)
