"""The XPMEM module as the kernel loads it: composes its parts and listens to XPC.

    device    who has xpmem state            recall    getting pages back
    making    make, remove                   fence     a lost importer that may be alive
    getting   get, release, attach, detach   faults    bringing pages in
    exporter  answers importers              importer  losing pages
    serving   accesses by message            imports   what is imported, giving it back
    homes     asking home partitions         far       accesses to other domains
    firewall  who may reach a segment        transfer  block copies between permits
    bte       block copies between addresses

It decides nothing itself.
"""

import errno
from collections import Counter

from xpmem_emu.codec import Buffer
from xpmem_emu.errors import KernelError, Signal, SignalInfo, Signalled
from xpmem_emu.failpoints.points import INVALIDATE_ACK, INVALIDATE_ZAP
from xpmem_emu.mm.atomic import AmoOperation
from xpmem_emu.mm.mm_types import Vma
from xpmem_emu.units import PAGE_SHIFT
from xpmem_emu.xpc.messages import (
    Amo,
    AmoReply,
    Attach,
    AttachReply,
    Copy,
    Detach,
    Fault,
    FaultReply,
    Get,
    GetReply,
    Invalidate,
    Message,
    Release,
)
from xpmem_emu.xpc.reasons import Reason
from xpmem_emu.xpc.wire import Requester
from xpmem_emu.xpc.xpc import XpcError
from xpmem_emu.xpmem.bte import Bte
from xpmem_emu.xpmem.device import Device
from xpmem_emu.xpmem.exporter import Exporter
from xpmem_emu.xpmem.fault import ImporterFaults
from xpmem_emu.xpmem.fence import Fence
from xpmem_emu.xpmem.get import AttachCalls
from xpmem_emu.xpmem.import_registry import ImportRegistry
from xpmem_emu.xpmem.importer import Importer
from xpmem_emu.xpmem.make import MakeCalls
from xpmem_emu.xpmem.objects import Attachment
from xpmem_emu.xpmem.recall import Recalls
from xpmem_emu.xpmem.remote_access import RemoteAccess
from xpmem_emu.xpmem.rpc import HomeRpc
from xpmem_emu.xpmem.services import Services
from xpmem_emu.xpmem.transfer import Transfers

XPMEM_VERSION = 0x00027004
"""What XPMEM_CMD_VERSION returns: 2.7.4."""


class Xpmem:
    """Cross-partition memory of one partition."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self.recalls = Recalls(services, self._drop_local)
        self.exporter = Exporter(services, self.recalls)
        self.homes = HomeRpc(services, self.exporter)
        self.imports = ImportRegistry(services, self.homes)
        self.faults = ImporterFaults(services, self.homes, self.imports)
        self.far = RemoteAccess(services, self.homes)
        self.importer = Importer(services, self.homes, self.faults, self.imports)
        self.fence = Fence(services, self.exporter)
        self.device = Device(
            services.scheduler, self.recalls, self.fence, self.exporter, self.importer
        )
        self.making = MakeCalls(services, self.device, self.exporter, self.fence, self.homes)
        self.getting = AttachCalls(
            services, self.device, self.importer, self.imports, self.faults, self.far, self.homes
        )
        self.transfers = Transfers(services, self.homes, self.getting)
        self.bte = Bte(services, self.homes)

    async def amo(
        self,
        attachment: Attachment,
        address: int,
        operation: AmoOperation,
        operand: int,
        compare: int,
    ) -> int:
        """An atomic operation through an attachment, carried out by the home partition."""
        imported = attachment.imported
        vma = attachment.mm.vmas.find(address)
        if vma is None or not vma.writable:
            reason = f"atomic operation in area {vma}, which forbids stores"
            raise Signalled(SignalInfo(Signal.SIGSEGV, reason, address))
        attachment.require_usable(vma, address)
        offset = address - attachment.address + (attachment.pages[0] << PAGE_SHIFT)
        request = Amo(attachment.permit.apid, offset, operation, operand, compare)
        try:
            reply = await self.homes.ask(imported.home, request, imported.incarnation)
        except XpcError as error:
            raise attachment.unanswered(address, error) from None
        assert isinstance(reply, AmoReply)
        if reply.errno in (errno.ENOENT, errno.EFAULT, errno.EIO):  # as a load there
            raise attachment.sigbus(
                address, f"at the exporter: {reply.cause}", forced=reply.errno == errno.EIO
            )
        if reply.errno:
            raise KernelError(reply.errno, reply.cause)
        return reply.before

    def tune(self, name: str, value: int) -> int:
        """Set faults_after or faults_before (sources 1.10); the old value. Raises EINVAL."""
        old = {"faults_after": self.faults.after, "faults_before": self.faults.before}
        if name not in old:
            raise KernelError(errno.EINVAL, f"no tunable {name!r}", "faults_after, faults_before")
        other = sum(old.values()) - old[name]
        if value < 0 or other + value >= 96:
            raise KernelError(errno.EINVAL, f"{name} {value}: the sum must stay in 0..95")
        if name == "faults_after":
            self.faults.after = value
        else:
            self.faults.before = value
        return old[name]

    # -- the MEM channel ---------------------------------------------------------------------

    def connected(self, partid: int) -> None:
        """Nothing to do: pages are asked for when they are touched."""

    def disconnected(self, partid: int, reason: Reason) -> None:
        """Nothing to do: partition_down came first and did it all."""

    async def received(
        self, requester: Requester, message: Message, bulk: Buffer
    ) -> Message | tuple[Message, Buffer]:
        """The reply to a request of a peer."""
        if isinstance(message, Invalidate):
            return await self._invalidate(requester, message)
        if isinstance(message, Copy):
            return await self.exporter.serving.copy(requester.partid, message, bulk)
        return await self.exporter.serve(requester, message)

    async def _invalidate(self, requester: Requester, message: Invalidate) -> Message:
        """Entries first, then the acknowledgement, which stands for them: who gets it frees."""
        failpoints = self._services.failpoints
        if failpoints.armed:
            await failpoints.reach(INVALIDATE_ZAP)
        # Against work that slept past the end of its session: the pages of the next one, which the
        # home has told us of anew, are not meant (tests/xpmem/test_sessions.py).
        requester.require_current()
        acknowledgement = self.importer.invalidate(requester.partid, message)
        if failpoints.armed:
            await failpoints.reach(INVALIDATE_ACK)
        return acknowledgement

    def late_reply(self, partid: int, request: Message, reply: Message) -> None:
        """Undo what the peer did for a caller that had gone."""
        session = self._services.xpc.incarnation(partid)
        if session is None:
            return
        match request, reply:
            case Get(apid=apid), GetReply(errno=0):
                self.homes.tell(partid, session, Release(apid))
            case Attach(apid=apid, attachment=number), AttachReply(errno=0):
                self.homes.tell(partid, session, Detach(apid, number, []))
            case Fault() as asked, FaultReply() as answer:
                self._give_back(asked, found=not answer.errno)

    def _give_back(self, request: Fault, *, found: bool) -> None:
        for imported in self.imports.all():
            if request.apid in imported.left:
                imported.left -= Counter({request.apid: 1})
                if found and not imported.gone:
                    self.imports.evict(imported, [(request.page, request.count)])
                self.imports.reap(imported)

    # -- partitions come and go --------------------------------------------------------------

    def partition_down(self, partid: int, incarnation: int, reason: str) -> None:
        """A peer is lost. Atomic: nothing of it is reachable here, and nothing here by it."""
        # Over for whoever asks, before anything is taken down: nobody begins anything in it.
        assert not self._services.xpc.is_active(partid, incarnation)
        self.importer.lose(partid, reason)
        self.fence.begin(partid, incarnation, reason)

    def attachment_at(self, vma: Vma | None) -> Attachment | None:
        """The attachment that a VMA belongs to."""
        return vma.ops if vma is not None and isinstance(vma.ops, Attachment) else None

    def _drop_local(self, message: Invalidate) -> None:
        self.importer.invalidate(self._services.partid, message)
