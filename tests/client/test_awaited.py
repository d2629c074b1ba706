"""The awaited client library, on asyncio and on uvloop."""

import asyncio
import errno
from collections.abc import AsyncGenerator, Awaitable, Callable

import pytest
import uvloop

from tests.live.conftest import Up
from xpmem_emu import connect, connect_async
from xpmem_emu.backend import processes
from xpmem_emu.client.awaited import IN_FLIGHT_MAX, AsyncPartition
from xpmem_emu.client.failures import SigBus, XpmemError
from xpmem_emu.client.operations import CHUNK
from xpmem_emu.kernel import calls

pytestmark = pytest.mark.live

Run = Callable[[Callable[[AsyncPartition], Awaitable[None]]], None]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(up: Up, request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine function with a connection to a fresh partition."""
    up(1, memory=8 << 20, lease_s=1)

    def run_with_connection(body: Callable[[AsyncPartition], Awaitable[None]]) -> None:
        async def main() -> None:
            async with await connect_async("p0", "t") as p0:
                await body(p0)

        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(main())

    return run_with_connection


def test_the_same_operations_are_awaited(run: Run) -> None:
    async def body(p0: AsyncPartition) -> None:
        task = await p0.spawn("a")
        data = b"0123456789abcdef" * (CHUNK // 8)
        await task.store(64, data)
        assert await task.load(64, len(data)) == data
        assert await task.xpmem_make(0, 4096) == 0x1234
        with pytest.raises(FileNotFoundError):
            await task.xpmem_remove(1)
        with pytest.raises(SigBus):
            await task.load(1 << 30, 1)
        child = await task.fork()
        assert [row["pid"] for row in await p0.look("tasks")] == [task.pid, child.pid]

    run(body)
    with connect("p0", "t") as p0:
        assert p0.look("tasks") == []


def test_many_calls_are_in_flight_at_once_and_no_more_than_allowed(run: Run) -> None:
    async def body(p0: AsyncPartition) -> None:
        waiting = [
            asyncio.ensure_future(p0.call(calls.Describe(what="wait")))
            for _ in range(IN_FLIGHT_MAX + 8)
        ]
        with connect("p0", "t") as other:
            for most in (IN_FLIGHT_MAX, 8):
                while other.call(calls.Describe(what="waiting")).value < most:
                    await asyncio.sleep(0)
                await asyncio.wait(waiting, timeout=0.05)
                assert other.call(calls.Describe(what="waiting")).value == most
                other.call(calls.Describe(what="go"))
        assert {one.value for one in await asyncio.gather(*waiting)} == {"went"}

    run(body)


def test_a_quiet_connection_keeps_its_lease(run: Run) -> None:
    async def body(p0: AsyncPartition) -> None:
        await p0.spawn("kept")
        pending = asyncio.ensure_future(p0.call(calls.Describe(what="wait")))
        await asyncio.wait([pending], timeout=2.5)
        assert [row["name"] for row in await p0.look("tasks")] == ["kept"]
        await p0.call(calls.Describe(what="go"))
        await pending

    run(body)


def test_events_arrive_as_they_happen(run: Run) -> None:
    async def body(p0: AsyncPartition) -> None:
        events = p0.events()
        assert isinstance(events, AsyncGenerator)
        born = (one async for one in events if one["event"] == "fake:task_born")
        first = asyncio.ensure_future(anext(born))
        while not first.done():
            pid = (await p0.spawn()).pid
        assert (await first)["pid"] <= pid
        await events.aclose()

    run(body)


def test_a_call_in_flight_fails_when_the_partition_dies(run: Run) -> None:
    async def body(p0: AsyncPartition) -> None:
        pending = asyncio.ensure_future(p0.call(calls.Describe(what="wait")))
        await p0.status()
        processes.crash("t", "p0")
        with pytest.raises(XpmemError) as caught:
            await pending
        assert caught.value.errno == errno.ECONNRESET

    run(body)


def test_a_reader_of_events_is_told_when_the_partition_dies(run: Run) -> None:
    async def body(p0: AsyncPartition) -> None:
        events = p0.events()
        assert isinstance(events, AsyncGenerator)
        first = asyncio.ensure_future(anext(events))
        while not first.done():
            await p0.spawn()
        processes.crash("t", "p0")
        with pytest.raises(ConnectionResetError):
            [event async for event in events]

    run(body)


def test_a_call_has_as_long_as_it_is_given_and_one_that_is_cancelled_makes_room(run: Run) -> None:
    async def body(p0: AsyncPartition) -> None:
        with pytest.raises(TimeoutError, match=r"within 0\.1 s"):
            await p0.call(calls.Describe(what="wait"), timeout=0.1)
        waiting = [
            asyncio.ensure_future(p0.call(calls.Describe(what="wait")))
            for _ in range(IN_FLIGHT_MAX)
        ]
        last = asyncio.ensure_future(p0.status())
        await asyncio.wait([last], timeout=0.05)
        assert not last.done()
        waiting[0].cancel()
        assert (await last)["partid"] == 0
        waiting[1].cancel()
        await p0.call(calls.Describe(what="go"))
        await asyncio.gather(*waiting[2:])

    run(body)


def test_a_closed_connection_refuses_calls(run: Run) -> None:
    async def body(p0: AsyncPartition) -> None:
        pending = asyncio.ensure_future(p0.call(calls.Describe(what="wait")))
        await p0.status()
        await p0.close()
        await p0.close()
        for asked in (pending, p0.status()):
            with pytest.raises(XpmemError, match="closed"):
                await asked

    run(body)
