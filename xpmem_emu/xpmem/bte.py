"""bte_copy: the block transfer engine, between two ranges of a task's addresses (sources T18).

Each range is an attachment, of any coherence domain, or memory of the task itself. Contained: no
processor touches what is behind an attachment, the home partitions move the bytes. So a dead peer,
a hole or a bad frame is an errno of this call, where a load would have killed the task (sources
T17). Whoever calls may sleep, twice as long as a read may take.

    read a block    no answer in time, or the exporter's areas kept changing:
                    once more, as often in one call as the image says (bte_retries, 1)
    write it        not repeated: it may have been carried out, and somebody stored since

Blocks go one after the other, so what has arrived when a transfer fails is its beginning, and the
error says how much. Nothing behind that was touched, but for one case: a write to another partition
that was not answered, or refused midway, may have been carried out in part. Then the error says of
how many bytes more nobody knows.
"""

import errno
from dataclasses import dataclass

from xpmem_emu.codec import Buffer
from xpmem_emu.errors import KernelBug, KernelError, Signal, Signalled
from xpmem_emu.mm.access import load, store
from xpmem_emu.mm.mm_types import AddressSpace
from xpmem_emu.units import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE
from xpmem_emu.xpc.messages import Copy, CopyReply
from xpmem_emu.xpc.xpc import Patience, XpcError
from xpmem_emu.xpmem import events
from xpmem_emu.xpmem.blocks import WORD, Blocks, blocks_of
from xpmem_emu.xpmem.firewall import XPMEM_RDONLY
from xpmem_emu.xpmem.objects import Attachment, XpmemTask
from xpmem_emu.xpmem.rpc import HomeRpc
from xpmem_emu.xpmem.services import Services

_REPEATED = (errno.ETIMEDOUT, errno.EAGAIN)


@dataclass(slots=True, eq=False)
class _Transfer:
    """One call, as far as it got. Bytes are counted from the beginning of its ranges."""

    number: int
    pid: int
    size: int
    arrived: int = 0
    doubtful: int = 0
    """Of so many bytes behind those that arrived nobody knows."""
    retries: int = 0


@dataclass(frozen=True, slots=True)
class _Range:
    """Where a transfer reads or writes: `attachment` None is memory of the task itself."""

    mm: AddressSpace
    start: int
    attachment: Attachment | None

    def offset(self, at: int) -> int:
        """Where byte `at` is in the segment."""
        assert self.attachment is not None
        first = self.attachment.pages[0] << PAGE_SHIFT
        return self.start + at - self.attachment.address + first


class Bte:
    """The engine of one partition."""

    def __init__(self, services: Services, homes: HomeRpc) -> None:
        self._services = services
        self._homes = homes
        self._number = 0

    async def copy(self, task: XpmemTask, source: int, target: int, size: int) -> None:
        """Copy `size` bytes between two addresses of `task`.

        Raises KernelError: EINVAL (size, overlap), EACCES (the target may not be stored to), EFAULT
        (nothing there, or more than one attachment), EIO (machine check), ENOENT (the segment is
        gone), ETIMEDOUT, EAGAIN, EHOSTDOWN, EINTR; once it began, with how many bytes arrived.
        Signalled when the task was killed or memory ran out.
        """
        if size <= 0 or (source < target + size and target < source + size):
            raise KernelError(
                errno.EINVAL,
                f"{size} bytes from {source:#x} to {target:#x}",
                "give a size above 0 and two ranges that do not overlap",
            )
        async with task.mm.mmap_lock.read():  # or an attachment may have no address yet
            read = _range_of(task.mm, source, size)
            write = _range_of(task.mm, target, size)
            _require_storable(write)
        self._number += 1
        transfer = _Transfer(self._number, task.pid, size)
        outcome = "abandoned"
        try:
            begin = source % WORD  # cuts lie between words of the source
            for place, count in blocks_of(self._services, begin, size):
                data = await self._read(transfer, read, place - begin, count)
                await self._write(transfer, write, place - begin, data)
                await (
                    self._services.scheduler.cond_resched()
                )  # nobody else may have to be waited for
            outcome = "done"
        except KernelError as error:
            outcome = error.cause
            raise KernelError(error.errno, _told(transfer, error.cause), error.remedy) from None
        finally:
            self._services.tracer.emit(
                events.BteEnd(
                    transfer=transfer.number,
                    pid=task.pid,
                    size=size,
                    arrived=transfer.arrived,
                    doubtful=transfer.doubtful,
                    retries=transfer.retries,
                    outcome=outcome,
                )
            )

    # -- one block -------------------------------------------------------------------------

    async def _read(self, transfer: _Transfer, source: _Range, at: int, size: int) -> Buffer:
        """A block of the source; asked for again if that may help and was not done yet."""
        while True:
            try:
                return await self._fetch(source, at, size)
            except KernelError as error:
                if error.errno not in _REPEATED or not self._may_repeat(transfer):
                    raise
                transfer.retries += 1
                self._services.tracer.emit(
                    events.BteRetry(
                        transfer=transfer.number, pid=transfer.pid, at=at, cause=error.cause
                    )
                )

    def _may_repeat(self, transfer: _Transfer) -> bool:
        return transfer.retries < self._services.image.deadlines.bte_retries

    async def _fetch(self, source: _Range, at: int, size: int) -> Buffer:
        if source.attachment is None:
            try:
                return await load(source.mm, source.start + at, size)
            except Signalled as signal:
                raise _contained(signal) from None
        request = Copy(source.attachment.permit.apid, source.offset(at), size, write=False)
        try:
            return await self._ask(source.attachment, request, b"")
        except XpcError as error:
            raise KernelError(error.errno, error.cause) from None

    async def _write(self, transfer: _Transfer, target: _Range, at: int, data: Buffer) -> None:
        """Page by page where that costs no message: then it is known what has arrived."""
        attachment = target.attachment
        here = attachment is None or attachment.imported.home == self._services.partid
        rest = memoryview(data)
        for place, count in Blocks(target.start + at, len(rest), PAGE_SIZE if here else len(rest)):
            part, rest = rest[:count], rest[count:]
            within = (place & PAGE_MASK) + count <= PAGE_SIZE
            try:
                if attachment is None:
                    await store(target.mm, place, part)
                else:
                    offset = target.offset(place - target.start)
                    request = Copy(attachment.permit.apid, offset, count, write=True)
                    await self._ask(attachment, request, part)
            except Signalled as signal:
                raise _contained(signal) from None
            except XpcError as error:
                transfer.doubtful = count if error.ending.sent else 0
                raise KernelError(error.errno, error.cause) from None
            except KernelError:  # the home wrote up to the page that it refused
                transfer.doubtful = 0 if within else count
                raise
            transfer.arrived += count

    async def _ask(self, attachment: Attachment, request: Copy, data: Buffer) -> Buffer:
        """What was read. Raises XpcError when there is no answer, KernelError when it is no."""
        if not attachment.live:
            raise KernelError(errno.EFAULT, "the attachment was given up meanwhile")
        imported = attachment.imported
        if not self._homes.reachable(imported.home, imported.incarnation):
            raise KernelError(errno.EHOSTDOWN, imported.gone or f"p{imported.home} is lost")
        wait = self._services.image.deadlines.bte_timeout
        reply, found = await self._homes.exchange(
            imported.home, imported.incarnation, request, data, Patience(wait, 1, wait)
        )
        if not isinstance(reply, CopyReply):
            raise KernelBug(f"COPY answered by {type(reply).__name__}")
        if reply.errno:
            raise KernelError(reply.errno, f"at the exporter: {reply.cause}")
        if not request.write and len(found) != request.size:
            raise KernelError(errno.EIO, f"{len(found)} of {request.size} bytes came back")
        return found


def _range_of(mm: AddressSpace, start: int, size: int) -> _Range:
    """Raises KernelError EFAULT when it is not one attachment, nor the task's own memory."""
    areas = mm.vmas.intersecting(start, start + size)
    if not areas or areas[0].start > start:
        raise KernelError(errno.EFAULT, f"nothing is mapped at {start:#x}")
    attachments = {area.ops for area in areas if area.ops is not None}
    if not attachments:
        return _Range(mm, start, None)
    one = attachments.pop()
    whole = all(area.ops is one for area in areas) and start + size <= areas[-1].end
    if attachments or not isinstance(one, Attachment) or not whole:
        raise KernelError(
            errno.EFAULT,
            f"{size} bytes from {start:#x} on are not within one attachment",
            "copy each part by itself; `xpmem-emu get attachments` shows where they are",
        )
    return _Range(mm, start, one)


def _require_storable(target: _Range) -> None:
    area = target.mm.vmas.find(target.start)
    assert area is not None
    attachment = target.attachment
    if not area.writable or (attachment is not None and attachment.permit.flags == XPMEM_RDONLY):
        raise KernelError(
            errno.EACCES, f"area {area} forbids stores", "get a permit with XPMEM_RDWR"
        )


def _told(transfer: _Transfer, cause: str) -> str:
    doubt = f", {transfer.doubtful} more may have" if transfer.doubtful else ""
    again = ", after a retry" if transfer.retries else ""
    return f"{transfer.arrived} of {transfer.size} bytes arrived{doubt}{again}: {cause}"


def _contained(signal: Signalled) -> Exception:
    """What would kill the task by its own access is an errno of the engine."""
    if signal.info.signal is Signal.SIGKILL:
        return signal
    return KernelError(errno.EIO if signal.info.forced else errno.EFAULT, signal.info.reason)
