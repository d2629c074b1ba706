"""The reserved page and the thread xpc_discovery that looks for it at the peers.

The page is all that a partition must know of another before it can ask for a session. Peers that
are sought and INACTIVE are asked for theirs again and again: a peer may boot, reboot or become
reachable at any time, and both the question and the answer may be lost. Sources 3.2, where
discovery runs once because the hardware says who is there.
"""

import errno
from collections.abc import Iterable

from xpmem_emu import codec
from xpmem_emu.errors import KernelError
from xpmem_emu.image import Image, require_partid
from xpmem_emu.xpc.activation import ActState
from xpmem_emu.xpc.frame import VERSION_MAJOR, VERSION_MINOR
from xpmem_emu.xpc.messages import RsvdPage, RsvdPageRead
from xpmem_emu.xpc.partition import Partition
from xpmem_emu.xpc.reasons import Reason
from xpmem_emu.xpc.wire import Local


def make_page(partid: int, boot: int, image: Image, arena: str) -> RsvdPage:
    """The reserved page of this partition. Raises KernelError EINVAL for one that no peer would
    accept: a partition that boots with it would never be seen by anybody."""
    require_partid(image, partid)
    page = RsvdPage(
        version_major=VERSION_MAJOR,
        version_minor=VERSION_MINOR,
        partid=partid,
        boot=boot,
        max_partitions=image.xpc.partid_end,
        domain=image.domain,
        arena=arena,
        frames=image.memory.frames,
    )
    if wrong := codec.misfit(page):
        raise KernelError(errno.EINVAL, f"the reserved page of p{partid}: {wrong}")
    return page


def check_page(page: RsvdPage, *, sender: int, boot: int, mine: RsvdPage) -> Reason:
    """Whether the reserved page that `sender` showed can be worked with (sources 3.2, in order).

    `boot` is the boot incarnation in the frame that carried the page, `mine` our own page. With
    another width of partids than ours a peer is none whenever one of us could not name the other.
    """
    if page.boot == 0:
        return Reason.RSVD_PAGE_NOT_SET
    if page.version_major != VERSION_MAJOR:
        return Reason.BAD_VERSION
    if page.partid != sender or page.boot != boot:
        return Reason.INVALID_PARTID
    if page.partid >= mine.max_partitions or mine.partid >= page.max_partitions:
        return Reason.INVALID_PARTID
    return Reason.SUCCESS


async def look_for_peers(local: Local, partitions: Iterable[Partition]) -> None:
    """The thread xpc_discovery."""
    while True:
        for partition in partitions:
            if partition.state is ActState.INACTIVE and partition.sought:
                partition.tell(RsvdPageRead(), 0)
        if not await local.pause(local.scheduler.now_ns + local.image.xpc.discovery_interval):
            return
