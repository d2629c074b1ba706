"""Progress for whoever has no terminal - a log, a pipe, cron: lines on stderr now and then.

A bar would leave control codes there, and nothing at all makes long work look like a hang. What is
over within a second is told by nobody.
"""

import os
import sys
import time
from collections.abc import Callable

SHOWN_AFTER_S = 1.0
"""From when on progress is shown, as a bar or in lines."""
_EVERY_S = 10.0
"""How often work that comes in many small pieces has a line."""


def on_terminal() -> bool:
    """Whether stderr can show a bar."""
    there = sys.stderr is not None and sys.stderr.isatty()
    return there and os.environ.get("TERM") != "dumb"


class Lines:
    """Says the lines that it is called with, but none before `first_s`, and then one every
    `every_s`."""

    def __init__(
        self,
        say: Callable[[str], None],
        first_s: float,
        every_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say = say
        self._every_s = every_s
        self._clock = clock
        self._next = clock() + first_s

    def __call__(self, text: str) -> None:
        """Says it, if it is time to."""
        now = self._clock()
        if now >= self._next:
            self._next = now + self._every_s
            self._say(text)


def of_steps(say: Callable[[str], None]) -> Lines:
    """A line for each step."""
    return Lines(say, SHOWN_AFTER_S, 0.0)


def of_pieces(say: Callable[[str], None]) -> Lines:
    """A line every ten seconds."""
    return Lines(say, _EVERY_S, _EVERY_S)
