"""The firewall of an exporting partition: which permits are granted, and what each one allows.

Requests of an earlier session do not get here: XPC drops frames of old incarnations. What does
get here is judged anew for every access, because nothing that an importer is not mapped to can be
recalled from it:

    the permit is of another partition                EACCES
    it ended (and why), or was never granted          ENOENT
    the segment is being removed                      ENOENT
    the range is not in the segment                   EINVAL
    the permit is read-only and the access writes     EACCES

Who may have a permit is the System V IPC rule (sources 1.6), judged once, at get, and never again.

It knows importers as partitions: which of its tasks holds a permit is the importer's business.
Why a permit ended is remembered for the last few only, to say so to whoever comes late.
"""

import errno
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Sequence

from xpmem_emu.errors import KernelError
from xpmem_emu.units import PAGE_SHIFT
from xpmem_emu.xpc.messages import Attach, AttachReply, Get, GetReply
from xpmem_emu.xpmem import events
from xpmem_emu.xpmem.ids import unpack_id
from xpmem_emu.xpmem.objects import Grant, Segment
from xpmem_emu.xpmem.services import Services

GRANT_GRAVES = 256
"""How many permits that ended are remembered."""
READ, WRITE = 4, 2
XPMEM_RDONLY, XPMEM_RDWR = 1, 2


def permitted(
    mode: int, owner: tuple[int, int], uid: int, gids: Sequence[int], *, wanted: int
) -> bool:
    """Whether `uid` with `gids` may do `wanted` (READ | WRITE) to an object with permission bits
    `mode`. `owner`: the uid and gid that the exporter had when it opened the device.

    Exactly one of the three triples is consulted, so an owner can be refused what others may do.
    Execute bits mean nothing. CAP_IPC_OWNER overrides a refusal, which is the caller's to know.
    """
    owner_uid, owner_gid = owner
    if uid == owner_uid:
        triple = mode >> 6
    elif owner_gid in gids:
        triple = mode >> 3
    else:
        triple = mode
    return wanted & ~triple == 0


class Firewall:
    """The grants on this partition's segments."""

    def __init__(self, services: Services) -> None:
        self._boot = services.boot
        self._limits = services.image.limits
        self._tracer = services.tracer
        self.grants: dict[tuple[int, int], Grant] = {}
        """By (importing partition, apid); live, until RELEASE, remove or the importer's loss."""
        self._tasks: dict[int, Counter[int]] = defaultdict(Counter)
        """Importing partition -> how many grants each of its tasks has."""
        self._graves: OrderedDict[tuple[int, int], str] = OrderedDict()

    def get(self, segment: Segment | None, importer: int, request: Get) -> GetReply:
        """Grant a permit for `segment`, the one that the request names, if there is one."""
        if segment is None or not segment.live:
            boot, why = self._boot, "no such segment, or it is being removed"
            if unpack_id(request.segid).boot != boot & 0xFF:
                why = f"the segment is of another boot than {boot}, which runs now"
            return GetReply(errno.ENOENT, why, 0)
        wanted = READ | (WRITE if request.flags & XPMEM_RDWR else 0)
        owner = (segment.group.uid, segment.group.gid)
        allowed = permitted(segment.mode, owner, request.uid, request.gids, wanted=wanted)
        if not allowed and not request.cap_ipc_owner:
            return GetReply(
                errno.EACCES,
                f"mode {segment.mode:04o} of uid {owner[0]} refuses uid {request.uid}",
                0,
            )
        try:
            self._require_room(importer, request.apid)
        except KernelError as error:
            return GetReply(error.errno, error.cause, 0)
        if unpack_id(request.apid).uniq:
            self._enter(
                Grant(request.apid, importer, segment, writable=request.flags != XPMEM_RDONLY)
            )
        return GetReply(0, "", segment.size)

    def attach(self, importer: int, request: Attach) -> AttachReply:
        """Note an attachment; number 0 asks only whether there could be one."""
        grant = self.grants.get((importer, request.apid))
        # The segment may be going and its grants still be there: `remove` ends them when its recall
        # is over, so that what is given back meanwhile finds its permit. Nothing begins on them.
        if grant is None or not grant.segment.live:
            return AttachReply(errno.ENOENT, "the segment was removed or its exporter is gone")
        offset, size = request.offset, request.size
        if offset < 0 or size == 0 or offset + size > grant.segment.size:
            return AttachReply(
                errno.EINVAL,
                f"offset {offset:#x} + size {size:#x} is outside of the segment's "
                f"{grant.segment.size:#x} bytes",
            )
        number, limit = request.attachment, self._limits.attachments_per_task
        if not number:
            return AttachReply(0, "")
        if number not in grant.attachments and len(grant.attachments) >= limit:
            return AttachReply(errno.ENOMEM, f"permit {grant.apid:#x} has {limit} attachments")
        grant.attachments[number] = (offset >> PAGE_SHIFT, size >> PAGE_SHIFT)
        return AttachReply(0, "")

    def _require_room(self, importer: int, apid: int) -> None:
        """Raise KernelError when `importer` may not have a permit of this name: EACCES when the
        name is another partition's, EEXIST when it has it, ENOMEM at the limits of our image. The
        importer's own limits are its own business: what it sends cannot make tables grow here."""
        ident, tasks, limits = unpack_id(apid), self._tasks[importer], self._limits
        if ident.partid != importer:
            raise KernelError(
                errno.EACCES, f"permit {apid:#x} is of p{ident.partid}, not of p{importer}"
            )
        if (importer, apid) in self.grants:
            raise KernelError(errno.EEXIST, f"permit {apid:#x} was granted before")
        if tasks[ident.tgid] >= limits.permits_per_task:
            raise KernelError(
                errno.ENOMEM, f"task {ident.tgid} of p{importer} has {tasks[ident.tgid]} permits"
            )
        if not tasks[ident.tgid] and len(+tasks) >= limits.tasks:
            raise KernelError(errno.ENOMEM, f"{limits.tasks} tasks of p{importer} have permits")

    def _enter(self, grant: Grant) -> None:
        """`grant` holds from now on."""
        key = grant.importer, grant.apid
        self.grants[key] = grant.segment.grants[key] = grant
        self._tasks[grant.importer][unpack_id(grant.apid).tgid] += 1
        self._graves.pop(key, None)
        self._tracer.emit(
            events.PermitGet(segid=grant.segment.segid, apid=grant.apid, importer=grant.importer)
        )

    def end(self, grant: Grant, why: str) -> None:
        """`grant` holds no longer, not even for who was let in before and sleeps."""
        key = grant.importer, grant.apid
        grant.destroy()
        grant.torn_down()
        del self.grants[key]
        tasks, tgid = self._tasks[grant.importer], unpack_id(grant.apid).tgid
        tasks[tgid] -= 1
        if not tasks[tgid]:
            del tasks[tgid]
        del grant.segment.grants[key]
        self._graves[key] = why
        if len(self._graves) > GRANT_GRAVES:
            self._graves.popitem(last=False)
        self._tracer.emit(
            events.PermitRelease(
                segid=grant.segment.segid, apid=grant.apid, importer=grant.importer
            )
        )

    def admit(self, importer: int, apid: int, offset: int, size: int, *, write: bool) -> Grant:
        """The grant that lets `importer` access these bytes of a segment. Raises KernelError."""
        owner = unpack_id(apid).partid
        if owner != importer:
            raise KernelError(errno.EACCES, f"permit {apid:#x} is of p{owner}, not of p{importer}")
        grant = self.grants.get((importer, apid))
        if grant is None:
            never = f"permit {apid:#x} was never granted, or long ago"
            raise KernelError(errno.ENOENT, self._graves.get((importer, apid), never))
        self.require_live(grant)
        if offset + size > grant.segment.size:
            raise KernelError(
                errno.EINVAL,
                f"offset {offset:#x} + size {size:#x} is outside of the segment's "
                f"{grant.segment.size:#x} bytes",
            )
        if write and not grant.writable:
            raise KernelError(errno.EACCES, f"permit {apid:#x} is read-only")
        return grant

    def require_live(self, grant: Grant) -> None:
        """Raise KernelError ENOENT unless the grant and its segment are still there: to be asked
        again after every sleep."""
        if not grant.live:
            why = self._graves.get((grant.importer, grant.apid), "the permit ended meanwhile")
            raise KernelError(errno.ENOENT, why)
        if not grant.segment.live:
            raise KernelError(errno.ENOENT, "the segment is being removed")
