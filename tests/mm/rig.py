"""A memory layer on a bench: small memory, a scheduler driven by hand, a recording notifier."""

from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

import numpy as np

from xpmem_emu.image import (
    Bytes,
    Image,
    LimitsSection,
    MemorySection,
    MmSection,
    MmuSection,
    NotifierDesign,
)
from xpmem_emu.mm import (
    AddressSpace,
    MapRequest,
    MemoryContext,
    Prot,
    VmaFlags,
    audit_memory,
    load,
    mmap,
    store,
    unpin_pages,
)
from xpmem_emu.sched import Completion, LockDep, Scheduler, Thread
from xpmem_emu.trace import Event, Tracer
from xpmem_emu.units import PAGE_SIZE

T = TypeVar("T")
E = TypeVar("E", bound=Event)
PARTID = 3
RW = Prot.READ | Prot.WRITE


class Outcome(Generic[T]):
    """What became of a coroutine that runs in a thread of its own."""

    def __init__(self, scheduler: Scheduler, coroutine: Coroutine[Any, Any, T]) -> None:
        self.done = False
        self._value: T | None = None
        self._error: BaseException | None = None
        self.thread: Thread = scheduler.spawn("test", self._run(coroutine))

    async def _run(self, coroutine: Coroutine[Any, Any, T]) -> None:
        try:
            self._value = await coroutine
        except Exception as error:
            self._error = error
        self.done = True

    @property
    def value(self) -> T:
        assert self.done, "the coroutine is still waiting"
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]


class Rig:
    """One MemoryContext and the means to run coroutines on it."""

    def __init__(
        self,
        frames: int = 256,
        swap: int = 64,
        mmu: MmuSection | None = None,
        mm: MmSection | None = None,
        **limits: int,
    ) -> None:
        memory = MemorySection(
            size=Bytes(frames * PAGE_SIZE),
            swap=Bytes(swap * PAGE_SIZE),
            files=Bytes(512 * PAGE_SIZE),
        )
        self.scheduler = Scheduler()
        self.tracer = Tracer(PARTID, self.scheduler)
        self.memory = MemoryContext(
            PARTID,
            Image(
                memory=memory,
                limits=LimitsSection(**limits),
                mm=mm or MmSection(),
                mmu=mmu or MmuSection(),
            ),
            memoryview(bytearray(memory.size)),
            memoryview(bytearray(memory.swap)),
            self.scheduler,
            LockDep(),
            self.tracer,
        )
        self.trace: list[Event] = []
        self.audits = True
        """Whether every index and count is compared after each step."""

    def start(self, coroutine: Coroutine[Any, Any, T]) -> Outcome[T]:
        """Run everything until all threads wait; the coroutine may be one of them."""
        outcome = Outcome(self.scheduler, coroutine)
        self.go_on()
        if self.audits:
            self.audit()
        return outcome

    def go_on(self) -> None:
        """Steps until all threads wait: who rests in long work goes on in the next one."""
        scheduler = self.scheduler
        scheduler.run(scheduler.now_ns)
        while scheduler.next_deadline_ns() == scheduler.now_ns + 1:
            scheduler.run(scheduler.now_ns + 1)

    def pass_time(self, count_ns: int) -> None:
        """Let timers fire and run what they wake."""
        self.scheduler.run(self.scheduler.now_ns + count_ns)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine that must come to an end without outside help."""
        return self.start(coroutine).value

    def space(self, pid: int = 1) -> AddressSpace:
        return self.memory.new_address_space(pid)

    def map(self, mm: AddressSpace, pages: int, **request: Any) -> int:
        return self.run(mmap(mm, MapRequest(length=pages * PAGE_SIZE, **request)))

    def shared(self, mm: AddressSpace, pages: int) -> int:
        return self.map(mm, pages, flags=VmaFlags.SHARED)

    def load(self, mm: AddressSpace, address: int, size: int) -> bytes:
        return bytes(self.run(load(mm, address, size)))

    def store(self, mm: AddressSpace, address: int, data: bytes) -> None:
        self.run(store(mm, address, data))

    def frame(self, mm: AddressSpace, address: int) -> int:
        """The local frame behind an address, 0 when there is none."""
        return (mm.page_table.walk(address >> 12) >> 12) & (1 << 38) - 1

    def events(self, kind: type[E]) -> list[E]:
        self.trace += [record.event for record in self.tracer.drain()]
        return [event for event in self.trace if isinstance(event, kind)]

    def audit(self) -> dict[str, int]:
        return audit_memory(self.memory)


MakeRig = Callable[..., Rig]
Work = Coroutine[Any, Any, object]
"""What a rig runs."""


class Client:
    """A notifier that writes down what it sees, and can hold pins or make the sync wait."""

    def __init__(self, rig: Rig, watched: int = 0) -> None:
        self.rig = rig
        self.watched = watched
        """An address whose entry and frame are looked at in each call."""
        self.calls: list[tuple[str, int, int]] = []
        self.ended: list[tuple[int, int, int]] = []
        """(start, end, operations that owe something) at each end."""
        self.seen: list[tuple[str, bool, bool]] = []
        """(call, entry usable, frame still in use) at each call."""
        self.pins: list[np.ndarray] = []
        self.gate: Completion[None] | None = None
        self.start_gate: Completion[None] | None = None
        self._frame = 0

    def attach(self, mm: AddressSpace) -> "Client":
        self.mm = mm
        mm.notifiers.register(self)
        self._frame = self.rig.frame(mm, self.watched)
        return self

    def kinds(self) -> list[str]:
        return [kind for kind, _, _ in self.calls]

    def _look(self, call: str) -> None:
        entry = self.mm.page_table.walk(self.watched >> 12)
        usable = bool(entry & 1) and entry >> 12 & (1 << 38) - 1 == self._frame
        self.seen.append((call, usable, bool(self.rig.memory.frames.refcount[self._frame])))

    def invalidate_range(self, start: int, end: int) -> None:
        gathered = self.rig.memory.image.mm.notifier is NotifierDesign.GATHER
        assert self.mm.page_table_lock.locked is not gathered
        self.calls.append(("invalidate", start, end))
        self._look("invalidate")

    def invalidate_special(self, start: int, end: int) -> None:
        self.calls.append(("special", start, end))

    def watches(self, start: int, end: int) -> bool:
        return start <= self.watched < end

    async def invalidate_range_start(self, start: int, end: int) -> None:
        assert not self.mm.page_table_lock.locked
        if self.start_gate is not None:
            await self.start_gate.wait()
        self.calls.append(("start", start, end))
        self._look("start")

    def invalidate_pages(self, start: int, end: int) -> None:
        assert self.mm.page_table_lock.locked
        self.calls.append(("pages", start, end))
        self._look("pages")

    async def invalidate_range_sync(self, start: int, end: int) -> None:
        self.rig.scheduler.might_sleep()
        if self.gate is not None:
            await self.gate.wait()
        self.calls.append(("sync", start, end))
        self._look("sync")
        pins, self.pins = self.pins, []
        for frames in pins:
            unpin_pages(self.rig.memory, frames)

    async def invalidate_range_end(self, start: int, end: int) -> None:
        self.rig.scheduler.might_sleep()
        self.ended.append((start, end, self.rig.memory.operations))
        self._look("end")

    async def release(self) -> None:
        self.calls.append(("release", 0, 0))
        self._look("release")

    def hold(self) -> Completion[None]:
        """Make every sync wait until the returned completion is completed."""
        self.gate = Completion(self.rig.scheduler)
        return self.gate

    def let_go(self) -> None:
        assert self.gate is not None
        self.gate.complete(None)
        self.gate = None
        self.rig.go_on()
