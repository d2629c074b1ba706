"""xpmem_get, release, attach, detach: the importer's calls, every check in its order.

Sources 1.6 to 1.9, "modern". What only the exporter knows (does the segment live, do its
permission bits allow this caller) is asked of the exporter at the point of the order where the
real driver looks; everything else is judged here.

While the exporter is asked, another thread of the task may end what the call stands on:

    get                                      close, and perhaps open
    | apid 7 asked of the home
    |                                        | the group goes; its permits with it, 7 is none yet
    | granted; that group is not live any more
    | RELEASE(7), errno 2004

    attach                                   release of the permit
    | takes its place in permit.attachments
    | what was mapped there is recalled: sleep
    |                                        | permit marked; waits for that attachment
    | the permit is not live: unmaps again --> | goes on, nothing is left of it
"""

import errno
from itertools import count

from xpmem_emu.errors import KernelError, Signalled
from xpmem_emu.failpoints.engine import said_so
from xpmem_emu.failpoints.points import ATTACH_MAP, GET_ADOPT, GET_PERMIT
from xpmem_emu.mm.mapping import MapRequest, mmap
from xpmem_emu.mm.mm_types import AddressSpace, Vma
from xpmem_emu.mm.vma_flags import Prot, VmaFlags
from xpmem_emu.sched import Completion, Wake
from xpmem_emu.units import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE, TASK_SIZE, page_align_up
from xpmem_emu.xpc.messages import Attach, AttachReply, Detach, Get, GetReply, Release
from xpmem_emu.xpc.xpc import Ending, XpcError
from xpmem_emu.xpmem import events
from xpmem_emu.xpmem.device import Device, no_state
from xpmem_emu.xpmem.extents import Range, intersect
from xpmem_emu.xpmem.fault import ImporterFaults, MappedAttachment
from xpmem_emu.xpmem.firewall import XPMEM_RDONLY, XPMEM_RDWR
from xpmem_emu.xpmem.ids import UNIQ_MAX, IdParts, unpack_id
from xpmem_emu.xpmem.import_registry import ImportRegistry
from xpmem_emu.xpmem.importer import Importer
from xpmem_emu.xpmem.make import PERMIT_MODE
from xpmem_emu.xpmem.objects import Attachment, Permit, ThreadGroup, XpmemTask
from xpmem_emu.xpmem.remote_access import FarAttachment, RemoteAccess
from xpmem_emu.xpmem.rpc import HomeRpc, unreachable
from xpmem_emu.xpmem.services import Services

ATTACHMENT_FLAGS = (
    VmaFlags.SHARED
    | VmaFlags.DONTCOPY
    | VmaFlags.DONTDUMP
    | VmaFlags.IO
    | VmaFlags.DONTEXPAND
    | VmaFlags.PFNMAP
)
_WHICH_THERE_ARE = "`xpmem-emu get segments` lists the segids there are"


class AttachCalls:
    """The importer's calls."""

    def __init__(
        self,
        services: Services,
        device: Device,
        importer: Importer,
        imports: ImportRegistry,
        faults: ImporterFaults,
        far: RemoteAccess,
        homes: HomeRpc,
    ) -> None:
        self._services = services
        self._device = device
        self._importer = importer
        self._imports = imports
        self._faults = faults
        self._far = far
        self._homes = homes
        self._numbers = count(1)

    # -- permits ---------------------------------------------------------------------------

    async def get(
        self, process: XpmemTask, segid: int, flags: int, permit_type: int, permit_value: int
    ) -> int:
        """The apid of a new permit. Raises KernelError (sources 1.6)."""
        if segid <= 0:
            raise _invalid("a segid is positive")
        if flags & ~(XPMEM_RDONLY | XPMEM_RDWR) or flags == XPMEM_RDONLY | XPMEM_RDWR:
            raise _invalid(f"flags {flags:#x}: XPMEM_RDONLY (1) or XPMEM_RDWR (2)")
        if permit_type != PERMIT_MODE:
            raise _invalid(f"permit_type {permit_type} is not XPMEM_PERMIT_MODE (1)")
        if permit_value:
            raise _invalid("permit_value must be NULL: the permission is the exporter's to set")
        home = self._home_of(segid)
        await self._services.xpc.seek(home)  # may sleep, so before anything else is looked at
        group = self._device.find(process.pid)
        session = self._homes.session(home)
        exhausted = self._exhausted(group)
        apid = self._next_apid(process, None if exhausted else group)
        # From here on we sleep. The place is taken before, and the apid is ours already: whatever
        # becomes of this call, its answer names a permit that only this call can mean.
        if group is not None:
            group.getting += 1
        try:
            size = await self._ask_permit(process, home, session, segid, apid, flags)
            if self._services.failpoints.armed:
                await self._services.failpoints.reach(GET_ADOPT)
        finally:
            if group is not None:
                group.getting -= 1
        if exhausted:
            raise exhausted
        if group is None:
            raise no_state(process)
        if not group.live:  # closed meanwhile, and perhaps opened again: another group
            self._homes.tell(home, session, Release(apid))
            raise no_state(process)
        # Against `lose`, which ends the entries of a session once: one made after it would stay.
        if not self._homes.reachable(home, session):
            raise unreachable(home, "it was lost while it granted the permit")
        assert apid not in group.permits
        imported = self._imports.adopt(segid, home, session, size)
        permit = Permit(apid, group, imported, flags)
        group.permits[apid] = permit
        imported.permits.add(permit)
        return apid

    async def release(self, process: XpmemTask, apid: int) -> None:
        """Raises KernelError (sources 1.9). Returns when the exporter knows, if it lives."""
        if apid <= 0:
            raise _invalid("an apid is positive")
        permit = self.own_permit(process, apid)
        for told in await self._importer.release(permit):
            await self._until_told(told)

    # -- attachments -----------------------------------------------------------------------

    async def attach(
        self, process: XpmemTask, apid: int, offset: int, size: int, vaddr: int
    ) -> int:
        """The address of a new attachment. Raises KernelError (sources 1.7)."""
        if apid <= 0:
            raise _invalid("an apid is positive")
        if vaddr and vaddr + PAGE_SIZE - (vaddr & PAGE_MASK) >= TASK_SIZE:
            raise _invalid(f"vaddr {vaddr:#x} is beyond the user address space")
        if vaddr & PAGE_MASK or offset & PAGE_MASK:
            raise _invalid(f"vaddr {vaddr:#x} and offset {offset:#x} must be page aligned")
        size = page_align_up(size) % (1 << 64)
        permit = self._permit(apid)
        refused = self._refused(process, permit)
        number = 0 if refused else next(self._numbers)
        await self._ask_attach(permit, number, offset, size, refused)
        try:
            self._refuse_self_overlap(process, permit, offset, size, vaddr)
            return await self._map(process, permit, number, offset, size, vaddr)
        except (KernelError, Signalled):
            # The exporter has registered it by now. Once more does no harm: `_map` has told already
            # if it detached what it had mapped for a permit that was released meanwhile.
            imported = permit.imported
            if not imported.gone:
                self._homes.tell(imported.home, imported.incarnation, Detach(apid, number, []))
            raise

    async def detach(self, process: XpmemTask, vaddr: int) -> None:
        """Raises KernelError (sources 1.8). Returns when the exporter knows, if it lives."""
        # Under the lock, as every call that acts on an area: one that is being mapped is in the
        # list already, and its attachment has no address yet and is not noted.
        async with process.mm.mmap_lock.read():
            vma = process.mm.vmas.find(vaddr)
        if vma is None:
            return  # success, as the modern driver has it
        attachment = vma.ops
        if not isinstance(attachment, Attachment):
            raise _invalid(f"{vaddr:#x} is not in an xpmem attachment")
        if not attachment.live:
            return
        if attachment.permit.group.tgid != process.pid:
            raise KernelError(errno.EACCES, "the attachment was made through another's permit")
        await self._until_told(await self._importer.detach(attachment))

    # -- steps of get ----------------------------------------------------------------------

    def _home_of(self, segid: int) -> int:
        home = unpack_id(segid).partid if segid < self._services.ident_end else -1
        if home != self._services.partid and not self._services.xpc.is_peer(home):
            raise KernelError(
                errno.ENOENT,
                f"segment {segid:#x} names a partition that this machine does not have",
                _WHICH_THERE_ARE,
            )
        return home

    async def _ask_permit(
        self, process: XpmemTask, home: int, session: int, segid: int, apid: int, flags: int
    ) -> int:
        request = Get(segid, apid, flags, process.uid, list(process.gids), process.cap_ipc_owner)
        try:
            reply = await self._homes.ask(home, request, session)
        except XpcError as error:
            if error.ending.killed or error.ending is Ending.TIMED_OUT:
                raise  # it is there, and only slow
            raise unreachable(home, str(error)) from None
        assert isinstance(reply, GetReply)
        if reply.errno:
            remedy = _WHICH_THERE_ARE if reply.errno == errno.ENOENT else ""
            raise KernelError(reply.errno, reply.cause, remedy)
        if reply.size > TASK_SIZE or reply.size & PAGE_MASK:
            raise KernelError(errno.EPROTO, f"p{home} says the segment has {reply.size:#x} bytes")
        return reply.size

    def _exhausted(self, group: ThreadGroup | None) -> KernelError | None:
        """Why this group can have no further permit; None when it can."""
        limit = self._services.image.limits.permits_per_task
        if group is None:
            return None
        if group.last_uniq.apid >= UNIQ_MAX:
            return KernelError(errno.EBUSY, "this task has used up its apids")
        if len(group.permits) + group.getting >= limit:
            return KernelError(errno.ENOMEM, f"this task has {limit} permits, the image's limit")
        failpoints = self._services.failpoints
        if failpoints.armed and (number := failpoints.failing(GET_PERMIT)):
            return said_so(GET_PERMIT, number)
        return None

    def _next_apid(self, process: XpmemTask, group: ThreadGroup | None) -> int:
        """A fresh apid. Without a group: uniq 0, which asks the exporter to judge and grant
        nothing, because its refusal comes first in the historical order."""
        uniq = 0
        if group is not None:
            group.last_uniq.apid += 1
            uniq = group.last_uniq.apid
        return IdParts(self._services.partid, self._services.boot, process.pid, uniq).pack()

    # -- steps of attach -------------------------------------------------------------------

    def _permit(self, apid: int) -> Permit:
        ident = unpack_id(apid) if 0 < apid < self._services.ident_end else None
        group = self._device.find(ident.tgid) if ident else None
        permit = group.permits.get(apid) if group else None
        if permit is None or not permit.live:
            raise KernelError(
                errno.ENOENT,
                f"no permit {apid:#x}, or it is being released",
                "an apid lives from xpmem_get until xpmem_release or the end of its task",
            )
        return permit

    def own_permit(self, process: XpmemTask, apid: int) -> Permit:
        """The caller's permit. Sources 1.9: tg unknown ENOENT, another's EACCES, unknown ENOENT."""
        ident = unpack_id(apid) if 0 < apid < self._services.ident_end else None
        if ident and self._device.find(ident.tgid) and ident.tgid != process.pid:
            raise KernelError(errno.EACCES, f"permit {apid:#x} belongs to task {ident.tgid}")
        return self._permit(apid)

    def _refused(self, process: XpmemTask, permit: Permit) -> str:
        """Why the caller may not attach through this permit at all; empty when it may."""
        if permit.group.tgid != process.pid:
            return f"permit {permit.apid:#x} belongs to task {permit.group.tgid}"
        if permit.flags == XPMEM_RDONLY and not self._services.image.extensions.readonly_attach:
            return (
                "a permit got with XPMEM_RDONLY cannot be attached unless the image has "
                "extensions.readonly_attach"
            )
        return ""

    async def _ask_attach(
        self, permit: Permit, number: int, offset: int, size: int, refused: str
    ) -> None:
        """Register with the exporter; attachment 0 asks only whether the segment lives."""
        imported = permit.imported
        if imported.gone:
            raise KernelError(errno.ENOENT, imported.gone)
        try:
            reply = await self._homes.ask(
                imported.home, Attach(permit.apid, number, offset, size), imported.incarnation
            )
        except XpcError:
            if imported.gone:  # the loss of the home says why better than the missing answer
                raise KernelError(errno.ENOENT, imported.gone) from None
            raise
        assert isinstance(reply, AttachReply)
        if refused and reply.errno != errno.ENOENT:
            raise KernelError(
                errno.EACCES, refused, "get with XPMEM_RDWR, in the task that attaches"
            )
        if reply.errno:
            raise KernelError(reply.errno, reply.cause)

    def _refuse_self_overlap(
        self, process: XpmemTask, permit: Permit, offset: int, size: int, vaddr: int
    ) -> None:
        group = permit.group
        segment = group.segments.get(permit.imported.segid)
        if segment is None or not vaddr:
            return
        if intersect((segment.vaddr + offset, size), (vaddr, size)):
            raise _invalid("the attachment would cover its own source")

    async def _map(
        self, process: XpmemTask, permit: Permit, number: int, offset: int, size: int, vaddr: int
    ) -> int:
        if self._services.failpoints.armed:
            await self._services.failpoints.reach(ATTACH_MAP)
        # Counted after the question to the exporter: other attaches of the task ended meanwhile.
        limit = self._services.image.limits.attachments_per_task
        if sum(len(p.attachments) for p in permit.group.permits.values()) >= limit:
            raise KernelError(errno.ENOMEM, f"this task has {limit} attachments, the image's limit")
        imported = permit.imported
        attachment = self._attachment(
            permit, number, process.mm, (offset >> PAGE_SHIFT, size >> PAGE_SHIFT)
        )

        # Asked under the mmap_lock, after the wait for it. What was there is recalled after that,
        # in a sleep, so the permit is looked at once more below.
        def still_wanted(replaced: list[Vma]) -> None:
            if not permit.live or imported.gone:
                raise KernelError(errno.ENOENT, imported.gone or "the permit was released")
            if any(isinstance(vma.ops, Attachment) for vma in replaced):
                raise _invalid("an xpmem attachment is in the way")

        writable = permit.flags != XPMEM_RDONLY
        permit.attachments.append(attachment)  # now: its place is taken, and a release waits for it
        try:
            attachment.address = await mmap(
                process.mm,
                MapRequest(
                    length=size,
                    prot=Prot.READ | Prot.WRITE if writable else Prot.READ,
                    flags=_flags(attachment),
                    address=vaddr,
                    fixed=bool(vaddr),
                    ops=attachment,
                    check=still_wanted,
                ),
            )
        except KernelError:
            permit.attachments.remove(attachment)
            permit.group.changed.wake_all()
            raise
        # No sleep since mmap let go of the lock: who waited for it finds the address and, from the
        # next line on, an INVALIDATE finds the attachment.
        imported.attachments[number] = attachment
        if not permit.live:  # while what was there before was recalled
            await self._importer.detach(attachment)
            raise KernelError(errno.ENOENT, "the permit was released")
        self._mapped(attachment, size)
        return attachment.address

    def _mapped(self, attachment: MappedAttachment | FarAttachment, size: int) -> None:
        imported, permit = attachment.imported, attachment.permit
        self._services.tracer.emit(
            events.AttachmentMap(
                segid=imported.segid, apid=permit.apid, address=attachment.address, size=size
            )
        )
        if isinstance(attachment, FarAttachment):
            self._services.tracer.emit(
                events.AttachmentFar(
                    segid=imported.segid, address=attachment.address, home=imported.home
                )
            )

    def _attachment(
        self, permit: Permit, number: int, mm: AddressSpace, pages: Range
    ) -> MappedAttachment | FarAttachment:
        """Mapped when the home's memory can be reached directly, else by message (sources T22)."""
        kill = self._services.kill
        if self._services.memory.physical.has_window(permit.imported.home):
            return MappedAttachment(number, permit, mm, 0, pages, kill, self._faults)
        return FarAttachment(number, permit, mm, 0, pages, kill, self._far)

    async def _until_told(self, told: Completion[None]) -> None:
        if await told.wait_killable() is Wake.KILLED:
            return  # the telling goes on without us


def _flags(attachment: Attachment) -> VmaFlags:
    """Beyond the domain no cache keeps a line; a read-only permit never widens."""
    far = isinstance(attachment, FarAttachment)
    readonly = attachment.permit.flags == XPMEM_RDONLY
    return (
        ATTACHMENT_FLAGS
        | (VmaFlags.UNCACHED if far else VmaFlags.NONE)
        | (VmaFlags.READONLY if readonly else VmaFlags.NONE)
    )


def _invalid(cause: str) -> KernelError:
    return KernelError(errno.EINVAL, cause)
