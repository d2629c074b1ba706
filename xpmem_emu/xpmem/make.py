"""xpmem_make, xpmem_remove: the exporter's calls, with every check in its historical order.

Sources 1.4 and 1.5, "modern", except that MAXADDR_SIZE from beyond the address space is refused:
the driver makes a segment of almost 2^64 bytes there. Nothing checks that a range is mapped, and
making costs nothing per page: pages are looked at when somebody touches them.
"""

import errno

from xpmem_emu.errors import KernelError
from xpmem_emu.failpoints.points import MAKE_SEGMENT
from xpmem_emu.sched import WaitQueue
from xpmem_emu.units import PAGE_MASK, TASK_SIZE
from xpmem_emu.xpc.messages import FindName, FindNameReply
from xpmem_emu.xpmem import events
from xpmem_emu.xpmem.device import Device
from xpmem_emu.xpmem.exporter import Exporter
from xpmem_emu.xpmem.fence import Fence
from xpmem_emu.xpmem.ids import UNIQ_MAX, IdParts, unpack_id
from xpmem_emu.xpmem.objects import Segment, ThreadGroup, XpmemTask
from xpmem_emu.xpmem.rpc import HomeRpc
from xpmem_emu.xpmem.services import Services

MAXADDR_SIZE = (1 << 64) - 1
PERMIT_MODE = 1


class MakeCalls:
    """The exporter's calls."""

    def __init__(
        self, services: Services, device: Device, exporter: Exporter, fence: Fence, homes: HomeRpc
    ) -> None:
        self._services = services
        self._device = device
        self._exporter = exporter
        self._fence = fence
        self._homes = homes

    def make(
        self,
        process: XpmemTask,
        vaddr: int,
        size: int,
        permit_type: int,
        permit_value: int,
        name: str,
    ) -> int:
        """The segid of a new segment. Raises KernelError (sources 1.4)."""
        if permit_type != PERMIT_MODE:
            raise _invalid(f"permit_type {permit_type} is not XPMEM_PERMIT_MODE (1)")
        if permit_value & ~0o777:
            raise _invalid(f"permit_value {permit_value:#o} has bits outside 0777")
        if size == 0:
            raise _invalid("a segment of no bytes")
        self._may_name(name)
        group = self._device.mine(process)
        if size == MAXADDR_SIZE and vaddr == 0:
            size = TASK_SIZE
        if vaddr & PAGE_MASK or size & PAGE_MASK:
            raise _invalid(f"vaddr {vaddr:#x} and size {size:#x} must be whole pages")
        if vaddr + size > TASK_SIZE:  # no sum here wraps, as some did in the historical driver
            raise _invalid(f"{vaddr:#x} + {size:#x} is beyond the user address space")
        return self._register(group, vaddr, size, permit_value, name)

    async def remove(self, process: XpmemTask, segid: int) -> None:
        """Returns when nobody can reach the segment's pages. Raises KernelError (sources 1.5)."""
        if segid <= 0:
            raise _invalid("a segid is positive")
        if segid >= self._services.ident_end or not unpack_id(segid).uniq:
            raise _no_segment(segid)
        ident = unpack_id(segid)
        here = ident.partid == self._services.partid
        owner = self._device.find(ident.tgid)
        if here and owner is None:
            raise _no_segment(segid)
        if not here or ident.tgid != process.pid:
            raise KernelError(
                errno.EACCES,
                f"segment {segid:#x} belongs to task {ident.tgid} of p{ident.partid}",
                "only the task that made a segment may remove it",
            )
        segment = self._exporter.segments.get(segid)
        if segment is None or not segment.live:
            raise _no_segment(segid)
        # Found, live and marked in one step: of two that remove it, one does and one gets ENOENT.
        await self._exporter.remove(segment, "the exporter removed the segment")
        await self._fence.passed(segment.group, segment.vaddr, segment.vaddr + segment.size)

    async def find(self, name: str) -> int:
        """The segid behind a name: this partition first, then every active one (extension)."""
        for home in [self._services.partid, *sorted(self._services.xpc.partitions)]:
            try:
                reply = await self._homes.ask(home, FindName(name))
            except KernelError:
                continue  # not active, or it did not answer
            if isinstance(reply, FindNameReply) and reply.segid:
                return reply.segid
        raise KernelError(
            errno.ENOENT,
            f"no reachable partition has a segment named {name!r}",
            "names need extensions.segment_names in the exporter's image",
        )

    def _may_name(self, name: str) -> None:
        if not name:
            return
        if not self._services.image.extensions.segment_names:
            raise KernelError(
                errno.EINVAL,
                "segment names are an extension that this image does not enable",
                "boot an image with extensions.segment_names = true, or make it without a name",
            )
        if any(s.live and s.name == name for s in self._exporter.segments.values()):
            raise KernelError(errno.EEXIST, f"a segment named {name!r} exists here")

    def _register(self, group: ThreadGroup, vaddr: int, size: int, mode: int, name: str) -> int:
        if group.last_uniq.segid >= UNIQ_MAX:
            raise KernelError(errno.EBUSY, "this task has used up its segids")
        limit = self._services.image.limits.segments_per_task
        if len(group.segments) >= limit:
            raise KernelError(errno.ENOMEM, f"this task has {limit} segments, the image's limit")
        if self._services.failpoints.armed:
            self._services.failpoints.check(MAKE_SEGMENT)
        group.last_uniq.segid += 1
        segid = IdParts(
            self._services.partid, self._services.boot, group.tgid, group.last_uniq.segid
        ).pack()
        changed = WaitQueue(self._services.scheduler)
        segment = Segment(segid, group, vaddr, size, mode, name, changed)
        segment.sequence = self._exporter.first_sequence
        group.segments[segid] = self._exporter.segments[segid] = segment
        self._services.tracer.emit(
            events.SegmentMake(segid=segid, tgid=group.tgid, vaddr=vaddr, size=size)
        )
        return segid


def _invalid(cause: str) -> KernelError:
    return KernelError(errno.EINVAL, cause)


def _no_segment(segid: int) -> KernelError:
    return KernelError(errno.ENOENT, f"no segment {segid:#x}, or it is being removed")
