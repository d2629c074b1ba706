"""Counter-examples of the model, done on the real kernels.

A trail of spin is a text, one line for each thing that happened. `read_trail` makes of it a small
world - who does what - and the order in which messages arrive, calls begin and what is lost.
`Follow` takes at each point of a schedule the option that leads there; the deviations that it took
are a line that `sim explore` would replay.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from xpmem_emu.sim.explore.choices import Deviation, Option
from xpmem_emu.sim.explore.explored import ExploredWorld
from xpmem_emu.sim.explore.schedule import Schedule
from xpmem_emu.sim.explore.world import (
    Act,
    Program,
    World,
    act,
    exporting,
    importing,
    outside_act,
    planned,
)
from xpmem_emu.sim.mutations.table import mutated
from xpmem_emu.sim.plan import Op

FAULT, REPLY = "FAULT p1->p0", "FAULT_REPLY p0->p1"
INVALIDATE, ACKNOWLEDGE = "INVALIDATE p0->p1", "INVALIDATE_ACK p1->p0"
LOAD = act(Op.LOAD, task=2, attachment=1)
GIVE_UP = outside_act("p0 gives p1 up", lambda ground: ground.give_up(0, 1))
OPERATIONS = {
    "migration begins": act(Op.MIGRATE, task=1, region=1, pages=1),
    "mprotect": act(Op.PROTECT, task=1, region=1, pages=1, detail="read"),
    "munmap": act(Op.MUNMAP, task=1, region=1, pages=1),
}
ARRIVALS = {
    r"exporter: frame \d+ pinned for importer 0": FAULT,
    r"importer 0: FAULT_REPLY \d+ was crossed": REPLY,
    r"importer 0: maps frame \d+": REPLY,
    r"importer 0: INVALIDATE \d+ zaps": INVALIDATE,
    r"exporter: importer 0 acknowledged": ACKNOWLEDGE,
}
SENDINGS = {r"exporter: INVALIDATE \d+ to": INVALIDATE, r"exporter: FAULT_REPLY \d+ to": REPLY}


@dataclass(frozen=True)
class Trail:
    """A world, and what happens in it, in order: texts of a schedule."""

    world: World
    events: list[str]


def read_trail(text: str) -> Trail:
    """The trail that `models/check --explain` prints. Of a reply that was crossed it says two
    things, which are one."""
    events: list[str] = []
    exporter: list[Act] = []
    lines = [line.strip() for line in text.splitlines()]
    for before, line in zip(["", *lines], lines, strict=False):
        if line == "(lost)":
            lost = found(SENDINGS, before)
            assert lost, f"nothing is known to be lost after {before!r}"
            events.append(f"drop {lost}")
        elif re.match(r"importer 0: FAULT \d+$", line):
            events.append(LOAD.text)
        elif line.startswith("exporter: no heartbeat, but importer 0 lives"):
            exporter.append(GIVE_UP)
            events.append(GIVE_UP.text)
        elif does := [
            each for name, each in OPERATIONS.items() if line.startswith(f"exporter: {name}")
        ]:
            exporter += does
            events.append(does[0].text)
        elif (arrived := found(ARRIVALS, line)) and "was crossed" not in before:
            events.append(arrived)
    world = World(
        name="trail",
        gist="a counter-example of the model",
        setup=(*exporting(1), *importing(2, 1), planned(Op.STORE, task=1, region=1)),
        programs=(Program("importer", 1, (LOAD,)), Program("exporter", 0, tuple(exporter))),
    )
    return Trail(world, events)


def found(patterns: dict[str, str], line: str) -> str:
    """What the line stands for; empty: nothing."""
    return next((what for pattern, what in patterns.items() if re.match(pattern, line)), "")


class Follow:
    """The chooser that goes along a trail."""

    def __init__(self, events: Sequence[str], told: Callable[[], Sequence[str]]) -> None:
        """`told`: what has happened so far."""
        self.taken: list[Deviation] = []
        self._events = events
        self._told = told
        self._points = 0

    def left(self) -> list[str]:
        """What of the trail has not happened."""
        left = list(self._events)
        for text in self._told():
            if left and text.partition(" before ")[0] == left[0]:
                del left[0]
        return left

    def choose(self, options: Sequence[Option]) -> Option:
        """What the trail has next; else nothing that it has later."""
        self._points += 1
        left = self.left()
        for option in options:
            if left and option.text.partition(" before ")[0] == left[0]:
                return self._take(options, option)
        if options[0].text in left:
            return self._take(options, next(each for each in options if each.key == "idle"))
        return options[0]

    def _take(self, options: Sequence[Option], option: Option) -> Option:
        if option is not options[0]:
            self.taken.append(Deviation(self._points, option.key, option.text))
        return option

    def seen(self, fingerprint: Callable[[], int]) -> bool:
        """It goes to the end."""
        return False


def follow(trail: Trail, mutant: str) -> tuple[list[Deviation], list[str]]:
    """Go along the trail with a broken kernel: the deviations, and what was left of the trail when
    something was violated or all was over."""
    with mutated(mutant):
        ground = ExploredWorld(trail.world)
        schedule: Schedule
        chooser = Follow(trail.events, lambda: schedule.walk.told)
        schedule = Schedule(ground, chooser)
        schedule.run()
        ground.close()
        return chooser.taken, chooser.left()
