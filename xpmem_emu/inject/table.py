"""The faults in force at one harness: put up, listed, taken down, and ended when their time is up.

    text --parse_injection--> injection --put--> interconnect | clock | throttle | call to a kernel

The board keeps names and ends; what a fault does is done by the part it was given to. The same
board serves the simulator, which has all partitions, and a partition's process, which has one: a
`Ground` says what there is. Faults die with their harness.
"""

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from xpmem_emu.errors import KernelError
from xpmem_emu.failpoints.engine import require_possible
from xpmem_emu.inject import events
from xpmem_emu.inject.clock import Clock
from xpmem_emu.inject.grammar import format_injection, parse_injection, renamed, stem
from xpmem_emu.inject.injections import (
    ClockEffect,
    ClockInjection,
    Fields,
    Injection,
    PaceEffect,
    PaceInjection,
    PointInjection,
    concerns,
)
from xpmem_emu.inject.interconnect import Delivery, Interconnect
from xpmem_emu.inject.rules import Partids, Rule
from xpmem_emu.inject.throttle import Callback, Throttle
from xpmem_emu.trace import Event

INJECTIONS_MAX = 256
InjectionRow = dict[str, int | str]


class InjectionSite(Protocol):
    """What a harness offers to faults."""

    @property
    def interconnect(self) -> Interconnect:
        """The rules of messages."""

    def now_ns(self) -> int:
        """The real time, or the simulator's."""

    def partids(self) -> Sequence[int]:
        """The partitions whose kernels this harness steps."""

    def clock(self, partid: int) -> Clock:
        """The clock that this kernel is stepped by."""

    def clock_changed(self, partid: int) -> None:
        """Step this kernel: its deadlines may have come or gone."""

    def pace(self, partid: int) -> Throttle:
        """The pace of this kernel."""

    def pace_changed(self, partid: int, waiting: list[Callback]) -> None:
        """From now on its pace counts; take the events that waited."""

    def deliver(self, deliveries: list[Delivery]) -> None:
        """Send these messages, each when it is due."""

    def at(self, time_ns: int, action: Callback) -> None:
        """Do something later."""

    def call(self, partid: int, fields: Fields) -> None:
        """Make a call to this kernel. Raises KernelError when it refuses at once."""

    def emit(self, event: Event) -> None:
        """Append to the event stream."""


@dataclass(slots=True)
class _Up:
    """A fault on the board."""

    fault: Injection
    since_ns: int


class InjectionTable:
    """All faults of one harness."""

    def __init__(self, ground: InjectionSite, seed_of: Callable[[str], int]) -> None:
        """`seed_of` gives the seed of what draws inside a kernel, by the fault's name."""
        self._ground = ground
        self._seed_of = seed_of
        self._up: dict[str, _Up] = {}

    def add(self, text: str) -> str:
        """Put up the fault that `text` describes; its name. Raises KernelError: EINVAL, EEXIST,
        and what a kernel refuses."""
        try:
            return self.put(parse_injection(text))
        except ValueError as error:
            raise KernelError(errno.EINVAL, str(error), "docs/faults.md shows every form") from None

    def put(self, fault: Injection) -> str:
        """As `add`, for a fault that was read already."""
        if len(self._up) >= INJECTIONS_MAX:
            raise KernelError(errno.ENOSPC, f"{INJECTIONS_MAX} faults are in force", "fault reset")
        fault = fault if fault.name else renamed(fault, self._free_name(stem(fault)))
        if fault.name in self._up:
            raise KernelError(
                errno.EEXIST, f"a fault named {fault.name} is in force", "another --name"
            )
        self._begin(fault)
        now_ns = self._ground.now_ns()
        up = self._up[fault.name] = _Up(fault, now_ns)
        if fault.for_ns is not None:
            self._ground.at(now_ns + fault.for_ns, lambda: self._expire(up))
        return fault.name

    def remove(self, name: str) -> None:
        """Heal one fault; what it held back goes on its way. Raises KernelError ENOENT."""
        fault = self._find(name).fault
        del self._up[name]
        self._end(fault)

    def reset(self) -> list[str]:
        """Heal every fault; their names."""
        names = list(self._up)
        for name in names:
            self.remove(name)
        return names

    def release(self, name: str) -> int:
        """Let go the messages that a rule holds back; it stays in force. Result: how many.
        Raises KernelError ENOENT, EINVAL."""
        if not isinstance(self._find(name).fault, Rule):
            raise KernelError(errno.EINVAL, f"{name} holds no messages", "a hold or a clog")
        ground = self._ground
        released = ground.interconnect.release(name, ground.now_ns())
        ground.deliver(released)
        return len(released)

    def rows(self) -> list[InjectionRow]:
        """The faults in force, oldest first."""
        return [self._row(name, up) for name, up in self._up.items()]

    def _row(self, name: str, up: _Up) -> InjectionRow:
        fault, now_ns = up.fault, self._ground.now_ns()
        rule = isinstance(fault, Rule)
        ends_ns = -1 if fault.for_ns is None else up.since_ns + fault.for_ns - now_ns
        return {
            "name": name,
            "kind": stem(fault),
            "fault": format_injection(fault),
            "hits": fault.hits if isinstance(fault, Rule) else 0,
            "held": self._ground.interconnect.held(name) if rule else 0,
            "age_ns": now_ns - up.since_ns,
            "left_ns": ends_ns,
        }

    def _find(self, name: str) -> _Up:
        up = self._up.get(name)
        if up is None:
            there = ", ".join(self._up) or "there is none"
            raise KernelError(errno.ENOENT, f"no fault is named {name}", there)
        return up

    def _free_name(self, prefix: str) -> str:
        return next(
            name for n in range(1, INJECTIONS_MAX + 2) if (name := f"{prefix}-{n}") not in self._up
        )

    def _expire(self, up: _Up) -> None:
        """Its time is up; another fault may have its name by now."""
        if self._up.get(up.fault.name) is up:
            self.remove(up.fault.name)

    # -- carrying out ----------------------------------------------------------------------

    def _begin(self, fault: Injection) -> None:
        ground = self._ground
        if isinstance(fault, Rule):
            ground.interconnect.add(fault, ground.now_ns())
            return
        for partid in self._here(concerns(fault)):
            match fault:
                case ClockInjection():
                    self._set_clock(fault, partid)
                case PaceInjection():
                    self._set_pace(fault, partid)
                case _:
                    if isinstance(fault, PointInjection):
                        require_possible(fault.point, fault.terms)
                    ground.call(partid, fault.begin(self._seed_of(fault.name)))
        ground.emit(events.InjectionBegin(name=fault.name, fault=format_injection(fault)))

    def _end(self, fault: Injection) -> None:
        ground = self._ground
        if isinstance(fault, Rule):
            ground.deliver(ground.interconnect.remove(fault.name, ground.now_ns()))
            return
        for partid in self._here(concerns(fault)):
            match fault:
                case ClockInjection(trouble=ClockEffect.JUMP):
                    pass  # a clock never goes back
                case ClockInjection():
                    ground.clock(partid).run_at(ground.now_ns(), 1.0)
                    ground.clock_changed(partid)
                case PaceInjection(trouble=PaceEffect.THROTTLE):
                    ground.pace_changed(partid, ground.pace(partid).unthrottle())
                case PaceInjection():
                    ground.pace_changed(partid, ground.pace(partid).go_on())
                case _:
                    ground.call(partid, fault.end())
        ground.emit(events.InjectionEnd(name=fault.name, hits=0))

    def _set_clock(self, fault: ClockInjection, partid: int) -> None:
        clock, now_ns = self._ground.clock(partid), self._ground.now_ns()
        match fault.trouble:
            case ClockEffect.JUMP:
                clock.jump(now_ns, fault.amount)
            case ClockEffect.SKEW:
                clock.run_at(now_ns, 1 + fault.share)
            case ClockEffect.FREEZE:
                clock.run_at(now_ns, 0.0)
        self._ground.clock_changed(partid)

    def _set_pace(self, fault: PaceInjection, partid: int) -> None:
        pace = self._ground.pace(partid)
        if fault.trouble is PaceEffect.THROTTLE:
            pace.throttle(fault.delay_ns)
        else:
            pace.stall()
        self._ground.pace_changed(partid, [])

    def _here(self, partids: Partids | None) -> list[int]:
        return [one for one in self._ground.partids() if partids is None or one in partids]
