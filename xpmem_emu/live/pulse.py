"""Heartbeats while the kernel is at work: a long step must not look like death.

A kernel beats between its steps. A step that takes long - a fork of fifty thousand areas, a recall
of thousands of segments - would be silence, and peers give up who is silent. So a thread of its own
repeats the last heartbeat of each peer, with the numbers that the kernel leaves free between two of
its own, while one step lasts.

It says nothing that the kernel did not say just before: who did not beat when the step began, by a
fault or because it goes, does not beat now. Nothing is said while fault rules are in force, or when
the process is stopped. A step that does not end within `STEP_MAX_S` is no work: then the peers may
see it.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from msgspec.structs import replace

from xpmem_emu.codec import Buffer
from xpmem_emu.image import XpcSection
from xpmem_emu.kernel.interface import Send
from xpmem_emu.xpc.frame import KIND, decode_frame, encode_frame
from xpmem_emu.xpc.heartbeat import FREE_VALUES
from xpmem_emu.xpc.messages import Heartbeat

STEP_MAX_S = 30.0


@dataclass(slots=True)
class _Last:
    """The last heartbeat to one peer: its frames, when it was said, how often it was repeated."""

    frames: list[Buffer]
    said_ns: int
    repeated: int = 0


class Pulse:
    """`send` puts frames on the link to a peer; it is called by the pulse's thread only between
    `begin` and `end`, so whoever calls those may use the same link at any other time."""

    def __init__(
        self, xpc: XpcSection, crowd: int, send: Callable[[int, list[Buffer]], None]
    ) -> None:
        interval_ns, check_ns = xpc.heartbeats(crowd)
        self.repeated = 0
        """Heartbeats said in the kernel's place."""
        self._interval_ns = interval_ns
        self._look_s = max(interval_ns, check_ns // 4) / 1e9
        self._send = send
        self._last: dict[int, _Last] = {}
        self._begun_ns = 0
        """When the step began that lasts; 0: none does."""
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Say nothing any more."""
        self._closed.set()
        self._thread.join()

    def said(self, now_ns: int, message: Send) -> None:
        """The kernel sent that."""
        if message.kind == _HEARTBEAT:
            self._last[message.partid] = _Last(message.frames, now_ns)

    def begin(self, now_ns: int) -> None:
        """A step begins. Until `end` the caller keeps away from what `send` uses."""
        self._begun_ns = now_ns

    def end(self) -> None:
        """The step is over."""
        with self._lock:
            self._begun_ns = 0

    def _run(self) -> None:
        while not self._closed.wait(self._look_s):
            with self._lock:
                self._beat(time.monotonic_ns())

    def _beat(self, now_ns: int) -> None:
        begun_ns = self._begun_ns
        if not begun_ns or not self._interval_ns <= now_ns - begun_ns < STEP_MAX_S * 1e9:
            return
        for partid, last in self._last.items():
            # A beat may be due just as a long step begins.
            beating = begun_ns - last.said_ns <= 2 * self._interval_ns + int(self._look_s * 1e9)
            if beating and last.repeated < FREE_VALUES:
                last.repeated += 1
                self.repeated += 1
                self._send(partid, _repeated(last))


def _repeated(last: _Last) -> list[Buffer]:
    header, message, _ = decode_frame(last.frames)
    assert isinstance(message, Heartbeat)
    return [encode_frame(header, replace(message, value=message.value + last.repeated))]


_HEARTBEAT = KIND[Heartbeat]
