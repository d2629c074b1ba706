"""Ctrl-C and SIGTERM, as commands that have to clean up or tell something at their end see them."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def terminated_like_interrupted() -> Iterator[Callable[[], None]]:
    """Inside, SIGTERM ends the command the way Ctrl-C does: with KeyboardInterrupt.

    Python drops that when it is raised while an object is being destroyed. Who works on for long
    calls what this yields now and then: it raises KeyboardInterrupt if one was dropped.
    """
    interrupted = False

    def interrupt(_number: int, _frame: object) -> None:
        nonlocal interrupted
        interrupted = True
        raise KeyboardInterrupt

    def check() -> None:
        if interrupted:
            raise KeyboardInterrupt

    before = {each: signal.signal(each, interrupt) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield check
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
