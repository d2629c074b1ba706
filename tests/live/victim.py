"""A task that is killed inside two calls at a time, while another partition holds its memory."""

import threading
from collections.abc import Callable
from contextlib import suppress
from random import Random

from tests.live.loops import BOUND_S, let_pass, require
from xpmem_emu.client.blocking import Partition
from xpmem_emu.client.failures import SigKill, TaskSignalled, XpmemError
from xpmem_emu.kernel.calls import MADV_DONTNEED, MADV_PAGEOUT, PROT_READ

PAGE = 4096
PAGES = 8
SIZE = PAGES * PAGE
SLOW_ACK = "xpmem.invalidate.before_ack"
ACK_S = 0.15
"""How long an importer takes to give pages back: long enough to be killed meanwhile, and shorter
than every deadline."""


class Victim:
    """An exporter on `home` whose pages `away` holds. Calls of it that need them back are slow."""

    def __init__(self, home: Partition, away: Partition, rng: Random) -> None:
        self._task, importer = home.spawn("victim"), away.spawn()
        task, base = self._task, self._task.mmap(SIZE)
        task.store(base, bytes(SIZE))
        segid = task.xpmem_make(base, SIZE, 0o666)
        importer.store(importer.xpmem_attach(importer.xpmem_get(segid), 0, SIZE), b"x" * SIZE)
        self._importer = importer
        half = PAGES // 2 * PAGE
        acts: list[Callable[[], object]] = [
            lambda: task.munmap(base, half),
            lambda: task.mprotect(base, half, PROT_READ),
            lambda: task.madvise(base, half, MADV_DONTNEED),
            lambda: task.madvise(base + half, half, MADV_PAGEOUT),
            lambda: task.migrate(base, SIZE),
            lambda: task.fork().exit(),
            lambda: task.xpmem_remove(segid),
            lambda: task.mremap(base + half, half, SIZE),
            task.xpmem_close,
            task.execve,
            task.exit,
        ]
        self._ends: list[Exception] = []
        self._calls = [
            threading.Thread(target=self._make, args=(act,), daemon=True)
            for act in rng.sample(acts, 2)
        ]

    def kill_after(self, pause_s: float) -> int:
        """Begin both calls, kill the task, see all of it end. Result: how many calls were killed
        inside. Raises Broken."""
        for call in self._calls:
            call.start()
        let_pass(pause_s)
        with suppress(XpmemError):  # it may have ended by itself
            self._task.kill()
        for call in self._calls:
            call.join(BOUND_S)
            require(not call.is_alive(), "a call of a killed task hangs")
        self._importer.exit()
        return sum(isinstance(end, SigKill) for end in self._ends)

    def _make(self, act: Callable[[], object]) -> None:
        try:
            act()
        except (XpmemError, TaskSignalled) as end:
            self._ends.append(end)
