"""Every failpoint there is: its name, its place, what failing there means, and its context.

This list is the only place that declares one; the kernel's code refers to the constants. `place`
is the module in which the constant is used, which a test checks. An errno is what the real failure
there gives; where nothing can really fail there is none, and only delays and pauses make sense.
"""

import difflib
import errno
from dataclasses import dataclass
from enum import Enum

from xpmem_emu.errors import KernelError


class Context(Enum):
    """What a point may do."""

    ATOMIC = "atomic"
    SLEEPS = "may sleep"


@dataclass(frozen=True, slots=True)
class Point:
    """One place in the kernel."""

    name: str
    place: str
    gist: str
    context: Context
    errno: int


POINTS: dict[str, Point] = {}
"""All points by name, in the order of the layers."""


def find_point(name: str) -> Point:
    """The point of that name. Raises KernelError ENOENT with near matches."""
    point = POINTS.get(name)
    if point is None:
        near = difflib.get_close_matches(name, POINTS, n=3, cutoff=0.4)
        remedy = " or ".join(near) if near else "`xpmem-emu failpoint ls` shows them all"
        raise KernelError(errno.ENOENT, f"no failpoint is called {name!r}", remedy)
    return point


def _atomic(name: str, place: str, number: int, gist: str) -> Point:
    point = POINTS[name] = Point(name, place, gist, Context.ATOMIC, number)
    return point


def _sleeps(name: str, place: str, number: int, gist: str) -> Point:
    point = POINTS[name] = Point(name, place, gist, Context.SLEEPS, number)
    return point


# -- memory management ------------------------------------------------------------------------

FRAMES_ALLOCATE = _sleeps(
    "mm.frames.allocate",
    "mm/allocate.py",
    errno.ENOMEM,
    "frames are wanted; failing: nothing is free and nothing can be reclaimed",
)
SWAP_ALLOCATE = _atomic(
    "mm.swap.allocate",
    "mm/reclaim.py",
    errno.ENOSPC,
    "reclaim wants swap slots; failing: swap is full and the pages stay",
)
MMAP_RESERVE = _atomic(
    "mm.mmap.reserve",
    "mm/areas.py",
    errno.ENOMEM,
    "a task gets more areas; failing: it has as many as the image allows",
)
FAULT_BEGIN = _sleeps(
    "mm.fault.begin",
    "mm/fault.py",
    errno.ENOMEM,
    "a page fault begins, before the mmap_lock; failing: out of memory, the task dies",
)
GUP_PIN = _sleeps(
    "mm.gup.pin",
    "mm/gup.py",
    errno.ENOMEM,
    "pages are about to be pinned for importers; failing: they cannot be brought in",
)
GATHER_FREE = _sleeps(
    "mm.gather.before_free",
    "mm/gather.py",
    0,
    "entries are cleared and notifiers done; frames are not yet given back (sources T15)",
)
TRANSIT_SYNC = _sleeps(
    "mm.transit.before_sync",
    "mm/transit.py",
    0,
    "pages are in transit (BUSY), their holders have not been asked yet",
)
MIGRATE_COPY = _sleeps(
    "mm.migrate.before_move",
    "mm/migrate.py",
    errno.ENOMEM,
    "migration wants target frames; failing: there are none, the pages stay",
)
DISK_CHARGE = _atomic(
    "mm.disk.charge",
    "mm/file_table.py",
    errno.ENOSPC,
    "a file or shared memory takes disk; failing: the disk is full",
)
FILE_READ = _sleeps(
    "mm.file.read_in",
    "mm/files.py",
    errno.ENOMEM,
    "file pages are about to be read in; failing: no memory for the page cache",
)
FORK_COPY = _sleeps(
    "mm.fork.copy",
    "mm/lifecycle.py",
    errno.ENOMEM,
    "an address space is about to be copied; failing: no memory for it",
)
EXIT_UNMAP = _sleeps(
    "mm.exit.before_unmap",
    "mm/lifecycle.py",
    0,
    "a task exits: notifiers are released, its memory is still mapped",
)

# -- communication ----------------------------------------------------------------------------

XPC_SEND = _atomic(
    "xpc.wire.send",
    "xpc/wire.py",
    errno.ENOBUFS,
    "a numbered message is sent; failing: it is lost on the way out",
)
XPC_RECEIVE = _atomic(
    "xpc.receive", "xpc/xpc.py", errno.EBADMSG, "frames arrived; failing: they are dropped unread"
)
XPC_CALL = _sleeps(
    "xpc.call.begin",
    "xpc/xpc.py",
    errno.ENOTCONN,
    "a request is about to ask for its channel; failing: not connected",
)
XPC_CLAIM = _sleeps(
    "xpc.slot.claim",
    "xpc/xpc.py",
    errno.ETIMEDOUT,
    "a request wants a slot; failing: none became free in time",
)
XPC_THREAD = _atomic(
    "xpc.serve.thread",
    "xpc/delivery.py",
    errno.EAGAIN,
    "a request wants a thread; failing: none is left, the peer will send it again",
)
XPC_SERVE = _sleeps(
    "xpc.serve.before_handler",
    "xpc/delivery.py",
    0,
    "a request has its thread and has not been looked at",
)
XPC_REPLY = _sleeps(
    "xpc.serve.before_reply",
    "xpc/delivery.py",
    0,
    "a request was carried out, its reply is not sent yet",
)
XPC_BEAT = _atomic(
    "xpc.heartbeat.beat",
    "xpc/heartbeat.py",
    errno.EAGAIN,
    "a heartbeat is due; failing: it is not sent",
)

# -- cross-partition memory -------------------------------------------------------------------

MAKE_SEGMENT = _atomic(
    "xpmem.make.segment",
    "xpmem/make.py",
    errno.ENOMEM,
    "a segment is about to exist; failing: the task has as many as it may",
)
GET_PERMIT = _atomic(
    "xpmem.get.permit",
    "xpmem/get.py",
    errno.ENOMEM,
    "a permit is about to be asked for; failing: the task has as many as it may",
)
GET_ADOPT = _sleeps(
    "xpmem.get.before_adopt",
    "xpmem/get.py",
    0,
    "the exporter granted a permit that the importer has not noted yet",
)
ATTACH_MAP = _sleeps(
    "xpmem.attach.before_map",
    "xpmem/get.py",
    errno.ENOMEM,
    "the exporter registered an attachment that is not mapped yet; failing: it cannot be",
)
FAULT_SEND = _sleeps(
    "xpmem.fault.before_send",
    "xpmem/fault.py",
    errno.EIO,
    "a fault is in flight, its FAULT is not sent; failing: SIGBUS",
)
FAULT_SERVE = _sleeps(
    "xpmem.fault.before_pin",
    "xpmem/exporter.py",
    errno.EAGAIN,
    "the exporter got a FAULT and has looked at nothing; failing: it refuses",
)
FAULT_REPLY = _sleeps(
    "xpmem.fault.before_reply",
    "xpmem/exporter.py",
    errno.ENOMEM,
    "the pages of a FAULT are held for the importer, the reply is not sent (sources T16)",
)
FAULT_INSTALL = _sleeps(
    "xpmem.fault.before_install",
    "xpmem/fault.py",
    0,
    "a FAULT_REPLY arrived and was not looked at: an invalidation may overtake it (sources T16)",
)
FAR_SEND = _sleeps(
    "xpmem.far.before_send",
    "xpmem/remote_access.py",
    errno.EIO,
    "a block of an access to another domain is about to be sent; failing: SIGBUS",
)
SERVE_ACCESS = _sleeps(
    "xpmem.serve.before_access",
    "xpmem/access_server.py",
    errno.EAGAIN,
    "a COPY or AMO passed the firewall, no page was looked at; failing: the home refuses it",
)
RECALL_SEND = _sleeps(
    "xpmem.recall.before_send",
    "xpmem/recall.py",
    errno.ETIMEDOUT,
    "a holder is about to get its INVALIDATE; failing: it never answers and is fenced",
)
RECALL_UNPIN = _sleeps(
    "xpmem.recall.before_unpin",
    "xpmem/recall.py",
    0,
    "every holder acknowledged, the frames are still pinned",
)
INVALIDATE_ZAP = _sleeps(
    "xpmem.invalidate.before_zap",
    "xpmem/module.py",
    0,
    "an INVALIDATE arrived, nothing is zapped yet",
)
INVALIDATE_ACK = _sleeps(
    "xpmem.invalidate.before_ack",
    "xpmem/module.py",
    0,
    "an INVALIDATE was carried out, its acknowledgement is not sent",
)
EVICT_TELL = _sleeps(
    "xpmem.evict.before_tell",
    "xpmem/rpc.py",
    0,
    "pages were given back here, the exporter does not know yet",
)
FENCE_MIGRATE = _sleeps(
    "xpmem.fence.before_migrate",
    "xpmem/fence.py",
    errno.ENOMEM,
    "pages are about to leave frames that a lost importer can write; failing: no frames",
)

# -- the kernel as a whole --------------------------------------------------------------------

CALL_BEGIN = _atomic(
    "kernel.call.begin",
    "kernel/kernel.py",
    errno.EAGAIN,
    "a call wants a thread; failing: the image allows no more",
)
CALL_ANSWER = _sleeps(
    "kernel.call.before_answer",
    "kernel/kernel.py",
    0,
    "a call was carried out, its caller does not know yet",
)
TASK_SPAWN = _atomic(
    "kernel.task.spawn",
    "kernel/tasks.py",
    errno.EAGAIN,
    "a task wants a pid; failing: there are as many as the image allows",
)
TASK_REAP = _sleeps(
    "kernel.task.before_reap",
    "kernel/tasks.py",
    0,
    "the threads of an ending task are gone, its memory is not",
)
WINDOW_MAP = _atomic(
    "kernel.window.map",
    "kernel/kernel.py",
    errno.ENOMEM,
    "the memory of a new peer is about to be mapped; failing: the peer is given up",
)
