"""Tells a story on a ground: phase after phase, step after step, until something is not as told.

`load` and `faults` are two tellers side by side: `faults` goes first, and the other has its turn
after each call and wherever one has to wait. Nothing sleeps: a wait ends when its condition holds,
or fails when the story's patience is over - so does a call that hangs. Time is the ground's.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from functools import partial

from xpmem_emu.backend.interface import Backend, PendingCall, Unanswered
from xpmem_emu.errors import KernelError
from xpmem_emu.kernel.calls import Call, XpmemOpen
from xpmem_emu.kernel.interface import Done
from xpmem_emu.scenario.call_syntax import MAKERS, made_value
from xpmem_emu.scenario.conditions import Condition, Seen
from xpmem_emu.scenario.expectation import OK, Expectation, outcome_text
from xpmem_emu.scenario.lexer import ScenarioError, TaskName
from xpmem_emu.scenario.load import RandomLoad
from xpmem_emu.scenario.step_syntax import (
    AtRandom,
    Await,
    Check,
    Do,
    FromOutside,
    Heal,
    PutUp,
    ReleaseHeld,
    Step,
    Wait,
    injection_text,
)
from xpmem_emu.scenario.story import Story
from xpmem_emu.trace import Record
from xpmem_emu.units import format_time


class Untrue(Exception):
    """A step did not come to what the story says: the step, and what came instead."""

    def __init__(self, step: Step, came: str) -> None:
        super().__init__(f"{step}: {came}")


@dataclass(frozen=True, slots=True)
class Blocked:
    """A teller waits for `holds` until `deadline_ns`; `state` says how things are."""

    step: Step
    holds: Callable[[], bool]
    state: Callable[[], str]
    deadline_ns: int
    within_ns: int


@dataclass(frozen=True, slots=True)
class ToldStep:
    """A step that was told: when it was over, and what came of it."""

    time_ns: int
    step: Step
    came: str


Teller = Generator[Blocked, None, None]
Told = Generator[Blocked, None, str]
"""One step; what came of it, for people."""


@dataclass
class Telling:
    """A story under way. It is the Stand of its conditions."""

    story: Story
    ground: Backend
    seed: int
    tell: Callable[[str], None] = print
    names: dict[str, int | TaskName] = field(default_factory=dict)
    lines: list[ToldStep] = field(default_factory=list)
    calls: dict[str, list[PendingCall]] = field(default_factory=dict)
    loads: list[RandomLoad] = field(default_factory=list)
    _opened: set[TaskName] = field(default_factory=set)
    _since: int = 0
    """Events of the setup do not count in conditions."""

    def run(self) -> None:
        """Tell all phases. Raises Untrue."""
        for phases in (("setup",), ("faults", "load"), ("heal",), ("final",), ("check",)):
            steps = {phase: each for phase in phases if (each := self.story.phases[phase])}
            if steps:
                self._phase([self._teller(each) for each in steps.values()])
                count = sum(len(each) for each in steps.values())
                self.tell(f"{' and '.join(steps)}: {count} {'step' if count == 1 else 'steps'}")
            if phases == ("setup",):
                self._since = len(self.ground.records())

    def calls_named(self, name: str) -> Sequence[PendingCall]:
        return self.calls.get(name, [])

    def new_records(self) -> Sequence[Record]:
        return self.ground.records()[self._since :]

    # -- tellers ---------------------------------------------------------------------------

    def _phase(self, tellers: list[Teller]) -> None:
        """Let every teller come to its end, one waiting beside the other."""
        blocked: dict[int, Blocked] = {}
        at_work = dict(enumerate(tellers))
        while at_work:
            for number, teller in list(at_work.items()):
                if number in blocked and not blocked[number].holds():
                    continue
                following = next(teller, None)
                if following is None:
                    del at_work[number]
                    blocked.pop(number, None)
                else:
                    blocked[number] = following
            if at_work:
                self._wait(list(blocked.values()))

    def _wait(self, blocked: Sequence[Blocked]) -> None:
        """Let time pass until one of them may go on. Raises Untrue at the first deadline."""
        first = min(blocked, key=lambda each: each.deadline_ns)
        patience_ns = max(0, first.deadline_ns - self.ground.now_ns())
        if self.ground.wait(lambda: any(each.holds() for each in blocked), patience_ns):
            return
        if not first.holds():
            raise Untrue(first.step, f"not within {format_time(first.within_ns)}, {first.state()}")

    def _teller(self, steps: Sequence[Step]) -> Teller:
        for step in steps:
            try:
                came = yield from self._step(step)
            except ScenarioError as wrong:
                raise Untrue(step, str(wrong)) from None
            except (KernelError, OSError) as refused:
                raise Untrue(step, f"refused: {refused}") from None
            self.lines.append(ToldStep(self.ground.now_ns(), step, came))

    def _step(self, step: Step) -> Told:
        match step.action:
            case Do() as do:
                return (yield from self._do(step, do))
            case Await(name=name, expectation=expectation, within_ns=within_ns):
                calls = self.calls_named(name)
                return (yield from self._end(step, calls, expectation, within_ns))
            case Wait(condition=condition, within_ns=within_ns):
                yield self._blocked(
                    step,
                    lambda: self._look(step, condition).holds,
                    lambda: self._look(step, condition).state,
                    within_ns,
                )
                return self._look(step, condition).state
            case Check(condition=condition):
                seen = self._look(step, condition)
                if not seen.holds:
                    raise Untrue(step, seen.state)
                return seen.state
            case PutUp(text=text):
                self.ground.put_up(injection_text(text, self.names))
            case Heal(fault=fault):
                self.ground.heal(fault)
            case AtRandom() as load:
                return (yield from self._at_random(step, load))
            case ReleaseHeld(fault=fault):
                self.ground.release_held(fault)
            case FromOutside(verb=verb, partition=partition):
                getattr(self.ground, verb)(partition)
        return "done"

    # -- calls -----------------------------------------------------------------------------

    def _do(self, step: Step, do: Do) -> Told:
        subject = self.names.get(do.invocation.subject)
        actor = subject if isinstance(subject, TaskName) else None
        if actor is None and subject is not None:
            raise ScenarioError(f"{do.invocation.subject} is no task")
        partition = do.invocation.subject if actor is None else actor.partition
        if actor is not None and do.invocation.needs_device and actor not in self._opened:
            opening = self.ground.begin(partition, XpmemOpen(actor.pid))
            yield from self._end(step, [opening], OK, None)
            self._opened.add(actor)
        call, bulk = do.invocation.call(self.names, actor)
        if do.times:
            begun = [self.ground.begin(partition, call, bulk) for _ in range(do.times)]
            self.calls[do.name] = begun
            return "begun"
        pending = self.ground.begin(partition, call, bulk)
        came = yield from self._end(step, [pending], do.expectation, None)
        self._note(do, partition, actor, call, pending)
        return came

    def _note(
        self, do: Do, partition: str, actor: TaskName | None, call: Call, pending: PendingCall
    ) -> None:
        """What the call made, and what it closed."""
        if do.invocation.closes_device and actor is not None:
            self._opened.discard(actor)
        if not do.name or not isinstance(pending.outcome, Done):
            return
        value = pending.outcome.value
        if isinstance(call, MAKERS):
            task = self.names[do.name] = TaskName(partition, int(value))
            self._opened.discard(task)
            return
        made = made_value(type(call), value)
        if made is None:
            raise ScenarioError(f"{do.invocation.verb} gives nothing that could be {do.name}")
        self.names[do.name] = made

    def _end(
        self,
        step: Step,
        calls: Sequence[PendingCall],
        expectation: Expectation,
        within_ns: int | None,
    ) -> Told:
        """The end of calls. Raises Untrue when one is not as expected."""

        def state() -> str:
            left = sum(not each.ended for each in calls)
            return "it hangs" if len(calls) == 1 else f"{left} of {len(calls)} hang"

        yield self._blocked(step, lambda: all(each.ended for each in calls), state, within_ns)
        for each in calls:
            if not any(one.met(each.outcome, self.names) for one in expectation):
                raise Untrue(step, f"came {outcome_text(each.outcome)}")
        return outcome_text(calls[0].outcome) if calls else "nothing"

    def _at_random(self, step: Step, load: AtRandom) -> Told:
        drawn = f"{self.seed}/{step.line}/{load.workload}"
        random = RandomLoad(self.ground, load.workload, load.budget, drawn)
        self.loads.append(random)
        while not random.over:
            yield self._blocked(step, partial(random.goes_on, random.ended), random.describe, None)
        return random.describe()

    # -- waiting ---------------------------------------------------------------------------

    def _blocked(
        self, step: Step, holds: Callable[[], bool], state: Callable[[], str], within_ns: int | None
    ) -> Blocked:
        within_ns = self.story.patience_ns if within_ns is None else within_ns
        return Blocked(step, holds, state, self.ground.now_ns() + within_ns, within_ns)

    def _look(self, step: Step, condition: Condition) -> Seen:
        try:
            return condition.look(self)
        except ScenarioError as wrong:
            raise Untrue(step, str(wrong)) from None
        except (Unanswered, KernelError, OSError) as silence:
            return Seen(False, str(silence))
