"""Faults of one partition's process: the ground that its fault board stands on.

Messages that this partition sends meet its rules here, and only those: a fault of a link lives
with the sender. While no rule is in force a message costs one `if`. Late deliveries wait on the
event loop; what was on its way when a link went down still arrives, as on a real wire, and is
dropped by its incarnation. Everything ends with the process.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial
from random import Random

import msgspec
from msgspec import Struct

from xpmem_emu.client.injection_requests import Add, InjectionRequest, ReleaseRequest, Remove, Reset
from xpmem_emu.codec import Buffer
from xpmem_emu.errors import KernelError
from xpmem_emu.inject.clock import Clock
from xpmem_emu.inject.injections import Fields
from xpmem_emu.inject.interconnect import Delivery, Interconnect
from xpmem_emu.inject.table import InjectionTable
from xpmem_emu.inject.throttle import Callback, Throttle
from xpmem_emu.kernel.breaking import BreakingCall
from xpmem_emu.kernel.calls import Value
from xpmem_emu.kernel.interface import Failed, KernelEvent, Outcome, Send, Tick
from xpmem_emu.live.driver import Driver
from xpmem_emu.trace import Event as TraceEvent
from xpmem_emu.trace import Record


class _Call(Struct, frozen=True):
    call: BreakingCall


class LiveInjections:
    """The faults of partition `partid`. It is the Ground of its board."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        partid: int,
        driver: Driver,
        send: Callable[[int, list[Buffer]], None],
        publish: Callable[[Sequence[Record]], None],
    ) -> None:
        """`send` puts frames on the link to a partition; `publish` takes records."""
        self._loop = loop
        self._partid = partid
        self._driver = driver
        self._send = send
        self._publish = publish
        self._seed = 0
        self._seeds: dict[str, int] = {}
        """By the fault's name: it draws its stream when it meets its first message."""
        self._pace = Throttle()
        self._interconnect = Interconnect(self._stream, self.emit)
        self.board = InjectionTable(self, lambda name: self._seed)

    @property
    def interconnect(self) -> Interconnect:
        return self._interconnect

    def route(self, now_ns: int, message: Send) -> None:
        """Send a message of the kernel through the rules."""
        if self._interconnect.idle:
            self._send(message.partid, message.frames)
        else:
            self.deliver(self._interconnect.route(now_ns, self._partid, message))

    def serve(self, request: InjectionRequest) -> Value:
        """What a client asks. Raises KernelError."""
        match request:
            case Add(text=text, seed=seed):
                self._seed = seed
                name = self.board.add(text)
                self._seeds[name] = seed
                return name
            case Remove(name=name):
                return self.board.remove(name)
            case Reset():
                return self.board.reset()
            case ReleaseRequest(name=name):
                return self.board.release(name)
        return self.board.rows()

    def _stream(self, name: str) -> Random:
        seed = self._seeds.get(name.rpartition("/")[0], self._seed)
        return Random(f"{seed}/{name}")

    # -- Ground ----------------------------------------------------------------------------

    def now_ns(self) -> int:
        return time.monotonic_ns()

    def partids(self) -> Sequence[int]:
        return (self._partid,)

    def clock(self, partid: int) -> Clock:
        return self._driver.clock

    def clock_changed(self, partid: int) -> None:
        self._driver.take(Tick())

    def pace(self, partid: int) -> Throttle:
        return self._pace

    def pace_changed(self, partid: int, waiting: list[Callback]) -> None:
        self._driver.gate = None if self._pace.free else self._defer
        for action in waiting:
            action()

    def deliver(self, deliveries: list[Delivery]) -> None:
        now_ns = self.now_ns()
        for delivery in deliveries:
            if delivery.at_ns <= now_ns:
                self._send(delivery.dst, delivery.frames)
            else:
                self.at(delivery.at_ns, self._sending(delivery))

    def at(self, time_ns: int, action: Callback) -> None:
        # uvloop counts whole milliseconds; round up.
        delay_ms = max(0, -((self.now_ns() - time_ns) // 1_000_000))
        self._loop.call_later(delay_ms / 1000, action)

    def call(self, partid: int, fields: Fields) -> None:
        call = msgspec.convert({"call": fields}, _Call).call
        refused: list[Failed] = []

        def answer(outcome: Outcome) -> None:
            if isinstance(outcome, Failed):
                refused.append(outcome)

        self._driver.call(call, b"", answer)
        if refused:
            raise KernelError(refused[0].errno, refused[0].cause, refused[0].remedy)

    def emit(self, event: TraceEvent) -> None:
        self._publish([Record(0, self.now_ns(), self._partid, "fabric", event)])

    def _sending(self, delivery: Delivery) -> Callback:
        # Bulk may be a view of memory that changes; what is late was sent as it is now.
        frames: list[Buffer] = [bytes(frame) for frame in delivery.frames]
        return lambda: self._send(delivery.dst, frames)

    def _defer(self, event: KernelEvent) -> bool:
        """Whether `event` is taken later, or not before a stall ends."""
        now_ns = self.now_ns()
        at_ns = self._pace.defer(now_ns, lambda: self._driver.take(event))
        if at_ns is not None and at_ns <= now_ns:
            return False
        if at_ns is not None:
            self.at(at_ns, partial(self._pace.due, at_ns))
        return True
