"""What an experiment declares: a question, its cases, how one is measured, what it says.

A case is a row with the columns that are given; measuring it adds those that are found. Columns
hold numbers or text and their names say what: `*_ns` is a time, `*_bytes` a size.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from xpmem_emu.image import Image

LabRow = Mapping[str, int | str]


@dataclass(frozen=True, slots=True)
class Setting:
    """What may be chosen for a run. `percent`: how much of the full size it has."""

    seed: int = 0
    percent: int = 100
    image: Image = field(default_factory=Image)

    def scaled(self, full: int, least: int = 1) -> int:
        """A number of the full size, made as small as the setting says, but not below `least`."""
        return max(full * self.percent // 100, least)


class Word(StrEnum):
    """What an experiment says to a claim."""

    SUPPORTED = "supported"
    REFUTED = "refuted"
    BOTH = "both sides have a point"


@dataclass(frozen=True, slots=True)
class Conclusion:
    """The answer, with the figures it rests on."""

    word: Word
    text: str


@dataclass(frozen=True, slots=True)
class Curves:
    """What is plotted: one line for each value of the column `series`, or bars side by side where
    the column `x` holds words. `only`: columns that must have these values. A scale is logarithmic
    where it is said to be; nothing below 1 is on one."""

    x: str
    y: str
    series: str
    logarithmic: tuple[str, ...] = ()
    only: LabRow = field(default_factory=dict)

    def lines(self, rows: Sequence[LabRow]) -> dict[str, tuple[list[int], list[int]]]:
        """By name of the line its points, by rising x."""
        found: dict[str, list[tuple[int, int]]] = {}
        for row in self._wanted(rows):
            point = number(row, self.x), number(row, self.y)
            found.setdefault(str(row[self.series]), []).append(point)
        return {
            name: ([x for x, _ in sorted(points)], [y for _, y in sorted(points)])
            for name, points in found.items()
        }

    def bars(self, rows: Sequence[LabRow]) -> tuple[list[str], dict[str, list[int]]]:
        """The words below, and by name of the series the height above each; 0 where it has none."""
        wanted = self._wanted(rows)
        heights = {(str(row[self.series]), str(row[self.x])): number(row, self.y) for row in wanted}
        words = list(dict.fromkeys(word for _, word in heights))
        names = dict.fromkeys(name for name, _ in heights)
        return words, {name: [heights.get((name, word), 0) for word in words] for name in names}

    def of_words(self, rows: Sequence[LabRow]) -> bool:
        """Whether there are bars to draw instead of lines."""
        return isinstance(rows[0][self.x], str)

    def _wanted(self, rows: Sequence[LabRow]) -> list[LabRow]:
        return [row for row in rows if all(row[key] == it for key, it in self.only.items())]


def _as_measured(rows: Sequence[LabRow]) -> Sequence[LabRow]:
    return rows


@dataclass(frozen=True, slots=True)
class Experiment:
    """One question. Everything in it is a pure function of the setting."""

    place: int
    """Where it stands in the report."""
    question: str
    setup: str
    """What is built, what is assumed, what is not modelled. Plain text, one paragraph."""
    claim: str
    """What somebody said, in our words, with its source."""
    cases: Callable[[Setting], Sequence[LabRow]]
    measure: Callable[[Setting, LabRow], LabRow]
    """A case, measured: what is found. Runs in any process."""
    conclude: Callable[[Sequence[LabRow]], Conclusion]
    curves: Curves | None = None
    combine: Callable[[Sequence[LabRow]], Sequence[LabRow]] = _as_measured
    """Makes the rows of the table of those that were measured: sums over seeds, say."""


def number(row: LabRow, column: str) -> int:
    """The number in a column that holds one."""
    value = row[column]
    assert isinstance(value, int), f"{column} is no number: {value!r}"
    return value
