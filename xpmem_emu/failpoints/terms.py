"""What a failpoint does, as text and as values: the grammar of FreeBSD's fail(9).

    2%3*return(ENOMEM)->pause
    |  |  |             `--- else: the next term, when this one did not act
    |  |  `----------------- the action
    |  `-------------------- at most three times
    `----------------------- with a probability of 2 %

Actions: off, return(ERRNO), panic, delay(TIME), yield, pause, print. A term that is used up or
was not drawn leaves the turn to the next; when none acts nothing happens. `off` acts by doing
nothing, so `3*off->return` fails the fourth time and ever after. Text and values convert both
ways without loss; percentages have three decimals at most.
"""

import errno
import re
from dataclasses import dataclass
from enum import Enum

from xpmem_emu.errors import XPMEM_ERRNO_NOPROC, errno_name
from xpmem_emu.units import format_time, parse_time

CERTAIN = 100_000
"""Probabilities are counted in thousandths of a percent."""

_TERM = re.compile(
    r"(?:(?P<percent>\d{1,3}(?:\.\d{1,3})?)%)?(?:(?P<times>\d{1,9})\*)?"
    r"(?P<action>[a-z]+)(?:\((?P<argument>[^()]*)\))?"
)


class TermAction(Enum):
    """What a term does."""

    OFF = "off"
    RETURN = "return"
    PANIC = "panic"
    DELAY = "delay"
    YIELD = "yield"
    PAUSE = "pause"
    PRINT = "print"

    @property
    def sleeps(self) -> bool:
        """Whether only a point that may sleep can do it."""
        return self in (TermAction.DELAY, TermAction.YIELD, TermAction.PAUSE)


@dataclass(frozen=True, slots=True)
class Term:
    """One term. `argument`: nanoseconds of a delay; errno of a return, 0 for the point's own."""

    action: TermAction
    argument: int = 0
    chance: int = CERTAIN
    times: int | None = None

    def __str__(self) -> str:
        percent = "" if self.chance == CERTAIN else f"{_percent(self.chance)}%"
        times = "" if self.times is None else f"{self.times}*"
        return f"{percent}{times}{self.action.value}{self._argument()}"

    def _argument(self) -> str:
        if self.action is TermAction.DELAY:
            return f"({exact_time(self.argument)})"
        return f"({errno_name(self.argument)})" if self.argument else ""


Chain = tuple[Term, ...]


def format_chain(chain: Chain) -> str:
    """The text that `parse_chain` reads back."""
    return "->".join(str(term) for term in chain)


def parse_chain(text: str) -> Chain:
    """The terms of `2%3*return(ENOMEM)->pause`. Raises ValueError, which says what is wrong."""
    return tuple(_parse_term(part.strip()) for part in text.split("->"))


def exact_time(time_ns: int) -> str:
    """`time_ns` as text that reads back as the same number of nanoseconds."""
    text = format_time(time_ns)
    return text if parse_time(text) == time_ns else f"{time_ns}ns"


def _parse_term(text: str) -> Term:
    match = _TERM.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a term; write it like off, 2%3*return(ENOMEM) or pause")
    try:
        action = TermAction(match["action"])
    except ValueError:
        known = ", ".join(each.value for each in TermAction)
        raise ValueError(f"no action is called {match['action']!r}; one of {known}") from None
    chance = CERTAIN if match["percent"] is None else round(float(match["percent"]) * 1000)
    if chance > CERTAIN:
        raise ValueError(f"{match['percent']}% is more than 100%")
    times = None if match["times"] is None else int(match["times"])
    return Term(action, _parse_argument(action, match["argument"]), chance, times)


def _parse_argument(action: TermAction, text: str | None) -> int:
    if action is TermAction.DELAY:
        if text is None:
            raise ValueError("delay needs a time, as in delay(20ms)")
        return parse_time(text)
    if text is None:
        return 0
    if action is TermAction.RETURN:
        return errno_number(text)
    raise ValueError(f"{action.value} takes no argument")


def errno_number(name: str) -> int:
    """The number of ENOMEM and the like. Raises ValueError."""
    if name == "NOPROC":
        return XPMEM_ERRNO_NOPROC
    number = getattr(errno, name, None) if re.fullmatch(r"E[A-Z0-9]+", name) else None
    if not isinstance(number, int):
        raise ValueError(f"no errno is called {name!r}; write it like ENOMEM")
    return number


def _percent(chance: int) -> str:
    return f"{chance / 1000:.3f}".rstrip("0").rstrip(".")
