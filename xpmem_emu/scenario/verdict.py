"""One run of a story on one ground, and what it says: valid, invalid, or unknown.

Whatever the story checks, these are checked always: no invariant is broken in the event stream of
any partition, every call that was begun ends, and when all faults are healed, every partition that
runs is active with the others and every task has ended, nothing is left: no pin, no quarantined
frame, no segment, permit or attachment. A partition that the story leaves dead stays dead.

A ground is always taken down, however the run ends.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from xpmem_emu.backend.interface import ASKED_TO_PANIC, Backend, Unanswered
from xpmem_emu.judge.checkers.teardown import FIXED
from xpmem_emu.judge.invariants import Invariant
from xpmem_emu.judge.streams import StreamsEnd
from xpmem_emu.judge.verdict import Verdict
from xpmem_emu.kernel.calls import Audit, Call, Exit, Look, Unlink
from xpmem_emu.scenario.conditions import AllActive
from xpmem_emu.scenario.lexer import TaskName
from xpmem_emu.scenario.runner import Telling, ToldStep, Untrue
from xpmem_emu.scenario.story import Story
from xpmem_emu.trace import Record
from xpmem_emu.units import format_time


class Judgement(msgspec.Struct, frozen=True):
    """What came of a run. A valid one has no findings."""

    scenario: str
    ground: str
    seed: int
    verdict: Verdict
    findings: list[str]
    steps: int
    events: int
    took_ns: int


@dataclass(frozen=True, slots=True)
class Ran:
    """A run that is over."""

    judgement: Judgement
    begun_ns: int
    """When the partitions were up."""
    lines: Sequence[ToldStep]
    records: Sequence[Record]


def run_story(story: Story, ground: Backend, seed: int, tell: Callable[[str], None]) -> Ran:
    """Tell the story on `ground` and judge it. Raises KernelError when the ground fails."""
    telling = Telling(story, ground, seed, tell)
    try:
        ground.up()
        tell(f"{len(ground.partitions)} partitions are up on {ground.name}")
        begun_ns = ground.now_ns()
        verdict, findings = _told(telling)
        took_ns = ground.now_ns() - begun_ns
        records = list(ground.records())
    finally:
        ground.down()
    tell(f"took {format_time(took_ns)} of {ground.name}'s time, {len(records)} events")
    judgement = Judgement(
        story.name, ground.name, seed, verdict, findings, len(telling.lines), len(records), took_ns
    )
    return Ran(judgement, begun_ns, telling.lines, records)


def _told(telling: Telling) -> tuple[Verdict, list[str]]:
    ground = telling.ground
    try:
        telling.run()
        findings = _Ending(telling).findings()
    except Untrue as untrue:
        findings = [str(untrue)]
    except Unanswered as silence:
        # Who panicked answers nobody either: that is a finding, no doubt.
        found = _found(ground, StreamsEnd.CUT)
        return (Verdict.INVALID if found else Verdict.UNKNOWN), [str(silence), *found]
    findings += _found(ground, StreamsEnd.CUT if findings else StreamsEnd.AT_REST)
    undecided = 0
    for load in telling.loads:
        wrong, unknown = load.judge(telling.story.image, ground.records())
        findings += [found.timeless for found in wrong]
        undecided += unknown
    if undecided and not findings:
        return Verdict.UNKNOWN, [f"{Invariant.S8}: the search gave no answer for {undecided} words"]
    return (Verdict.INVALID if findings else Verdict.VALID), findings


def _found(ground: Backend, ending: StreamsEnd) -> list[str]:
    """What the judges say, panics that the story asked for left out."""
    return [found.timeless for found in ground.judge(ending) if ASKED_TO_PANIC not in found.text]


class _Ending:
    """What happens after every story. Raises Unanswered."""

    def __init__(self, telling: Telling) -> None:
        self._telling = telling
        self._ground = telling.ground
        self._patience_ns = telling.story.patience_ns

    def findings(self) -> list[str]:
        """Heal, let everything end, and say what did not."""
        self._ground.heal()
        for name in self._ground.running:
            self._ground.resume(name)
        apart = AllActive()
        if not self._waited(lambda: apart.look(self._telling).holds):
            return [f"{Invariant.L4}: after healing, {apart.look(self._telling).state}"]
        hanging = self._hanging_calls()
        if hanging:
            return [f"{Invariant.L3}: {', '.join(hanging)} did not end within {self._patience}"]
        self._end_tasks(self._exporters())
        if not self._waited(lambda: not self._pinned_for_nobody()):
            return [
                f"{Invariant.S3}: pinned though nobody has a permit: {self._pinned_for_nobody()}"
            ]
        self._end_tasks(frozenset())
        if not self._waited(lambda: not self._left_over()):
            return [f"{Invariant.S10}: left over when every task had ended: {self._left_over()}"]
        return []

    @property
    def _patience(self) -> str:
        return format_time(self._patience_ns)

    def _hanging_calls(self) -> list[str]:
        calls = self._telling.calls
        self._waited(lambda: all(one.ended for each in calls.values() for one in each))
        return [name for name, each in calls.items() if not all(one.ended for one in each)]

    def _end_tasks(self, spared: frozenset[TaskName]) -> None:
        for name in self._ground.running:
            for pid in {int(row["pid"]) for row in self._ground.ask(name, Look("tasks"))}:
                if TaskName(name, pid) not in spared:
                    self._do(name, Exit(pid))
            if not spared:
                for row in self._ground.ask(name, Look("files")):
                    self._do(name, Unlink(str(row["name"])))

    def _exporters(self) -> frozenset[TaskName]:
        """Who goes last: what is pinned for their segments must have been given back before."""
        return frozenset(
            TaskName(name, int(row["pid"]))
            for name in self._ground.running
            for row in self._ground.ask(name, Look("segments"))
        )

    def _pinned_for_nobody(self) -> dict[str, int]:
        """Pins of each partition, once no task holds a permit any more."""
        audits = {name: dict(self._ground.ask(name, Audit())) for name in self._ground.running}
        if any(audit["permits"] for audit in audits.values()):
            return {}
        return {name: audit["pins"] for name, audit in audits.items() if audit["pins"]}

    def _left_over(self) -> dict[str, dict[str, int]]:
        """What the audit of each partition counts that should be zero."""
        counts = {name: dict(self._ground.ask(name, Audit())) for name in self._ground.running}
        left = {
            name: {key: count for key, count in audit.items() if count and key not in FIXED}
            for name, audit in counts.items()
        }
        return {name: each for name, each in left.items() if each}

    def _do(self, partition: str, call: Call) -> None:
        pending = self._ground.begin(partition, call)
        self._waited(lambda: pending.ended)

    def _waited(self, condition: Callable[[], bool]) -> bool:
        return self._ground.wait(condition, self._patience_ns)
