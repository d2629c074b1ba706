"""Load for real partitions: clients whose tasks do everything at random, and bear everything.

A refused call, a signal, a partition that is gone: all of that is expected while others break
things. Not expected is an answer that never comes, or an exception of another kind.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from random import Random

from tests.live.loops import BOUND_S
from xpmem_emu import connect
from xpmem_emu.client.blocking import Partition, Task
from xpmem_emu.client.failures import TaskSignalled
from xpmem_emu.kernel import calls

PAGE = 4096
PAGES = 32
VISIT_CALLS = 60
SEGMENTS_KNOWN = 64
_FLAGS = calls.MAP_PRIVATE | calls.MAP_ANONYMOUS
_ADVICE = (calls.MADV_DONTNEED, calls.MADV_PAGEOUT)


class Market:
    """Segments that anybody may attach, the newest ones."""

    def __init__(self) -> None:
        self._segids: list[int] = []
        self._lock = threading.Lock()

    def offer(self, segid: int) -> None:
        """A new one."""
        with self._lock:
            self._segids = [*self._segids[-SEGMENTS_KNOWN:], segid]

    def pick(self, rng: Random) -> int:
        """Any of them, perhaps one that is gone by now; 0: there is none."""
        with self._lock:
            return rng.choice(self._segids) if self._segids else 0


@dataclass
class Doings:
    """What one task has."""

    task: Task
    regions: list[int] = field(default_factory=list)
    segids: list[int] = field(default_factory=list)
    apids: list[int] = field(default_factory=list)
    views: list[int] = field(default_factory=list)


class Client(threading.Thread):
    """Visits one partition again and again until `stop`. `outcomes` counts how calls ended."""

    def __init__(
        self,
        cluster: str,
        partition: str,
        market: Market,
        seed: str,
        stop: threading.Event,
        hands: int = 1,
    ) -> None:
        """`hands`: how many calls of one task there may be at a time."""
        super().__init__(daemon=True, name=f"client of {partition} {seed}")
        self.outcomes: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._cluster, self._where, self._market = cluster, partition, market
        self._rng = Random(seed)
        self._stop_now = stop
        self._hands = hands
        self._acts: list[Callable[[Doings], object]] = [
            self._map,
            self._make,
            self._attach,
            self._attach,
            self._load,
            self._load,
            self._store,
            self._store,
            self._store,
            self._amo,
            self._detach,
            self._release,
            self._remove,
            self._unmap,
            self._advise,
            self._migrate,
            self._fork,
            self._copy,
        ]

    def run(self) -> None:
        while not self._stop_now.is_set():
            self._timed("visit", self._visit)
            self._stop_now.wait(0.02)

    def _timed(self, name: str, act: Callable[[], object]) -> bool:
        """Do it; False when it was refused or hit. Everything ends in time and as it may."""
        begun = time.monotonic()
        good = False
        try:
            act()
            good = True
            outcome = "ok"
        except TaskSignalled as signalled:
            outcome = signalled.info.signal.name
        except OSError as error:
            outcome = type(error).__name__
        except Exception as error:
            outcome = repr(error)
            self.wrong.append(f"{self.name}, {name}: {outcome}")
        took_s = time.monotonic() - begun
        if took_s > BOUND_S and name != "visit":
            self.wrong.append(f"{self.name}, {name}: ended with {outcome} after {took_s:.0f} s")
        self.outcomes[f"{name} {outcome}"] += 1
        return good

    def _visit(self) -> None:
        with connect(self._where, self._cluster, timeout=BOUND_S) as partition:
            doings = [Doings(partition.spawn()) for _ in range(2)]
            others = [
                threading.Thread(
                    target=self._timed,
                    args=("hand", partial(self._work, partition, doings)),
                    daemon=True,
                )
                for _ in range(self._hands - 1)
            ]
            for other in others:
                other.start()
            try:
                self._work(partition, doings)
            finally:
                for other in others:
                    other.join()

    def _work(self, partition: Partition, doings: list[Doings]) -> None:
        """Let the tasks do something; another hand may do the same with them just now, and end one
        that is in the middle of a call."""
        for _ in range(VISIT_CALLS):
            if self._stop_now.is_set():
                return
            index = self._rng.randrange(len(doings))
            each, act = doings[index], self._rng.choice(self._acts)
            if not self._timed(act.__name__[1:], partial(act, each)):
                partition.boot_facts()  # raises when it is not there any more
            if self._rng.random() < 0.05:
                doings[index] = self._next(partition, each)

    def _next(self, partition: Partition, old: Doings) -> Doings:
        """Another task in place of this one, which ends in one of the ways there are."""
        ends: list[Callable[[], None]] = [
            old.task.exit,
            old.task.kill,
            old.task.kill,
            old.task.xpmem_close,
            old.task.execve,
        ]
        end = self._rng.choice(ends)
        self._timed(end.__name__, end)
        return Doings(partition.spawn())

    # -- what a task does ------------------------------------------------------------------

    def _any(self, numbers: list[int]) -> int:
        return self._rng.choice(numbers) if numbers else 0

    def _spot(self, doings: Doings) -> int:
        """An address to touch."""
        return self._any(doings.views + doings.regions) + self._rng.randrange(PAGES) * PAGE

    def _map(self, doings: Doings) -> None:
        flags = _FLAGS | (calls.MAP_UNCACHED if self._rng.random() < 0.3 else 0)
        doings.regions.append(doings.task.mmap(PAGES * PAGE, flags=flags))

    def _make(self, doings: Doings) -> None:
        segid = doings.task.xpmem_make(self._any(doings.regions), PAGES * PAGE, 0o666)
        doings.segids.append(segid)
        self._market.offer(segid)

    def _attach(self, doings: Doings) -> None:
        segid = self._market.pick(self._rng)
        apid = doings.task.xpmem_get(segid)
        doings.apids.append(apid)
        doings.views.append(doings.task.xpmem_attach(apid, 0, PAGES * PAGE))

    def _load(self, doings: Doings) -> None:
        doings.task.load(self._spot(doings), 8)

    def _store(self, doings: Doings) -> None:
        doings.task.store(self._spot(doings), self._rng.randbytes(8))

    def _amo(self, doings: Doings) -> None:
        doings.task.amo(self._spot(doings), "add", 1)

    def _detach(self, doings: Doings) -> None:
        doings.task.xpmem_detach(self._any(doings.views))

    def _release(self, doings: Doings) -> None:
        doings.task.xpmem_release(self._any(doings.apids))

    def _remove(self, doings: Doings) -> None:
        doings.task.xpmem_remove(self._any(doings.segids))

    def _unmap(self, doings: Doings) -> None:
        first = self._rng.randrange(PAGES)
        pages = self._rng.randint(1, PAGES - first)
        doings.task.munmap(self._any(doings.regions) + first * PAGE, pages * PAGE)

    def _advise(self, doings: Doings) -> None:
        start = self._any(doings.regions)
        doings.task.madvise(start, PAGES * PAGE, self._rng.choice(_ADVICE))

    def _migrate(self, doings: Doings) -> None:
        doings.task.migrate(self._any(doings.regions), PAGES * PAGE)

    def _fork(self, doings: Doings) -> None:
        doings.task.fork().exit()

    def _copy(self, doings: Doings) -> None:
        ends = (self._any(doings.apids), 0), (self._any(doings.apids), 2 * PAGE)
        doings.task.xpmem_copy(*ends, 2 * PAGE)
