"""Runs every schedule with at most K deviations: stateless, from the start each time.

A schedule is run in default order after its last deviation, and at every point that it passes
there it leaves one branch for each other option, with one deviation less to spend. Branches are
taken latest point first, so that a state is mostly first reached by whoever has most deviations
left; one that was reached with as many left before is not gone into again. Fingerprints live in
memory that all workers share: a store that another one overwrites costs an exploration, no result.

Nothing here knows what is explored: it is given a function that runs one schedule.
"""

import mmap
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from xpmem_emu.sim.explore.catalog import DEPTH_MAX
from xpmem_emu.sim.explore.choices import Chooser, Deviation, Option, format_line

TABLE_SIZE = 1 << 23
"""States that can be remembered; further ones are explored as often as they are reached."""
FOUND_MAX = 200
"""Violations that one branch collects."""
_PROBES = 64


class End(msgspec.Struct, frozen=True):
    """How one schedule ended: the first violation, or none."""

    events: int
    cut: bool
    invariant: str = ""
    text: str = ""


class Found(msgspec.Struct, frozen=True):
    """A schedule that did not end well."""

    line: str
    deviations: int
    invariant: str
    text: str


class ScheduleTally(msgspec.Struct):
    """What was explored, by the number of deviations taken."""

    schedules: list[int] = msgspec.field(default_factory=lambda: [0] * (DEPTH_MAX + 1))
    """Cut ones included."""
    cut: list[int] = msgspec.field(default_factory=lambda: [0] * (DEPTH_MAX + 1))
    events: int = 0
    found: list[Found] = []
    errors: list[Found] = []

    @property
    def total(self) -> int:
        """All schedules."""
        return sum(self.schedules)

    def add(self, other: "ScheduleTally") -> None:
        """Add what another branch brought in."""
        for depth in range(DEPTH_MAX + 1):
            self.schedules[depth] += other.schedules[depth]
            self.cut[depth] += other.cut[depth]
        self.events += other.events
        self.found = self.found + other.found
        self.errors = self.errors + other.errors


class States:
    """The states that were reached, in memory that forked processes share."""

    def __init__(self) -> None:
        self._table = np.frombuffer(mmap.mmap(-1, 8 * TABLE_SIZE), dtype=np.uint64)

    def visit(self, fingerprint: int, left: int) -> bool:
        """Whether a state was visited with at least `left` deviations left; if not, now it is."""
        entry = fingerprint << 3 | left + 1
        for probe in range(fingerprint, fingerprint + _PROBES):
            at = probe % TABLE_SIZE
            old = int(self._table[at])
            if old >> 3 == fingerprint or not old:
                if old >= entry:
                    return True
                self._table[at] = entry
                return False
        return False

    @property
    def count(self) -> int:
        """How many there are."""
        return int(np.count_nonzero(self._table))


@dataclass(frozen=True, slots=True)
class Branch:
    """A schedule to run, and how many more deviations may follow its last one."""

    deviations: tuple[Deviation, ...]
    left: int


class ChoiceRecorder:
    """The chooser of one branch: takes its deviations, then notes what else could be."""

    def __init__(self, branch: Branch, states: States) -> None:
        self.taken: list[Deviation] = []
        self.branches: list[Branch] = []
        """In the order of their points."""
        self._branch = branch
        self._states = states
        self._points = 0

    def choose(self, options: Sequence[Option]) -> Option:
        """What the branch says; the first option after that."""
        self._points += 1
        wanted = self._branch.deviations
        if len(self.taken) < len(wanted):
            if self._points < wanted[len(self.taken)].point:
                return options[0]
            key = wanted[len(self.taken)].key
            option = next(each for each in options if each.key == key)
            self.taken.append(Deviation(self._points, key, option.text))
            return option
        if self._branch.left:
            self.branches += [
                Branch((*wanted, Deviation(self._points, option.key)), self._branch.left - 1)
                for option in options[1:]
            ]
        return options[0]

    def seen(self, fingerprint: Callable[[], int]) -> bool:
        """Whether others were here with as many deviations left. The way to the last deviation
        was gone by the schedule that this one branches from."""
        if len(self.taken) < len(self._branch.deviations):
            return False
        return self._states.visit(fingerprint(), self._branch.left)


RunBranch = Callable[[Chooser], End]


def run_branch(
    run: RunBranch, branch: Branch, states: States, tally: ScheduleTally
) -> list[Branch]:
    """Run one schedule and count it; the branches that it leaves."""
    recorder = ChoiceRecorder(branch, states)
    depth, line = len(branch.deviations), format_line(branch.deviations)
    tally.schedules[depth] += 1
    try:
        end = run(recorder)
    except Exception:
        tally.errors = [*tally.errors, Found(line, depth, "", traceback.format_exc())]
        return []
    tally.cut[depth] += end.cut
    tally.events += end.events
    if end.text:
        tally.found = [*tally.found, Found(line, depth, end.invariant, end.text)]
    return recorder.branches


def run_tree(run: RunBranch, branch: Branch, states: States) -> ScheduleTally:
    """Run a branch and everything that branches from it."""
    tally = ScheduleTally()
    waiting = [branch]
    while waiting and len(tally.found) < FOUND_MAX:
        waiting += run_branch(run, waiting.pop(), states, tally)
    return tally
