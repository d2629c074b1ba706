"""L8, from events: a fault that says that its page keeps changing met as many changes as it may.

An importer gives up with EAGAIN after one collision more than `faults.collisions`, and tells of
each. An exporter gives up after as many tries, each of which a recall of that very page spoiled;
and one that says that the page was taken away has had it taken away.
"""

from collections import Counter, defaultdict

from xpmem_emu.failpoints.events import PointSet
from xpmem_emu.judge.checkers.base import Checker
from xpmem_emu.judge.invariants import Invariant
from xpmem_emu.judge.scene import EventHandlers, Scene
from xpmem_emu.kernel.events import KernelBoot, Syscall, SyscallDone
from xpmem_emu.xpmem import events

_ACCESSES = frozenset({"load", "store"})
_CHANGING, _TAKEN = "keeps changing under the fault", "was taken away"


class Tries(Checker):
    """Counts what faults met."""

    judges = (Invariant.L8,)
    looks_at = "faults that end because their page keeps changing, against how often it changed"

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self._most = scene.image.faults.collisions
        self._attempts: dict[tuple[int, str], int] = {}
        """(partition, thread) -> most collisions of a fault of it, counted from 0."""
        self._accesses: Counter[tuple[int, str]] = Counter()
        """How many threads have that name: loads of one task are called alike."""
        self._faults: dict[tuple[int, int], tuple[events.FaultBegin, int]] = {}
        """In flight, each with how often its page had changed when it began."""
        self._changes: dict[tuple[int, int], int] = defaultdict(int)
        """(segment, page) in flight -> how often a recall took it."""
        self._armed: set[int] = set()

    def handlers(self) -> EventHandlers:
        """Faults, what they met, and how they ended."""
        return {
            KernelBoot: self._booted,
            PointSet: self._failpoint,
            events.FaultBegin: self._begins,
            events.FaultCollision: self._collides,
            events.FaultEnd: self._ends,
            events.SequenceBump: self._changed,
            Syscall: self._asked,
            SyscallDone: self._answered,
        }

    def _booted(self, partid: int, event: KernelBoot) -> None:
        self._armed.discard(partid)
        self._faults = {key: each for key, each in self._faults.items() if key[0] != partid}
        self._accesses = Counter({k: n for k, n in self._accesses.items() if k[0] != partid})
        self._attempts = {key: each for key, each in self._attempts.items() if key[0] != partid}

    def _failpoint(self, partid: int, event: PointSet) -> None:
        if "return" in event.terms:
            self._armed.add(partid)

    def _begins(self, partid: int, event: events.FaultBegin) -> None:
        self._faults[partid, event.fault] = event, self._changes[event.segid, event.touched]

    def _collides(self, partid: int, event: events.FaultCollision) -> None:
        thread = partid, self.scene.thread
        self._attempts[thread] = max(event.attempt, self._attempts.get(thread, -1))

    def _changed(self, partid: int, event: events.SequenceBump) -> None:
        for begun, _ in {each[0].touched: each for each in self._of(event)}.values():
            self._changes[event.segid, begun.touched] += 1

    def _of(self, event: events.SequenceBump) -> list[tuple[events.FaultBegin, int]]:
        """The faults in flight of which a recall takes the page."""
        return [
            each
            for each in self._faults.values()
            if each[0].segid == event.segid and 0 <= each[0].touched - event.page < event.count
        ]

    def _ends(self, partid: int, event: events.FaultEnd) -> None:
        begun, before = self._faults.pop((partid, event.fault), (None, 0))
        least = self._most + 1 if _CHANGING in event.outcome else int(_TAKEN in event.outcome)
        if begun is None or not least:
            return
        changes = self._changes[event.segid, begun.touched] - before
        home = event.segid >> 48
        if home in self._armed | self.scene.injuries.forgers:  # who lies is not listened to at all
            return
        if changes < least:
            text = f"the home of {event.segid:#x} gave up page {begun.touched} after {changes}"
            self.report(Invariant.L8, home, f"{text} changes, of {least}")

    def _asked(self, partid: int, event: Syscall) -> None:
        self._accesses[partid, self.scene.thread] += 1

    def _answered(self, partid: int, event: SyscallDone) -> None:
        thread = partid, self.scene.thread
        last = self._attempts.get(thread, -1)
        self._accesses[thread] -= 1
        if not self._accesses[thread]:
            del self._accesses[thread]
            self._attempts.pop(thread, None)
        gave_up = event.op in _ACCESSES and event.outcome == "EAGAIN"
        if gave_up and last < self._most and partid not in self._armed:
            text = f"{event.op} of task {event.pid} gave up after {last + 1} collisions"
            self.report(Invariant.L8, partid, f"{text}, of {self._most + 1}")
