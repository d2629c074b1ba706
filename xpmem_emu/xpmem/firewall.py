"""The firewall of an exporting partition: which permits are granted, and what each one allows.

Requests of an earlier session do not get here: XPC drops frames of old incarnations. What does
get here is judged anew for every access, because nothing that an importer is not mapped to can be
recalled from it:

    the permit is of another partition                EACCES
    it ended (and why), or was never granted          ENOENT
    the segment is being removed                      ENOENT
    the range is not in the segment                   EINVAL
    the permit is read-only and the access writes     EACCES

It knows importers as partitions: which of its tasks holds a permit is the importer's business.
Why a permit ended is remembered for the last few only, to say so to whoever comes late.
"""

import errno
from collections import Counter, OrderedDict, defaultdict

from xpmem_emu.errors import KernelError
from xpmem_emu.image import LimitsSection
from xpmem_emu.xpmem.extents import Range
from xpmem_emu.xpmem.ids import unpack_id
from xpmem_emu.xpmem.objects import Grant

GRANT_GRAVES = 256
"""How many permits that ended are remembered."""


class Firewall:
    """The grants on this partition's segments."""

    def __init__(self, limits: LimitsSection) -> None:
        self._limits = limits
        self.grants: dict[tuple[int, int], Grant] = {}
        """By (importing partition, apid)."""
        self._tasks: dict[int, Counter[int]] = defaultdict(Counter)
        """Importing partition -> how many grants each of its tasks has."""
        self._graves: OrderedDict[tuple[int, int], str] = OrderedDict()

    def require_room(self, importer: int, apid: int) -> None:
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

    def attach(self, grant: Grant, number: int, pages: Range) -> None:
        """Attachment `number` shows `pages` by this grant. Raises KernelError ENOMEM."""
        limit = self._limits.attachments_per_task
        if number not in grant.attachments and len(grant.attachments) >= limit:
            raise KernelError(errno.ENOMEM, f"permit {grant.apid:#x} has {limit} attachments")
        grant.attachments[number] = pages

    def enter(self, grant: Grant) -> None:
        """`grant` holds from now on."""
        key = grant.importer, grant.apid
        self.grants[key] = grant.segment.grants[key] = grant
        self._tasks[grant.importer][unpack_id(grant.apid).tgid] += 1
        self._graves.pop(key, None)

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
