"""Waiting for what tells nobody when it happens: processes, containers, locks of others."""

import time
from collections.abc import Callable

POLL_S = 0.02


def wait_until(holds: Callable[[], bool], timeout_s: float, every_s: float = POLL_S) -> bool:
    """Asks again until it holds or the time is up; whether it held."""
    deadline_s = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(every_s)
    return True
