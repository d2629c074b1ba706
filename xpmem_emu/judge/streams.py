"""Judges the event streams that partitions wrote to files: the checkers without the kernels.

What needs page tables, bytes or calls is not judged here; each invariant says whether events show
it (`Invariant.streams`). How the streams of several partitions become one is in `merging`.
"""

from collections.abc import Iterable, Mapping
from enum import Enum
from pathlib import Path

import msgspec

from xpmem_emu.image import Image
from xpmem_emu.judge.checkers.base import Checker
from xpmem_emu.judge.checkers.bounds import Bounds
from xpmem_emu.judge.checkers.claims import Claims
from xpmem_emu.judge.checkers.containment import Containment
from xpmem_emu.judge.checkers.endings import Endings
from xpmem_emu.judge.checkers.identity import Identity
from xpmem_emu.judge.checkers.installs import Installs
from xpmem_emu.judge.checkers.once import Once
from xpmem_emu.judge.checkers.pins import Pins
from xpmem_emu.judge.checkers.priority import Priority
from xpmem_emu.judge.invariants import Invariant, When
from xpmem_emu.judge.merging import Merge, MergedStep, by_partition
from xpmem_emu.judge.scene import EventHandler, Listener, Scene
from xpmem_emu.judge.verdict import Violation
from xpmem_emu.kernel.events import KernelBoot, Syscall, SyscallDone
from xpmem_emu.trace import Event
from xpmem_emu.units import MILLISECOND

LIVE_SLACK_NS = 500 * MILLISECOND
"""What a live partition's bound may be exceeded by: steps take time there."""


class StreamsEnd(Enum):
    """How the streams end: anywhere, or healed, with every call ended and nobody at work."""

    CUT = "cut"
    AT_REST = "at rest"


class StreamJudgement(msgspec.Struct, frozen=True):
    """What the streams say. `judged`: the invariants, and as what they were looked at."""

    violations: list[Violation]
    events: int
    boots: int
    judged: Mapping[str, str]
    unjudged: Mapping[str, str]


def judge_stream_files(
    files: Iterable[Path],
    image: Image,
    ending: StreamsEnd = StreamsEnd.CUT,
    slack_ns: int = LIVE_SLACK_NS,
) -> StreamJudgement:
    """Judge the streams in `files`, one or more of each partition, all booted with `image`.

    Raises KernelError EBADMSG, with file and line, for anything but a torn end of a boot.
    """
    court = _Court(image, slack_ns)
    for step in Merge(by_partition(files)):
        court.hear(step)
    judged = _shown(When.ALWAYS)
    unjudged = _shown(When.NEVER)
    if ending is StreamsEnd.AT_REST:
        court.rest()
        judged |= _shown(When.AT_REST)
    else:
        unjudged |= dict.fromkeys(_shown(When.AT_REST), "the end is not at rest")
    return StreamJudgement(court.scene.violations, court.events, court.boots, judged, unjudged)


def _shown(when: When) -> dict[str, str]:
    """What streams show of the invariants that they show then, or why they do not."""
    return {each: each.streams.what for each in Invariant if each.streams.when is when}


class _Court:
    """The checkers that need no kernel, over one stream."""

    def __init__(self, image: Image, slack_ns: int) -> None:
        self.scene = Scene(image)
        self.events = 0
        self.boots = 0
        self._bounds, self._pins = Bounds(self.scene), Pins(self.scene)
        self._bounds.slack_ns = slack_ns
        self._checkers: list[Checker] = [
            Containment(self.scene),
            Claims(self.scene),
            Installs(self.scene),
            self._pins,
            Identity(self.scene),
            Once(self.scene),
            self._bounds,
            Priority(self.scene),
            Endings(self.scene),
        ]
        self._handlers: dict[type[Event], list[EventHandler]] = {}
        listeners: list[Listener] = [self.scene, *self._checkers]
        for listener in listeners:
            for kind, handler in listener.handlers().items():
                self._handlers.setdefault(kind, []).append(handler)
        self._calls: dict[int, int] = {}
        """Calls under way on each partition."""

    def hear(self, step: MergedStep) -> None:
        """One step of one partition."""
        self.scene.moment += 1
        self.scene.now_ns = step.time_ns
        for record in step.records:
            self.events += 1
            self._track(step.partid, record.event)
            self.scene.thread = record.thread
            for handler in self._handlers.get(type(record.event), ()):
                handler(step.partid, record.event)
        for checker in self._checkers:
            if step.killed:
                checker.crashed(step.partid)
            else:
                checker.stepped(step.partid)

    def rest(self) -> None:
        """The streams end at rest."""
        self._bounds.settled()
        self._pins.unused()
        for partid, count in self._calls.items():
            if count:
                self.scene.report(Invariant.L3, partid, f"{count} calls were never answered")
        sessions = self.scene.sessions
        for one in self._calls:
            for other in self._calls:
                if not sessions.active(one, other):
                    self.scene.report(Invariant.L4, one, f"not active with p{other} at the end")

    def _track(self, partid: int, event: Event) -> None:
        match event:
            case KernelBoot():
                self.boots += 1
                self._calls[partid] = 0
            case Syscall():
                self._calls[partid] += 1
            case SyscallDone():
                self._calls[partid] -= 1
