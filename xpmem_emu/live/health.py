"""What a partition says to the health probe, on a socket beside those of its cluster.

Datagrams, so a probe that goes away leaves nothing here and any number of them cost one
descriptor. `live` is answered by the event loop alone, `ready` and `metrics` once the kernel has
answered a call; a kernel that is kept waiting, by a fault for instance, is live and not ready.
"""

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from xpmem_emu.health import LIVE, METRICS, READY
from xpmem_emu.kernel.calls import Status
from xpmem_emu.kernel.interface import Done, Failed, Outcome
from xpmem_emu.live.driver import Driver
from xpmem_emu.units import SECOND

_WAITING_MAX = 16
_QUESTION_MAX = 16


class HealthServer:
    """Answers probes until closed."""

    def __init__(self, loop: asyncio.AbstractEventLoop, path: Path, driver: Driver) -> None:
        """`path` is made anew: a boot that was killed left its own. Raises OSError."""
        self._loop = loop
        self._path = path
        self._driver = driver
        self._waiting: list[tuple[bytes | str, Callable[[Outcome], str]]] = []
        """Who asked what the kernel must answer, and how it is told; they share one call."""
        path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(str(path))
        loop.add_reader(self._socket, self._asked)

    def close(self) -> None:
        """Answer nobody any more."""
        self._loop.remove_reader(self._socket)
        self._socket.close()
        self._path.unlink(missing_ok=True)

    def _asked(self) -> None:
        question, asker = self._socket.recvfrom(_QUESTION_MAX)
        if question == LIVE.encode():
            self._say(LIVE, asker)
        elif (tell := _TOLD.get(question)) and len(self._waiting) < _WAITING_MAX:
            self._waiting.append((asker, tell))
            if len(self._waiting) == 1:
                self._driver.call(Status(), b"", self._answered)

    def _answered(self, outcome: Outcome) -> None:
        waiting, self._waiting = self._waiting, []
        for asker, tell in waiting:
            self._say(tell(outcome), asker)

    def _say(self, text: str, asker: bytes | str) -> None:
        with suppress(OSError):  # who does not wait for the answer does not get it
            self._socket.sendto(text.encode(), asker)


def _readiness(outcome: Outcome) -> str:
    if not isinstance(outcome, Done):
        return f"not {READY}: {outcome.cause if isinstance(outcome, Failed) else outcome}"
    assert isinstance(outcome.value, dict)
    states = [peer["state"] for peer in outcome.value["peers"].values()]
    return f"{READY}, active with {states.count('ACTIVE')} of {len(states)} peers"


def _numbers(outcome: Outcome) -> str:
    """By the names that `metrics` has for them."""
    if not isinstance(outcome, Done):
        return _readiness(outcome)
    row = outcome.value
    assert isinstance(row, dict)
    states = [peer["state"] for peer in row["peers"].values()]
    numbers = {
        "peers": len(states),
        "peers_active": states.count("ACTIVE"),
        "uptime_seconds": row["uptime_ns"] / SECOND,
        "tasks": row["tasks"],
        "frames": row["frames_total"],
        "frames_used": row["frames_used"],
        "frames_quarantined": row["quarantined_frames"],
    }
    return " ".join(f"{name}={value:.15g}" for name, value in numbers.items())


_TOLD = {READY.encode(): _readiness, METRICS.encode(): _numbers}
