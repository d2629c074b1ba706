"""The home side of access by message: COPY and AMO, carried out in the exporter's address space.

Loads and stores from another coherence domain and block transfers from anywhere come as COPY,
atomic operations as AMO. Nothing is pinned and no holder is noted, so nothing has to be recalled:
the exporter's page table is walked when the request is served, which may sleep (swap-in,
demand-zero, copy on write), and after the last sleep the firewall is asked again. What moves then
moves atomically up to the end of a run of present pages; an aligned word is never torn.

    importer                                  exporter
    | COPY(write) -------------------------->  | permit holds; the page is absent, sleep
    |                                          | remove: the permit ends; returns
    |                                          | page present: the permit ended -> refused
    |<------------------ CopyReply(ENOENT) --- | nothing was written

An attachment of an attachment is refused, as its faults are; a page that the exporter itself may
not store into is not stored into for others either. A refusal is an errno and a cause.
"""

import errno

from xpmem_emu.codec import Buffer
from xpmem_emu.errors import KernelError, Signalled
from xpmem_emu.failpoints.points import SERVE_ACCESS
from xpmem_emu.mm.access import reach
from xpmem_emu.mm.atomic import AMO_SIZE, AmoOperation, atomic, require_uncached
from xpmem_emu.mm.gup import TRIES_MAX, bring_in, usable_area
from xpmem_emu.mm.mm_types import AddressSpace, Vma
from xpmem_emu.mm.vma_flags import VmaFlags
from xpmem_emu.sched import Wake
from xpmem_emu.text import text
from xpmem_emu.units import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE
from xpmem_emu.xpc.messages import Amo, AmoReply, Copy, CopyReply
from xpmem_emu.xpmem import events
from xpmem_emu.xpmem.firewall import Firewall
from xpmem_emu.xpmem.objects import Grant, Segment
from xpmem_emu.xpmem.services import Services


class AccessServer:
    """Accesses of importers that have no page."""

    def __init__(self, services: Services, firewall: Firewall) -> None:
        self._services = services
        self._firewall = firewall

    async def copy(self, importer: int, request: Copy, data: Buffer) -> tuple[CopyReply, Buffer]:
        """Read, or with `write` store, a block of a segment."""
        try:
            self._require_fits(request.size)
            grant = self._firewall.admit(
                importer, request.apid, request.offset, request.size, write=request.write
            )
            if self._services.failpoints.armed:
                await self._services.failpoints.reach(SERVE_ACCESS)
            if request.write:
                await self._write(grant, request, data)
                found: Buffer = b""
            else:
                found = await self._read(grant, request)
        except (KernelError, Signalled) as error:
            number, cause = _refusal(error)
            return CopyReply(number, cause), b""
        self._services.tracer.emit(
            events.CopyServe(
                segid=grant.segment.segid,
                importer=importer,
                offset=request.offset,
                size=request.size,
                write=request.write,
            )
        )
        return CopyReply(0, ""), found

    async def amo(self, importer: int, request: Amo) -> AmoReply:
        """An atomic operation on a word of a segment."""
        try:
            grant = self._firewall.admit(
                importer, request.apid, request.offset, AMO_SIZE, write=True
            )
            if self._services.failpoints.armed:
                await self._services.failpoints.reach(SERVE_ACCESS)
            mm, address = grant.segment.group.mm, grant.segment.vaddr + request.offset
            operation = AmoOperation(request.operation)
            require_uncached(mm, address)
            await self._reach(grant, request.offset, AMO_SIZE, write=True)
            # The page is present now, so that this does not sleep.
            before = await atomic(mm, address, operation, request.operand, request.compare)
        except (KernelError, Signalled) as error:
            number, cause = _refusal(error)
            return AmoReply(number, cause, 0)
        except ValueError:
            return AmoReply(errno.EINVAL, f"no atomic operation {request.operation}", 0)
        return AmoReply(0, "", before)

    def _require_fits(self, size: int) -> None:
        """Raise KernelError EMSGSIZE when no answer could carry so much."""
        payload = self._services.image.xpc.payload
        if size > payload:
            raise KernelError(errno.EMSGSIZE, f"{size} bytes are more than a message of {payload}")

    async def _read(self, grant: Grant, request: Copy) -> bytes:
        """Copied once where nothing is missing, and never again: bytes are sent as they are."""
        data = b""
        while len(data) < request.size:
            at, left = request.offset + len(data), request.size - len(data)
            data += b"".join(await self._reach(grant, at, left, write=False))
        return data

    async def _write(self, grant: Grant, request: Copy, data: Buffer) -> None:
        if len(data) != request.size:
            raise KernelError(errno.EINVAL, f"{len(data)} bytes came for a store of {request.size}")
        rest = memoryview(data)
        while rest:
            at = request.offset + request.size - len(rest)
            for view in await self._reach(grant, at, len(rest), write=True):
                view[:] = rest[: len(view)]
                rest = rest[len(view) :]

    async def _reach(self, grant: Grant, offset: int, size: int, write: bool) -> list[memoryview]:
        """Views of the exporter's memory, for use before the next await: the permit holds now."""
        segment = grant.segment
        mm, address = segment.group.mm, segment.vaddr + offset
        for _ in range(TRIES_MAX):
            await self._until_forked(segment)
            self._firewall.require_live(grant)  # remove and release do not wait for who sleeps here
            area = _area(segment, address, write)
            part = min(size, area.end - address)
            if area.flags & VmaFlags.MSPEC:
                part = min(part, PAGE_SIZE - (address & PAGE_MASK))
                await _require_present(mm, address)  # then `reach` finds it, and does not sleep
            views = await reach(mm, address, part, write)
            # While pages were brought in: the permit may have ended, the area gone or lost its
            # rights, a fork begun. If none of that, the views are good until the next sleep.
            self._firewall.require_live(grant)
            if mm.vmas.find(address) is area and not segment.group.fork_depth:
                return views
        raise KernelError(errno.EAGAIN, "the exporter's areas keep changing under the access")

    async def _until_forked(self, segment: Segment) -> None:
        """Accesses wait between fork_begin and fork_end, as faults do (sources 1.12)."""
        until = self._services.scheduler.now_ns + self._services.image.deadlines.fault_wait_max
        while segment.group.fork_depth:
            if await segment.changed.wait_killable(until) is not Wake.WOKEN:
                raise KernelError(errno.EAGAIN, "a fork of the exporter does not end")


def _area(segment: Segment, address: int, write: bool) -> Vma:
    """The exporter's area at `address`. Raises KernelError EFAULT when others may not use it."""
    try:
        area = usable_area(segment.group.mm, address >> PAGE_SHIFT)
    except KernelError as error:
        raise KernelError(errno.EFAULT, error.cause) from None
    if write and not area.writable:
        raise KernelError(errno.EFAULT, f"the exporter itself may not store into area {area}")
    return area


async def _require_present(mm: AddressSpace, address: int) -> None:
    """Raises KernelError EFAULT when the exporter has no page of mspec there. The access may fill
    any other hole, but that one only its own task."""
    try:
        await bring_in(mm, address >> PAGE_SHIFT)
    except KernelError as error:
        if error.errno != errno.ENOENT:  # which is what an ended permit is
            raise
        raise KernelError(errno.EFAULT, error.cause) from None


def _refusal(error: KernelError | Signalled) -> tuple[int, str]:
    """Errno and cause for the reply. EIO is a machine check of the memory itself (sources T17)."""
    if isinstance(error, KernelError):
        return error.errno, text(error.cause)
    return errno.EIO if error.info.forced else errno.EFAULT, text(error.info.reason)
