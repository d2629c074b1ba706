"""A partition that shuts down while calls run: every caller learns of it, and at once."""

import asyncio
import errno
import threading
import time
from collections.abc import Callable

import psutil
import pytest

from xpmem_emu import connect, connect_async
from xpmem_emu.backend import processes
from xpmem_emu.client.blocking import Partition
from xpmem_emu.client.failures import TaskSignalled, XpmemError
from xpmem_emu.kernel.calls import Status

from .conftest import Home, real_spec
from .keyed import eventually

pytestmark = pytest.mark.live

POINT = "kernel.call.before_answer"
CALLERS = 6
AT_ONCE_S = 10


class Caller(threading.Thread):
    """One call, and how it ended."""

    def __init__(self, partition: Partition) -> None:
        super().__init__(daemon=True)
        self._partition = partition
        self.end: object = None

    def run(self) -> None:
        try:
            self.end = self._partition.call(Status())
        except (XpmemError, TaskSignalled) as error:
            self.end = error


def by_down() -> None:
    processes.down("t")


def by_a_client() -> None:
    with connect("p0", "t") as p0:
        p0.shutdown()


def by_signal() -> None:
    process = psutil.Process(processes.ps("t")[0].pid)
    process.terminate()
    process.wait(AT_ONCE_S)


@pytest.mark.parametrize("shut_down", [by_down, by_a_client, by_signal])
def test_every_call_is_answered_when_its_partition_shuts_down(
    home: Home, shut_down: Callable[[], None]
) -> None:
    processes.up(real_spec("t", 2))
    with connect("p0", "t", timeout=60) as p0:
        p0.failpoint_set(POINT, "pause")
        callers = [Caller(p0) for _ in range(CALLERS)]
        for caller in callers:
            caller.start()
        eventually(lambda: paused(p0) == CALLERS)

        async def awaited() -> None:
            async with await connect_async("p0", "t", timeout=60) as other:
                pending = asyncio.ensure_future(other.call(Status()))
                while paused(p0) <= CALLERS:
                    await asyncio.sleep(0)
                begun = time.monotonic()
                await asyncio.to_thread(shut_down)
                with pytest.raises(XpmemError) as caught:
                    await pending
                require_told(caught.value)
                for caller in callers:
                    caller.join(AT_ONCE_S)
                    require_told(caller.end)
                assert time.monotonic() - begun < AT_ONCE_S

        asyncio.run(awaited())


def paused(p0: Partition) -> int:
    return sum(int(row["paused"]) for row in p0.failpoints() if row["point"] == POINT)


def require_told(end: object) -> None:
    """An answer with the reason, or a connection that says that the partition went away."""
    assert isinstance(end, XpmemError), end
    assert end.errno in (errno.ESHUTDOWN, errno.EHOSTDOWN, errno.ECONNRESET), end
    assert end.cause
