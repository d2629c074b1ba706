"""What every secondary MMU is to an address space: a client of its notifier chain, and whoever asks
it for memory.

    who takes a page away                  a device
    lock; invalidate_range --------------> drops its translations; the range is active
    clear entry; unlock                    a miss in the range waits, or is tried again
    invalidate_range_sync ---------------> the range is settled
    free the page

Invariant: between two steps of the kernel a translation says no more than the page-table entry that
it was learned from. So nothing of it is left when an importer acknowledges a recall or a home
partition is lost, and no sync is needed for that: an invalidation of special entries is over when
it returns. `active` only keeps misses out of ranges that still change (sources T12).
"""

import errno
from abc import ABC, abstractmethod
from typing import ClassVar

from xpmem_emu.codec import Buffer
from xpmem_emu.errors import KernelError, Signal, SignalInfo, Signalled
from xpmem_emu.mm.access import FRUITLESS_FAULTS_MAX, check_special, reach
from xpmem_emu.mm.mm_types import AddressSpace
from xpmem_emu.mm.pte import FRAME_SHIFT, PRESENT, SPECIAL, UNCACHED, WRITE
from xpmem_emu.mm.ranges import require_alive
from xpmem_emu.mmu import events
from xpmem_emu.sched import WaitQueue, Wake
from xpmem_emu.units import PAGE_MASK, PAGE_SHIFT

_Span = tuple[int, int]
"""[start, end) in bytes."""


class SecondaryMmu(ABC):
    """A device that translates addresses of `mm`. Its own addresses may be others (`user`)."""

    kind: ClassVar[str]

    def __init__(self, mm: AddressSpace) -> None:
        """Raises KernelError ESRCH (the task is exiting), EEXIST (it has one)."""
        require_alive(mm)
        if any(device.kind == self.kind for device in devices_of(mm)):
            raise KernelError(errno.EEXIST, f"task {mm.pid} has a {self.kind} already")
        self.mm = mm
        self.open = True
        self.misses = 0
        self.waits = 0
        self.retries = 0
        self.flushes = 0
        """Invalidations that it was told of, however large the range."""
        self._active: list[_Span] = []
        self._settled = WaitQueue(mm.context.scheduler)

    def subscribe(self) -> None:
        """From now on it hears what happens to the address space."""
        self.mm.notifiers.register(self)
        self.mm.context.tracer.emit(events.MmuAttach(device=self.kind, pid=self.mm.pid))

    # -- what a device is made of ------------------------------------------------------------

    @abstractmethod
    def translation(self, page: int) -> int:
        """What it has for `page` of its own addresses, as a page-table word; 0: nothing."""

    @abstractmethod
    async def fault(self, page: int, write: bool) -> None:
        """Bring in a translation for `page`. It may be gone again when this returns."""

    @abstractmethod
    def drop(self, start: int, end: int) -> int:
        """Forget what was learned from the entries of [start, end). Atomic. How many there were."""

    @abstractmethod
    def held(self) -> dict[int, int]:
        """All that it has: page of its own addresses -> page-table word."""

    @abstractmethod
    def about(self) -> str:
        """What is its own about it, in a few words."""

    def watches(self, start: int, end: int) -> bool:
        """Whether it could have learned something from [start, end)."""
        return True

    def user(self, address: int) -> int:
        """The task's address for one of the device. Raises KernelError EFAULT."""
        return address

    def close(self) -> None:
        """Translate nothing and hear nothing any more. Atomic; once."""
        self.open = False
        self.mm.notifiers.unregister(self)
        self._settled.wake_all()
        self.mm.context.tracer.emit(events.MmuDetach(device=self.kind, pid=self.mm.pid))

    # -- the notifier ------------------------------------------------------------------------

    def invalidate_range(self, start: int, end: int) -> None:
        """Drop, and keep misses out until the range is settled."""
        if self.watches(start, end):
            self._active.append((start, end))
            self._invalidate(start, end, settles=True)

    def invalidate_special(self, start: int, end: int) -> None:
        """Drop; nothing is left to wait for."""
        if self.watches(start, end):
            self._invalidate(start, end, settles=False)

    invalidate_pages = invalidate_special
    """Under the page-table lock there is no miss that would have to be kept out."""

    async def invalidate_range_start(self, start: int, end: int) -> None:
        """The same, which needs no sleep."""
        self.invalidate_range(start, end)

    async def invalidate_range_sync(self, start: int, end: int) -> None:
        """Everybody else who was told is done, too, or will say so: misses may come back."""
        if not self.active(start, end):
            return
        self._active = [left for span in self._active for left in _outside(span, (start, end))]
        self.mm.context.tracer.emit(
            events.MmuSettle(device=self.kind, pid=self.mm.pid, start=start, end=end)
        )
        self._settled.wake_all()

    async def invalidate_range_end(self, start: int, end: int) -> None:
        """Nobody was given up by it, so there is nothing to wait for."""
        return

    async def release(self) -> None:
        """The address space ends."""
        self.close()

    def _invalidate(self, start: int, end: int, *, settles: bool) -> None:
        self.flushes += 1
        dropped = self.drop(start, end)
        self.mm.context.tracer.emit(
            events.MmuInvalidate(
                device=self.kind,
                pid=self.mm.pid,
                start=start,
                end=end,
                dropped=dropped,
                settles=settles,
            )
        )

    # -- accesses ----------------------------------------------------------------------------

    async def load(self, address: int, size: int) -> bytes:
        """`size` bytes at an address of the device. Raises KernelError EFAULT (no memory there, or
        not for this), EIO (a machine check), EAGAIN (taken away again and again), ENXIO (the device
        went); Signalled when the task was killed or memory ran out."""
        data = bytearray()
        while len(data) < size:
            data += (await self._reach(address + len(data), PRESENT))[: size - len(data)]
        return bytes(data)

    async def store(self, address: int, data: Buffer) -> None:
        """Write `data`. Raises as `load`; the bytes before the failure are written."""
        rest = memoryview(data)
        while rest:
            view = await self._reach(address + len(data) - len(rest), PRESENT | WRITE)
            size = min(len(view), len(rest))
            view[:size] = rest[:size]
            rest = rest[size:]

    async def _reach(self, address: int, need: int) -> memoryview:
        """The bytes from `address` to the end of its page, valid until the caller awaits."""
        page = address >> PAGE_SHIFT
        for _ in range(FRUITLESS_FAULTS_MAX):
            word = self.translation(page)
            if word & need == need:
                return self._bytes(word, address)
            self.misses += 1
            await self.fault(page, bool(need & WRITE))
            if not self.open:  # asked after every sleep: what is gone translates nothing
                raise KernelError(errno.ENXIO, f"task {self.mm.pid} lost its {self.kind}")
        raise KernelError(
            errno.EAGAIN, f"the page was taken away {FRUITLESS_FAULTS_MAX} times", "try again"
        )

    def _bytes(self, word: int, address: int) -> memoryview:
        if word & SPECIAL:  # as the processor asks: is the home alive, is the area still attached
            start = self.user(address)
            try:
                check_special(self.mm, start, start + 1)
            except Signalled as signal:
                raise _contained(signal) from None
        return self.mm.context.physical.view(word >> FRAME_SHIFT, 1)[address & PAGE_MASK :]

    async def walk(self, address: int, write: bool) -> int:
        """The page-table word behind an address of the task, after a page fault if need be; good
        until the caller awaits. Raises as `load`."""
        try:
            await reach(self.mm, address, 1, write)
        except Signalled as signal:
            raise _contained(signal) from None
        word = self.mm.page_table.walk(address >> PAGE_SHIFT)
        if word & UNCACHED:
            raise KernelError(
                errno.EFAULT,
                f"{address:#x} is uncached memory: a {self.kind} would be a cached alias of it",
                "the processor's loads, stores and atomic operations reach it",
            )
        return word

    def installed(self, address: int, pages: int) -> None:
        """Say so."""
        self.mm.context.tracer.emit(
            events.MmuInstall(device=self.kind, pid=self.mm.pid, address=address, pages=pages)
        )

    def active(self, start: int, end: int) -> bool:
        """Whether some of [start, end) is being invalidated."""
        return any(low < end and start < high for low, high in self._active)

    async def settled(self, start: int, end: int) -> None:
        """Return when nothing of [start, end) is being invalidated, or the device is gone."""
        while self.open and self.active(start, end):
            self.waits += 1
            self.mm.context.tracer.emit(
                events.MmuWait(device=self.kind, pid=self.mm.pid, address=start)
            )
            if await self._settled.wait_killable() is Wake.KILLED:
                reason = f"killed while its {self.kind} waited for a page"
                raise Signalled(SignalInfo(Signal.SIGKILL, reason, start))


def devices_of(mm: AddressSpace) -> list[SecondaryMmu]:
    """The devices that translate for an address space: its notifier chain is the list of them."""
    return [client for client in mm.notifiers.registered if isinstance(client, SecondaryMmu)]


def _contained(signal: Signalled) -> Exception:
    """A device takes no signal: its user gets an error, unless nobody is there to get one."""
    if signal.info.signal is Signal.SIGKILL:
        return signal
    return KernelError(errno.EIO if signal.info.forced else errno.EFAULT, signal.info.reason)


def _outside(span: _Span, hole: _Span) -> list[_Span]:
    """What is left of `span` without `hole`."""
    pieces = ((span[0], min(span[1], hole[0])), (max(span[0], hole[1]), span[1]))
    return [piece for piece in pieces if piece[0] < piece[1]]
