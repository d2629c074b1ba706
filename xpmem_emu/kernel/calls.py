"""What can be asked of a kernel from outside: one typed Struct per operation.

What fits into these types fits into whatever message it ends up in (`fields`). The console decodes
client bytes straight into them; a call that was built by hand the kernel checks (`codec.misfit`).
What a call is answered with is in its base. Sizes, offsets and addresses are bytes. `pid` names
the task that makes the call; a call for an unknown pid fails with ESRCH.
"""

from typing import Annotated, Any

from msgspec import Meta, field

from xpmem_emu.fields import S64, U64, Gids, MaybeName, Name, Pid, ReasonText, ShortText, Uid
from xpmem_emu.kernel.call import Call as Call
from xpmem_emu.kernel.call import Returns, TableRow
from xpmem_emu.kernel.device_calls import DeviceCall, DeviceStore

PROT_NONE, PROT_READ, PROT_WRITE = 0, 1, 2
MAP_SHARED, MAP_PRIVATE, MAP_FIXED, MAP_ANONYMOUS = 0x01, 0x02, 0x10, 0x20
MAP_UNCACHED = 0x1000_0000
"""Not Linux's: uncached memory, whose words take atomic operations (sources T6)."""
MAP_MSPEC = 0x2000_0000
"""Not Linux's: fetch-and-op pages as the mspec driver gives them, shared and uncached."""
MADV_DONTNEED, MADV_REMOVE, MADV_PAGEOUT = 4, 9, 21
MREMAP_MAYMOVE, MREMAP_FIXED = 1, 2


# -- tasks ------------------------------------------------------------------------------------


class Spawn(Returns[int], frozen=True):
    """A new task with an empty address space. Result: pid.

    `handled` are signals for which the task has a handler: the access that raises them fails
    with that signal and the task lives on. Every other fatal signal kills the task.
    `cap_ipc_owner` is what root has and others have not, unless it is said.
    """

    name: MaybeName = ""
    uid: Uid = 0
    gids: Gids = field(default_factory=list)
    cap_ipc_owner: bool | None = None
    handled: list[int] = field(default_factory=lambda: [7, 11])


class Fork(Returns[int], frozen=True):
    """A child with a copy-on-write copy of the address space. Result: its pid."""

    pid: Pid


class Exec(Returns[None], frozen=True):
    """A fresh address space, as exec(2) gives."""

    pid: Pid


class Exit(Returns[None], frozen=True):
    """The task ends; returns when its address space is gone."""

    pid: Pid
    status: int = 0


class Kill(Returns[None], frozen=True):
    """Sends a signal; returns when a killed task is gone."""

    pid: Pid
    signal: int = 9
    reason: ReasonText = "kill"


class Setuid(Returns[None], frozen=True):
    """Changes effective uid and groups."""

    pid: Pid
    uid: Uid
    gids: Gids = field(default_factory=list)


# -- memory -----------------------------------------------------------------------------------


class Mmap(Returns[int], frozen=True):
    """Maps memory, or `file` of this partition; empty means anonymous. Result: the address."""

    pid: Pid
    length: U64
    prot: int = PROT_READ | PROT_WRITE
    flags: int = MAP_PRIVATE | MAP_ANONYMOUS
    address: U64 = 0
    file: MaybeName = ""
    offset: U64 = 0


class Munmap(Returns[None], frozen=True):
    """Unmaps a range; importers of its pages lose them first."""

    pid: Pid
    address: U64
    length: U64


class Mprotect(Returns[None], frozen=True):
    """Changes the rights of a range."""

    pid: Pid
    address: U64
    length: U64
    prot: int


class Madvise(Returns[None], frozen=True):
    """DONTNEED, REMOVE, PAGEOUT; DONTNEED is EINVAL on PFNMAP areas (sources T5)."""

    pid: Pid
    address: U64
    length: U64
    advice: int


class Mremap(Returns[int], frozen=True):
    """Grows, shrinks or moves a mapping. Result: its address."""

    pid: Pid
    address: U64
    old_length: U64
    new_length: U64
    flags: int = MREMAP_MAYMOVE
    new_address: U64 = 0


class Load(Returns[None], frozen=True):
    """Reads memory as the task would. The bytes come as bulk."""

    pid: Pid
    address: U64
    size: Annotated[int, Meta(ge=0, le=1 << 26)]


class Store(Returns[None], frozen=True):
    """Writes the call's bulk to memory as the task would."""

    pid: Pid
    address: U64


class AtomicOp(Returns[int], frozen=True, tag="amo"):
    """Atomic operation on an aligned 64-bit word of an uncached mapping.

    `operation`: `fetch`, `add`, `swap`, `compare_swap` or `store`. Result: the word before it.
    """

    pid: Pid
    address: U64
    operation: ShortText
    operand: U64 = 0
    compare: U64 = 0


class ZapPageRange(Returns[None], frozen=True):
    """Drops the PTEs of a range, PFNMAP areas included (sources T5)."""

    pid: Pid
    address: U64
    length: U64


# -- files and the VM -------------------------------------------------------------------------


class Creat(Returns[None], frozen=True):
    """A new file of `size` zero bytes. EEXIST when there is one."""

    file: Name
    size: U64 = 0


class Unlink(Returns[None], frozen=True):
    """The name goes; the inode lives until its last mapping is gone."""

    file: Name


class Pwrite(Returns[None], frozen=True):
    """Writes the call's bulk into a file at `offset`, extending it."""

    file: Name
    offset: U64


class Pread(Returns[None], frozen=True):
    """Reads from a file, short at its end. The bytes come as bulk."""

    file: Name
    offset: U64
    size: Annotated[int, Meta(ge=0, le=1 << 26)]


class Truncate(Returns[None], frozen=True):
    """Cuts or extends a file; mappings beyond the end are torn down."""

    file: Name
    size: U64


class Writeback(Returns[int], frozen=True):
    """Writes dirty pages back after page_mkclean of each. Result: pages written."""

    file: Name


class Reclaim(Returns[int], frozen=True):
    """try_to_unmap: frees up to `pages` frames, of one task's range when given.

    Result: frames freed.
    """

    pages: U64
    pid: Pid = 0
    address: U64 = 0
    length: U64 = 0


class Migrate(Returns[int], frozen=True):
    """Moves the resident pages of a range to other frames. Result: pages moved."""

    pid: Pid
    address: U64
    length: U64


# -- xpmem (sources 1.4 to 1.12) ----------------------------------------------------------------


class XpmemVersion(Returns[int], frozen=True):
    """The version of the driver. Result: 0x00027004."""


class XpmemOpen(Returns[None], frozen=True):
    """Opens the xpmem device: the task gets its thread group. Idempotent."""

    pid: Pid


class XpmemClose(Returns[None], frozen=True):
    """Closes (flushes) the device: releases all permits, removes all segments."""

    pid: Pid


class XpmemMake(Returns[int], frozen=True):
    """Offers a range of the address space to others. Result: segid.

    `name` is an extension, refused with EINVAL unless the image enables it.
    """

    pid: Pid
    vaddr: U64
    size: U64
    permit_type: int = 1
    permit_value: S64 = 0o600
    name: MaybeName = ""


class XpmemRemove(Returns[None], frozen=True):
    """Withdraws a segment; every attachment of it loses its pages."""

    pid: Pid
    segid: S64


class XpmemGet(Returns[int], frozen=True):
    """Gets a permit for a segment: XPMEM_RDWR or XPMEM_RDONLY. Result: apid.

    `permit_value` stands for the pointer that must be NULL.
    """

    pid: Pid
    segid: S64
    flags: int = 2
    permit_type: int = 1
    permit_value: S64 = 0


class XpmemRelease(Returns[None], frozen=True):
    """Gives a permit up, with everything attached through it."""

    pid: Pid
    apid: S64


class XpmemAttach(Returns[int], frozen=True):
    """Maps part of a segment. Result: the address."""

    pid: Pid
    apid: S64
    offset: S64
    size: U64
    vaddr: U64 = 0


class XpmemDetach(Returns[None], frozen=True):
    """Unmaps the attachment that `vaddr` lies in."""

    pid: Pid
    vaddr: U64


class XpmemCopy(Returns[None], frozen=True):
    """Block transfer of `size` bytes between two permits of the caller; contained, not atomic."""

    pid: Pid
    src_apid: S64
    src_offset: S64
    dst_apid: S64
    dst_offset: S64
    size: U64


class XpmemForkBegin(Returns[None], frozen=True):
    """Recalls everything and blocks importers' faults (sources 1.12)."""

    pid: Pid


class XpmemForkEnd(Returns[None], frozen=True):
    """Lets importers fault again."""

    pid: Pid


class XpmemFind(Returns[int], frozen=True):
    """Asks all partitions for a segment of this name (extension). Result: segid; ENOENT."""

    name: Name


class XpmemTunable(Returns[int], frozen=True):
    """Sets faults_after or faults_before (sources 1.10). Result: the old value."""

    name: ShortText
    value: S64


# -- looking ----------------------------------------------------------------------------------


class Look(Returns[list[TableRow]], frozen=True):
    """A table of objects. `kind`: segments, attachments, permits, faults, partitions, channels,
    pins, tasks, files, devices."""

    kind: ShortText


class Describe(Returns[TableRow], frozen=True):
    """One object with everything that is known of it, its last failure included.

    `what`: a segid, apid, pid (as text, decimal or hex) or `p3`. ENOENT when there is none.
    """

    what: ShortText


class Pagetable(Returns[TableRow], frozen=True):
    """The walk for one address, level by level."""

    pid: Pid
    address: U64


class Status(Returns[TableRow], frozen=True):
    """State of the partition: partid, boot, uptime_ns, peers and their states, counters, audit."""


class Audit(Returns[TableRow], frozen=True):
    """Counts what is in use and checks that the counts agree."""


class Shutdown(Returns[None], frozen=True):
    """Deactivates all peers with xpUnloading, kills all tasks, then halts."""

    reason: ReasonText = "shutdown"


AnyCall = (
    Spawn | Fork | Exec | Exit | Kill | Setuid
    | Mmap | Munmap | Mprotect | Madvise | Mremap | Load | Store | AtomicOp | ZapPageRange
    | Creat | Unlink | Pwrite | Pread | Truncate | Writeback | Reclaim | Migrate
    | XpmemVersion | XpmemOpen | XpmemClose | XpmemMake | XpmemRemove | XpmemGet | XpmemRelease
    | XpmemAttach | XpmemDetach | XpmemCopy | XpmemForkBegin | XpmemForkEnd | XpmemFind
    | XpmemTunable | DeviceCall | Look | Describe | Pagetable | Status | Audit | Shutdown
)  # fmt: skip
"""Every call: the type that a console request is decoded to."""

WITH_BULK: tuple[type[Call], ...] = (Store, Pwrite, DeviceStore)
"""Calls that bring bytes to write."""

Value = Any
"""A result: None, int, str, or lists and mappings of these."""
