"""Access across coherence domains: every load and store is a message to the home partition.

There is no memory to map, so an attachment has no entries, pins nothing and is never recalled.
Its loads are reads that no cache keeps, its stores are uncached (sources T22): the home carries
each out when it comes, or refuses it, so no data here can be stale. A store returns when the home
has it.

An access larger than a message goes in blocks, several under way at a time; blocks of one access
are not atomic towards each other. The request layer gives each its effect once. A load that is
not answered is SIGBUS; a store that is not answered may or may not have happened, and is a machine
check, which no handler survives. A page that the home refuses is SIGBUS with the home's reason.

Atomic operations go the same way inside and across domains: module.py.
"""

import errno
from dataclasses import dataclass

from xpmem_emu.codec import Buffer
from xpmem_emu.errors import KernelBug, Signal, SignalInfo, Signalled
from xpmem_emu.failpoints.engine import said_so
from xpmem_emu.failpoints.points import FAR_SEND
from xpmem_emu.mm.mm_types import Vma
from xpmem_emu.mm.vma_ops import FarOps
from xpmem_emu.units import PAGE_SHIFT
from xpmem_emu.xpc.messages import Copy, CopyReply
from xpmem_emu.xpc.reasons import Reason
from xpmem_emu.xpc.xpc import XpcError
from xpmem_emu.xpmem import events
from xpmem_emu.xpmem.blocks import blocks_of, run_abreast
from xpmem_emu.xpmem.objects import Attachment
from xpmem_emu.xpmem.rpc import HomeRpc
from xpmem_emu.xpmem.services import Services


@dataclass(eq=False)
class FarAttachment(FarOps, Attachment):
    """Across coherence domains: loads and stores are carried to the home, one by one."""

    access = "by message"
    far: "RemoteAccess"

    async def load(self, vma: Vma, address: int, into: memoryview) -> None:
        """Ask the home for the bytes."""
        await self.far.carry(self, vma, address, into, write=False)

    async def store(self, vma: Vma, address: int, data: memoryview) -> None:
        """Send the bytes to the home."""
        await self.far.carry(self, vma, address, data, write=True)

    def unanswered(self, address: int, error: XpcError) -> Signalled:
        """A machine check if it was sent: what no handler can know, none is asked about."""
        if not error.ending.sent:
            return super().unanswered(address, error)
        reason = (
            "machine check: the access may or may not have been carried out: "
            f"{self.imported.gone or error}"
        )
        return self.machine_check(address, reason)

    def machine_check(self, address: int, reason: str) -> Signalled:
        """The SIGBUS that kills, whatever the task handles (sources T17)."""
        return self.sigbus(address, reason, forced=True)


class RemoteAccess:
    """The accesses of this partition's tasks to other domains."""

    def __init__(self, services: Services, homes: HomeRpc) -> None:
        self._services = services
        self._homes = homes
        self.under_way = 0
        """Accesses that have not ended."""

    async def carry(
        self, attachment: FarAttachment, vma: Vma, address: int, data: memoryview, *, write: bool
    ) -> None:
        """Have the home write `data` at `address`, or else fill it with what is there. Raises
        Signalled, KernelError EINTR."""
        attachment.require_usable(vma, address)
        start = address - attachment.address + (attachment.pages[0] << PAGE_SHIFT)
        blocks = blocks_of(self._services, start, len(data))

        async def block(at: int, size: int) -> None:
            request = Copy(attachment.permit.apid, at, size, write)
            part = data[at - start : at - start + size]
            await self._block(attachment, vma, address + at - start, request, part)

        outcome = "abandoned"
        self.under_way += 1
        try:
            await run_abreast(
                self._services.scheduler, f"xpmem_far/p{attachment.imported.home}", blocks, block
            )
            outcome = "done"
        except Signalled as signalled:
            outcome = signalled.info.reason
            raise
        finally:
            self.under_way -= 1
            self._services.tracer.emit(
                events.FarAccess(
                    segid=attachment.imported.segid,
                    address=address,
                    size=len(data),
                    write=write,
                    messages=len(blocks),
                    outcome=outcome,
                )
            )

    async def _block(
        self, attachment: FarAttachment, vma: Vma, address: int, request: Copy, part: memoryview
    ) -> None:
        """One message there and back; a load fills `part`."""
        imported, failpoints = attachment.imported, self._services.failpoints
        if failpoints.armed and (number := await failpoints.reached(FAR_SEND)):
            raise attachment.sigbus(address, str(said_so(FAR_SEND, number)))
        # For each block: the attachment may have gone while those before were under way.
        attachment.require_usable(vma, address)
        try:
            reply, found = await self._homes.exchange(
                imported.home,
                imported.incarnation,
                request,
                part if request.write else b"",
                self._services.fault_patience,
            )
        except XpcError as error:
            raise _unanswered(attachment, address, request, error) from None
        if not isinstance(reply, CopyReply):
            raise KernelBug(f"COPY answered by {type(reply).__name__}")
        if reply.errno:
            raise _refused(attachment, address, reply)
        if not request.write:
            self._take(attachment, address, found, part)

    def _take(
        self, attachment: FarAttachment, address: int, found: Buffer, part: memoryview
    ) -> None:
        imported = attachment.imported
        if len(found) != len(part):
            self._services.xpc.condemn(
                imported.home,
                imported.incarnation,
                Reason.BAD_MSG_TYPE,
                "xpmem/far: another number of bytes",
            )
            raise attachment.sigbus(address, imported.gone)
        part[:] = found


def _unanswered(
    attachment: FarAttachment, address: int, request: Copy, error: XpcError
) -> Signalled:
    if error.ending.killed:
        return Signalled(SignalInfo(Signal.SIGKILL, "killed during an access by message", address))
    if request.write:
        return attachment.unanswered(address, error)
    return attachment.sigbus(address, attachment.imported.gone or str(error))


def _refused(attachment: FarAttachment, address: int, reply: CopyReply) -> Signalled:
    """Nothing was moved, and why."""
    if reply.errno == errno.EIO:
        return attachment.machine_check(address, f"at the exporter: {reply.cause}")
    if reply.errno == errno.ENOENT:  # the permit ended, and unless we did it, with its segment
        if attachment.permit.live and not attachment.imported.gone:
            attachment.imported.gone = reply.cause
        return attachment.sigbus(address, reply.cause)
    return attachment.sigbus(address, f"at the exporter: {reply.cause}")
