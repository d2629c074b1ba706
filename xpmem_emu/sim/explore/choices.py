"""Where a schedule could go on differently, and the line that names what was chosen.

A *point* is a place in a schedule at which there is more than one option; points are counted from
1 along the schedule. The first option is the default. A schedule is named by the options that it
took instead, `14:drop,22:kill1`: since everything else is deterministic, that is enough to do it
again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

PLAINNESS = (
    "first",
    "pick",
    "idle",
    "late",
    "last",
    "drop",
    "twice",
    "stall",
    "stall-last",
    "kill",
    "wake",
    "stop",
    "crash",
)
"""The kinds of deviations, from what happens every day to what is rare."""


@dataclass(frozen=True, slots=True)
class Option:
    """One way to go on. `key` names it among the options of its point; `text` is for people."""

    key: str
    text: str
    act: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Deviation:
    """An option other than the first that was taken at the point of that number."""

    point: int
    key: str
    text: str = ""

    def __str__(self) -> str:
        return f"{self.point}:{self.key}"


class Chooser(Protocol):
    """Decides at every point, and says when a schedule needs no end."""

    taken: list[Deviation]

    def choose(self, options: Sequence[Option]) -> Option:
        """One of two or more options."""

    def seen(self, fingerprint: Callable[[], int]) -> bool:
        """Whether everything that can come of the present state is known already."""


class Replay:
    """Takes the given deviations and no others; collects them with their texts in `taken`."""

    def __init__(self, deviations: Sequence[Deviation] = ()) -> None:
        self.points = 0
        self.taken: list[Deviation] = []
        self._wanted = {each.point: each.key for each in deviations}

    @property
    def missed(self) -> list[int]:
        """Points that were never reached, or had no such option."""
        return sorted(self._wanted)

    def choose(self, options: Sequence[Option]) -> Option:
        """What the line says."""
        self.points += 1
        key = self._wanted.get(self.points)
        for option in options[1:]:
            if option.key == key:
                del self._wanted[self.points]
                self.taken.append(Deviation(self.points, option.key, option.text))
                return option
        return options[0]

    def seen(self, fingerprint: Callable[[], int]) -> bool:
        """A replay goes to the end."""
        return False


def parse_line(line: str) -> list[Deviation]:
    """The deviations of a replay line. Raises ValueError."""
    deviations = []
    for word in line.replace(" ", "").strip(",").split(",") if line.strip() else ():
        point, colon, key = word.partition(":")
        if not colon or not point.isdigit() or not key:
            raise ValueError(f"{word!r} is not POINT:CHOICE")
        deviations.append(Deviation(int(point), key))
    return deviations


def format_line(deviations: Sequence[Deviation]) -> str:
    """The line that `parse_line` reads."""
    return ",".join(map(str, deviations))
