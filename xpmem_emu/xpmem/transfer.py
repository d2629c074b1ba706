"""xpmem_copy: block transfer between two segments, as the BTE does it (sources T18).

Contained: whatever goes wrong at the far end is an error of this call, never a signal, because no
processor touches the other partition's memory. The home partitions move the bytes through the
page tables of the exporters, so nothing is mapped or pinned here, and both may be of another
coherence domain. Several blocks are under way at a time. A read or write that is not answered in
time is repeated as often as the image says (one repeat: twice 28 s on the historical
machines), then it is ETIMEDOUT. Blocks of one call are not atomic towards each other.

Declared in the 2008 driver but never handled there (sources 1.1); the checks are those that its
shared helper was written for: the source permit may be read, the destination permit written.
"""

import errno

from xpmem_emu.codec import Buffer
from xpmem_emu.errors import KernelError
from xpmem_emu.xpc.messages import Copy, CopyReply
from xpmem_emu.xpc.xpc import Patience, XpcError
from xpmem_emu.xpmem.blocks import ABREAST, blocks_of, run_abreast
from xpmem_emu.xpmem.firewall import XPMEM_RDONLY
from xpmem_emu.xpmem.get import AttachCalls
from xpmem_emu.xpmem.objects import Permit, XpmemTask
from xpmem_emu.xpmem.rpc import HomeRpc
from xpmem_emu.xpmem.services import Services


class Transfers:
    """Block transfers of this partition's tasks."""

    def __init__(self, services: Services, homes: HomeRpc, getting: AttachCalls) -> None:
        self._services = services
        self._homes = homes
        self._getting = getting

    async def copy(
        self, process: XpmemTask, source: tuple[int, int], target: tuple[int, int], size: int
    ) -> None:
        """Copy `size` bytes from `source` to `target`, each an (apid, offset in bytes).

        Raises KernelError: EINVAL (range), ENOENT, EACCES (permit), EFAULT (the exporter has no
        page there), ETIMEDOUT, EHOSTDOWN. What was copied before the error stays copied.
        """
        read, write = (self._getting.own_permit(process, apid) for apid, _ in (source, target))
        if write.flags == XPMEM_RDONLY:
            raise KernelError(errno.EACCES, f"permit {write.apid:#x} is read-only")
        for permit, offset in ((read, source[1]), (write, target[1])):
            if offset < 0 or size <= 0 or offset + size > permit.imported.size:
                raise KernelError(
                    errno.EINVAL,
                    f"offset {offset:#x} + size {size:#x} is outside of the segment's "
                    f"{permit.imported.size:#x} bytes",
                )
        blocks = blocks_of(self._services, source[1], size)

        async def carry(at: int, count: int) -> None:
            await self._copy_block((read, at), (write, at - source[1] + target[1]), count)

        # Where nobody has to be waited for, several at a time would only make a longer step.
        here = {read.imported.home, write.imported.home} == {self._services.partid}
        await run_abreast(
            self._services.scheduler, "xpmem_copy", blocks, carry, 1 if here else ABREAST
        )

    async def _copy_block(
        self, source: tuple[Permit, int], target: tuple[Permit, int], size: int
    ) -> None:
        await self._move(*target, size, await self._move(*source, size, b""))

    async def _move(self, permit: Permit, offset: int, size: int, data: Buffer) -> Buffer:
        """One read (no data) or write at the home of `permit`; what was read."""
        times = self._services.image.deadlines
        total = times.bte_timeout * (1 + times.bte_retries)
        patience = Patience(times.bte_timeout, 1 + times.bte_retries, total)
        # Not asked again whether the permit lives: between blocks it may be released, and then the
        # home's firewall refuses the rest.
        request = Copy(permit.apid, offset, size, bool(data))
        try:
            reply, read = await self._homes.exchange(
                permit.imported.home, permit.imported.incarnation, request, data, patience
            )
        except XpcError as error:
            raise KernelError(error.errno, f"block transfer: {error.cause}") from None
        assert isinstance(reply, CopyReply)
        if reply.errno:
            raise KernelError(reply.errno, reply.cause)
        if not data and len(read) != size:
            raise KernelError(errno.EIO, f"{len(read)} of {size} bytes came back")
        return read
