"""One schedule of a world: what is ready happens, in default order or as the chooser says.

Default order, as long as there is something in it:

    messages and calls that are ready, by Lamport clocks
    what was held back until nothing else happens          (Hold.IDLE)
    the next deadline, if a call is under way               (what is LATE waits for one)
    stopped processes wake
    what was held back until the end                        (Hold.LAST)
    the world's finale

Wherever a message, a call or a deadline is next for a partition, the world may deviate: another
one of the same partition goes first, it is held back, lost or doubled, or the partition is
stopped, vanishes, or has a task killed before it hears of it. What another partition does first
changes nothing for this one, unless it sends something: then holding back is the deviation.
Threads deviate inside of steps.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

from xpmem_emu.failpoints.events import PointHit
from xpmem_emu.failpoints.points import Point
from xpmem_emu.sched import WaitQueue
from xpmem_emu.sim.explore.choices import Chooser, Option
from xpmem_emu.sim.explore.cluster import Hold, Letter
from xpmem_emu.sim.explore.explored import ExploredWorld
from xpmem_emu.sim.explore.world import Program
from xpmem_emu.units import SECOND

EVENTS_MAX = 3000
"""A schedule with more of them is given up: unknown."""
ACTS_NS, CALLS_NS = 2 * SECOND, 10 * SECOND
"""How long an act may have to wait for what it needs, and a call for its end."""


@dataclass(eq=False, slots=True)
class Upcoming:
    """Something that is about to happen to a partition."""

    partid: int
    text: str
    act: Callable[[], None]
    letter: Letter | None = None
    program: int = -1


@dataclass(eq=False, slots=True)
class Stall:
    """A thread that stays where it is."""

    partid: int
    text: str
    queue: WaitQueue
    hold: Hold


@dataclass(slots=True)
class Walk:
    """How far a schedule came."""

    events: int = 0
    cut: bool = False
    """It ended in a state from which everything is known."""
    endless: bool = False
    told: list[str] = field(default_factory=list)
    """What happened, for people."""


class Schedule:
    """The explored part of one world."""

    def __init__(self, ground: ExploredWorld, chooser: Chooser) -> None:
        self.ground = ground
        self.cluster = ground.cluster
        self.walk = Walk()
        self._chooser = chooser
        self._next_act = [0] * len(ground.world.programs)
        self._since: dict[tuple[int, int], int] = {}
        """The Lamport clock when an act of a program could begin."""
        self._ready: list[Upcoming] = []
        """Messages and calls that may happen now, in default order."""
        self._held_programs: set[int] = set()
        self._stalls: list[Stall] = []
        self._killed: set[int] = set()
        self._finale = 0
        self._begun_ns = self.cluster.now_ns
        ground.pick = self._pick
        for partid, kernel in self.cluster.kernels.items():
            if ground.world.stalls:
                points = kernel.failpoints
                points.armed = True
                points.reached = partial(self._reached, partid)  # type: ignore[method-assign]

    def run(self) -> Walk:
        """Go to the end, a violation, or a state that was seen before."""
        walk, violations = self.walk, self.ground.watch.scene.violations
        while not violations and not walk.cut:
            event = self._next()
            if event is None:
                break
            if walk.events >= EVENTS_MAX:
                walk.endless = True
                break
            if self._chooser.seen(self._fingerprint):
                walk.cut = True
                break
            walk.events += 1
            self._take(self._options(event))
        if not walk.cut:
            walk.cut = not violations and self._chooser.seen(self._fingerprint)
        return walk

    def close(self) -> None:
        """Let go what is still held back; from now on everything takes its course."""
        self.ground.pick = lambda partid, runnable: 0
        for kernel in self.cluster.kernels.values():
            kernel.failpoints.armed = False
        for stall in self._stalls:
            stall.queue.wake_all()
        for partid in self.cluster.partids:
            if self.cluster.hung(partid):
                self.ground.wake(partid)
        self.cluster.close()
        for partid in list(self.cluster.kernels):
            self.cluster.poke(partid)

    def _take(self, options: list[Option]) -> None:
        option = options[0] if len(options) == 1 else self._chooser.choose(options)
        self.walk.told.append(option.text)
        option.act()

    # -- what is next ------------------------------------------------------------------------

    def _next(self) -> Upcoming | None:
        self._ready = self._find_ready()
        if self._ready:
            return self._ready[0]
        if self._let_go(Hold.IDLE):
            return self._next()
        if self._expecting() and self.cluster.next_tick() is not None:
            return self._tick()
        for partid in self.cluster.partids:
            if self.cluster.hung(partid):
                return Upcoming(partid, f"p{partid} wakes", partial(self.ground.wake, partid))
        if self._let_go(Hold.LAST):
            return self._next()
        if self._finale == len(self.ground.world.finale):
            return None
        self._finale += 1
        act = self.ground.world.finale[self._finale - 1]
        return Upcoming(-1, act.text, partial(self.ground.perform, act))

    def _find_ready(self) -> list[Upcoming]:
        found: list[tuple[tuple[int, ...], Upcoming]] = []
        for letter in self.cluster.letters:
            if letter.hold is None:
                arrive = partial(self.cluster.hand_over, letter)
                found.append((letter.place, Upcoming(letter.dst, str(letter), arrive, letter)))
        for number, program in enumerate(self.ground.world.programs):
            if number not in self._held_programs and self._may_go_on(number, program):
                act = program.acts[self._next_act[number]]
                begin = Upcoming(
                    program.partid, act.text, partial(self._begin, number), None, number
                )
                found.append(((self._since[number, self._next_act[number]], 0, number), begin))
        return [event for _, event in sorted(found, key=lambda each: each[0])]

    def _may_go_on(self, number: int, program: Program) -> bool:
        at = self._next_act[number]
        if at == len(program.acts) or program.partid not in self.cluster.kernels:
            return False
        if at and not self.ground.ended(program.acts[at - 1].text):
            return False
        after = program.acts[at].after
        if (after and not self.ground.ended(after)) or not program.acts[at].when(self.ground):
            return False
        clocks = self.cluster.clock if after else [self.cluster.clock[program.partid]]
        self._since.setdefault((number, at), max(clocks))
        return True

    def _begin(self, number: int) -> None:
        program, at = self.ground.world.programs[number], self._next_act[number]
        self._next_act[number] += 1
        clock = self.cluster.clock
        clock[program.partid] = max(clock[program.partid], self._since[number, at])
        self.ground.perform(program.acts[at])

    def _let_go(self, hold: Hold) -> bool:
        """Whether something was held back until now."""
        if hold is Hold.IDLE and self._held_programs:
            self._held_programs.clear()
            return True
        letters = [each for each in self.cluster.letters if each.hold is hold]
        if letters:
            first = min(letters, key=lambda each: each.place)
            first.hold, first.plain = None, True
            return True
        for stall in self._stalls:
            if stall.hold is hold:
                self._stalls.remove(stall)
                stall.queue.wake_all()
                self.cluster.poke(stall.partid)
                return True
        return False

    def _expecting(self) -> bool:
        """Whether time may bring something: a call is under way, or a message is late."""
        if any(each.hold is Hold.LATE for each in self.cluster.letters):
            return True
        since_ns = self.cluster.now_ns - self._begun_ns
        if any(not self.cluster.hung(ticket.partid) for ticket in self.cluster.outstanding):
            return since_ns < CALLS_NS
        return since_ns < ACTS_NS and any(
            at < len(program.acts) and program.partid in self.cluster.kernels
            for program, at in zip(self.ground.world.programs, self._next_act, strict=True)
        )

    def _tick(self) -> Upcoming:
        due = self.cluster.next_tick()
        assert due is not None

        def act() -> None:
            for letter in self.cluster.letters:
                if letter.hold is Hold.LATE:
                    letter.hold = Hold.IDLE
            self.cluster.tick()

        return Upcoming(due[1], f"time passes until {due[0] / 1e6:g} ms on p{due[1]}", act)

    # -- what else could be ------------------------------------------------------------------

    def _options(self, event: Upcoming) -> list[Option]:
        options = [Option("", event.text, event.act)]
        letter = event.letter
        if letter is not None and (letter.plain or not letter.data):
            return options
        options += self._others_first(event)
        if letter is not None:
            options += self._to_message(letter)
        elif event.program >= 0 and len(self._ready) > 1:
            options.append(
                Option(
                    "idle", f"later: {event.text}", partial(self._held_programs.add, event.program)
                )
            )
        options += self._to_partition(event.partid)
        options += self._wakes(event)
        return options

    def _others_first(self, event: Upcoming) -> Iterator[Option]:
        others = [other for other in self._ready if other.partid == event.partid]
        for number, other in enumerate(others[1:], 1):
            if other.letter is None or other.letter.data:
                yield Option(f"first{number}", f"{other.text} before {event.text}", other.act)

    def _to_message(self, letter: Letter) -> Iterator[Option]:
        if len(self._ready) > 1 or any(stall.hold is Hold.IDLE for stall in self._stalls):
            yield Option("idle", f"held back {letter}", partial(self._hold, letter, Hold.IDLE))
        yield Option("late", f"past a deadline {letter}", partial(self._hold, letter, Hold.LATE))
        yield Option("last", f"at the very end {letter}", partial(self._hold, letter, Hold.LAST))
        yield Option("drop", f"drop {letter}", partial(self._drop, letter))
        if not letter.copy:
            yield Option("twice", f"twice {letter}", partial(self._double, letter))

    def _to_partition(self, partid: int) -> Iterator[Option]:
        world, ground = self.ground.world, self.ground
        if partid not in self.cluster.kernels or self.cluster.hung(partid):
            return
        if partid in world.stops:
            yield Option("stop", f"stop p{partid}", partial(ground.stop, partid))
        if partid in world.crashes:
            yield Option("crash", f"crash p{partid}", partial(ground.crash, partid))
        for task in world.kills:
            actor = ground.stage.cast.tasks[task]
            if actor.partid == partid and task not in self._killed and ground.busy(partid):
                yield Option(
                    f"kill{task}", f"kill task {task} of p{partid}", partial(self._kill, task)
                )

    def _wakes(self, event: Upcoming) -> Iterator[Option]:
        for partid in self.cluster.partids:
            if self.cluster.hung(partid) and partid != event.partid:
                yield Option(
                    f"wake{partid}",
                    f"p{partid} wakes before {event.text}",
                    partial(self.ground.wake, partid),
                )

    def _hold(self, letter: Letter, hold: Hold) -> None:
        letter.hold = hold
        if hold is not Hold.IDLE:
            self.ground.hurt(letter, "delay")

    def _drop(self, letter: Letter) -> None:
        self.cluster.letters.remove(letter)
        self.ground.hurt(letter, "drop")

    def _double(self, letter: Letter) -> None:
        self.cluster.letters.append(replace(letter, copy=1))
        self.cluster.hand_over(letter)

    def _kill(self, task: int) -> None:
        self._killed.add(task)
        self.ground.kill(task)

    # -- inside of steps -----------------------------------------------------------------------

    def _pick(self, partid: int, runnable: int) -> int:
        if partid not in self.ground.world.picks:
            return 0
        threads = [thread.name for thread in self.cluster.kernels[partid].scheduler._runnable]
        options = [
            Option(f"pick{n}", f"p{partid} runs {name} before {threads[0]}", lambda: None)
            for n, name in enumerate(threads)
        ]
        picked = options.index(self._chooser.choose(options))
        self.cluster.note(partid, f"pick {picked}")
        return picked

    async def _reached(self, partid: int, point: Point) -> int:
        """A thread may stay here."""
        if point not in self.ground.world.stalls or not self.cluster.exploring:
            return 0
        scheduler = self.cluster.kernels[partid].scheduler
        where = f"{scheduler.thread_name()} of p{partid} at {point.name}"
        options = [
            Option("go", "", lambda: None),
            Option("stall", f"stays for a while: {where}", lambda: None),
            Option("stall-last", f"stays to the end: {where}", lambda: None),
        ]
        picked = options.index(self._chooser.choose(options))
        self.cluster.note(partid, f"stall {picked}")
        if picked:
            stall = Stall(
                partid, where, WaitQueue(scheduler), Hold.IDLE if picked == 1 else Hold.LAST
            )
            self._stalls.append(stall)
            self.cluster.kernels[partid].tracer.emit(PointHit(point=point.name, action="pause"))
            await stall.queue.wait_killable()
        return 0

    # -- equal states ------------------------------------------------------------------------

    def _fingerprint(self) -> int:
        stalls = [(stall.text, stall.hold.value) for stall in self._stalls]
        since, held = sorted(self._since.items()), sorted(self._held_programs)
        return self.cluster.fingerprint(
            self.ground.state(),
            self._next_act,
            since,
            held,
            stalls,
            sorted(self._killed),
            self._finale,
        )
