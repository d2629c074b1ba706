"""The failpoints of one kernel: what is set, how often it acted, who is paused there.

Invariants: while nothing is set `armed` is False and no point is ever entered; an action that
sleeps is refused at an atomic point when it is set, not when it is reached; an error is decided
and returned without a sleep in between, so the code around a point sees one atomic step.

A pause ends when the point is resumed or cleared, or when a fatal signal ends the thread's task:
nothing here makes a task immortal. It knows no partition; whoever sets a point gives the seed.
"""

import errno
from dataclasses import dataclass, field

from xpmem_emu.errors import KernelBug, KernelError
from xpmem_emu.failpoints import events
from xpmem_emu.failpoints.nth import FailNth
from xpmem_emu.failpoints.points import POINTS, Context, Point, find_point
from xpmem_emu.failpoints.stream import Stream
from xpmem_emu.failpoints.terms import CERTAIN, Chain, Term, TermAction, format_chain, parse_chain
from xpmem_emu.sched import Scheduler, WaitQueue
from xpmem_emu.trace import Tracer

PointRow = dict[str, int | str]


@dataclass(slots=True, eq=False)
class _Armed:
    """What one point is set to."""

    chain: Chain
    stream: Stream
    paused: WaitQueue
    used: list[int] = field(init=False)
    """How often each term acted."""

    def __post_init__(self) -> None:
        self.used = [0] * len(self.chain)

    @property
    def hits(self) -> int:
        """How often anything acted, `off` aside."""
        return sum(
            used
            for term, used in zip(self.chain, self.used, strict=True)
            if term.action is not TermAction.OFF
        )

    def draw(self) -> Term | None:
        """The term that acts this time."""
        for index, term in enumerate(self.chain):
            if term.times is not None and self.used[index] >= term.times:
                continue
            if term.chance < CERTAIN and not (
                term.chance and self.stream.below(CERTAIN) < term.chance
            ):
                continue
            self.used[index] += 1
            return term
        return None


class Failpoints:
    """All failpoints of one kernel."""

    def __init__(self, scheduler: Scheduler, tracer: Tracer) -> None:
        self.armed = False
        """Whether any point may act: the one thing that code on the way has to look at."""
        self._scheduler = scheduler
        self._tracer = tracer
        self._set: dict[str, _Armed] = {}
        self._nth: FailNth | None = None

    # -- setting ---------------------------------------------------------------------------

    def set(self, name: str, terms: str, seed: int) -> None:
        """Let point `name` do `terms` from now on, instead of what it was set to. Raises
        KernelError: ENOENT with near matches, EINVAL for terms that the point cannot do."""
        chain = require_possible(name, terms)
        self.clear(name)
        self._set[name] = _Armed(chain, Stream(seed), WaitQueue(self._scheduler))
        self.armed = True
        self._tracer.emit(events.PointSet(point=name, terms=format_chain(chain)))

    def clear(self, name: str) -> None:
        """Let point `name` do nothing, and let go who is paused there. Raises KernelError."""
        find_point(name)
        gone = self._set.pop(name, None)
        self._judge_armed()
        if gone is not None:
            gone.paused.wake_all()
            self._tracer.emit(events.PointCleared(point=name, hits=gone.hits))

    def reset(self) -> None:
        """Clear every point."""
        for name in list(self._set):
            self.clear(name)

    def resume(self, name: str) -> int:
        """Let go the threads that are paused at point `name`; how many. Raises KernelError."""
        find_point(name)
        armed = self._set.get(name)
        if armed is None:
            return 0
        count = len(armed.paused)
        armed.paused.wake_all()
        return count

    def watch(self, nth: FailNth | None) -> None:
        """Let `nth` fail a point by its count; None ends it."""
        self._nth = nth
        self._judge_armed()

    def rows(self) -> list[PointRow]:
        """Every point there is, with what it is set to."""
        return [self._row(point) for point in POINTS.values()]

    def _row(self, point: Point) -> PointRow:
        armed = self._set.get(point.name)
        return {
            "point": point.name,
            "context": point.context.value,
            "place": point.place,
            "errno": point.errno,
            "terms": format_chain(armed.chain) if armed else "",
            "hits": armed.hits if armed else 0,
            "paused": len(armed.paused) if armed else 0,
            "gist": point.gist,
        }

    def _judge_armed(self) -> None:
        self.armed = bool(self._set) or self._nth is not None

    # -- passing ---------------------------------------------------------------------------

    def failing(self, point: Point) -> int:
        """An atomic point is passed: the errno to fail with, 0 to go on."""
        term = self._acting(point)
        return 0 if term is None else _result(point, term)

    def check(self, point: Point) -> None:
        """As `failing`, but fails by raising KernelError."""
        number = self.failing(point)
        if number:
            raise said_so(point, number)

    async def reached(self, point: Point) -> int:
        """A point that may sleep is passed: the errno to fail with, 0 to go on. It did not sleep
        when the result is not 0."""
        term = self._acting(point)
        if term is None:
            return 0
        match term.action:
            case TermAction.DELAY:
                until_ns = self._scheduler.now_ns + term.argument
                await self._scheduler.sleep_until_killable(until_ns)
            case TermAction.YIELD:
                await self._scheduler.reschedule()
            case TermAction.PAUSE:
                await self._set[point.name].paused.wait_killable()
        return _result(point, term)

    async def reach(self, point: Point) -> None:
        """As `reached`, but fails by raising KernelError."""
        number = await self.reached(point)
        if number:
            raise said_so(point, number)

    def _acting(self, point: Point) -> Term | None:
        if self._nth is not None and self._nth.fails(point, self._scheduler.thread_name()):
            return self._told(point, Term(TermAction.RETURN))
        armed = self._set.get(point.name)
        term = armed.draw() if armed is not None else None
        if term is None or term.action is TermAction.OFF:
            return None
        return self._told(point, term)

    def _told(self, point: Point, term: Term) -> Term:
        self._tracer.emit(events.PointHit(point=point.name, action=str(term)))
        return term


def said_so(point: Point, number: int) -> KernelError:
    """The refusal that a failpoint makes up."""
    return KernelError(number, f"failpoint {point.name} said so", "xpmem-emu failpoint rm --all")


def _result(point: Point, term: Term) -> int:
    if term.action is TermAction.PANIC:
        raise KernelBug(f"failpoint {point.name} panics")
    if term.action is TermAction.RETURN:
        return term.argument or point.errno
    return 0


def require_possible(name: str, terms: str) -> Chain:
    """The terms, read. Raises KernelError: ENOENT for an unknown point, with near matches, EINVAL
    for terms that cannot be read or that the point cannot do."""
    point = find_point(name)
    try:
        chain = parse_chain(terms)
    except ValueError as error:
        raise KernelError(errno.EINVAL, f"{name}: {error}", "see docs/faults.md") from None
    _refuse_impossible(point, chain)
    return chain


def _refuse_impossible(point: Point, chain: Chain) -> None:
    for term in chain:
        if term.action.sleeps and point.context is Context.ATOMIC:
            raise KernelError(
                errno.EINVAL,
                f"{term.action.value} sleeps, and {point.name} is atomic",
                "return, panic, print or off",
            )
        if term.action is TermAction.RETURN and not point.errno:
            raise KernelError(
                errno.EINVAL,
                f"nothing can fail at {point.name}, so nothing can be returned",
                "a point that lists an errno; `xpmem-emu failpoint ls` shows them",
            )
