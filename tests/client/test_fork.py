"""Connections where they are of no use: in a forked child, and under a storm of signals."""

import asyncio
import errno
import os
import select
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import pytest
import zmq

from tests.live.conftest import Up
from xpmem_emu import connect, connect_async
from xpmem_emu.client.loop import wait_for
from xpmem_emu.kernel import calls

pytestmark = pytest.mark.live

PATIENCE_S = 30
TIMEOUT_S = 0.3


def in_child(act: Callable[[], object]) -> str:
    """What `act` raises in a forked child, or `nothing`; fails when it never ends."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        said = "nothing"
        try:
            act()
        except BaseException as error:
            said = f"{getattr(error, 'errno', None)} {error}"
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    try:
        assert select.select([reading], [], [], PATIENCE_S)[0], "the child never ends"
        return os.read(reading, 4096).decode()
    finally:
        os.close(reading)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@contextmanager
def interrupted_all_the_time() -> Iterator[None]:
    """Signals come faster than a millisecond passes."""
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.0004, 0.0004)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_forked_child_is_told_at_once_that_a_connection_is_not_its_own(up: Up) -> None:
    up(1)
    with connect("p0", "t") as p0, p0.events() as events:
        task = p0.spawn()
        acts: list[Callable[[], object]] = [
            lambda: task.load(0, 8),
            p0.close,
            p0.status,
            p0.events,
            events.close,
            lambda: next(events),
            lambda: p0.call(calls.Status(), timeout=60),
        ]
        for act in acts:
            assert in_child(act).startswith(f"{errno.EBADF} this connection is of process")

        def leave() -> None:
            with p0, events:
                pass

        assert in_child(leave) == "nothing"
        task.store(0, b"parent")
        assert task.load(0, 6) == b"parent"


def test_a_forked_child_connects_by_itself(up: Up) -> None:
    up(1)

    def work() -> None:
        with connect("p0", "t") as own:
            own.spawn().store(0, b"child")

    with connect("p0", "t") as p0:
        assert in_child(work) == "nothing"
        assert p0.spawn().load(0, 5) == b"child"


def test_the_awaited_client_knows_its_process_too(up: Up) -> None:
    up(1)

    async def main() -> None:
        async with await connect_async("p0", "t") as p0:
            task = await p0.spawn()

            def act(steps: Callable[[], Awaitable[object]]) -> str:
                # The child has no loop of its own to wait in; nothing has to wait either.
                return in_child(lambda: steps().__await__().send(None))

            for steps in (lambda: task.load(0, 8), p0.close):
                assert act(steps).startswith(f"{errno.EBADF} this connection is of process")
            await task.store(0, b"parent")

    asyncio.run(main())


def test_nobody_gives_up_early_under_a_storm_of_signals(up: Up) -> None:
    up(1)
    with zmq.Context() as context, context.socket(zmq.PAIR) as silent:
        begun = time.monotonic()
        with interrupted_all_the_time():
            assert wait_for([(silent, zmq.POLLIN)], TIMEOUT_S) == []
        assert time.monotonic() - begun >= TIMEOUT_S
    with connect("p0", "t") as p0:
        begun = time.monotonic()
        with interrupted_all_the_time(), pytest.raises(TimeoutError):
            p0.call(calls.Describe(what="wait"), timeout=TIMEOUT_S)
        assert TIMEOUT_S <= time.monotonic() - begun < PATIENCE_S
        p0.call(calls.Describe(what="go"))
