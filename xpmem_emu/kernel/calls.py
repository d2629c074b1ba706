"""What can be asked of a kernel from outside: one typed Struct per operation.

What fits into these types fits into whatever message it ends up in (`fields`). The console decodes
client bytes straight into them; a call that was built by hand the kernel checks (`codec.misfit`).
The result type of each call is given in its docstring. Sizes, offsets and addresses are bytes.
`pid` names the task that makes the call; a call for an unknown pid fails with ESRCH.
"""

from typing import Annotated, Any

from msgspec import Meta, field

from xpmem_emu.fields import S64, U64, Gids, MaybeName, Name, Pid, ReasonText, ShortText, Uid
from xpmem_emu.kernel.call import Call as Call
from xpmem_emu.kernel.device_calls import DeviceCall

PROT_NONE, PROT_READ, PROT_WRITE = 0, 1, 2
MAP_SHARED, MAP_PRIVATE, MAP_FIXED, MAP_ANONYMOUS = 0x01, 0x02, 0x10, 0x20
MAP_UNCACHED = 0x1000_0000
"""Not Linux's: uncached memory, whose words take atomic operations (sources T6)."""
MAP_MSPEC = 0x2000_0000
"""Not Linux's: fetch-and-op pages as the mspec driver gives them, shared and uncached."""
MADV_DONTNEED, MADV_REMOVE, MADV_PAGEOUT = 4, 9, 21
MREMAP_MAYMOVE, MREMAP_FIXED = 1, 2


# -- tasks ------------------------------------------------------------------------------------


class Spawn(Call, frozen=True):
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


class Fork(Call, frozen=True):
    """Result: the child's pid."""

    pid: Pid


class Exec(Call, frozen=True):
    """A fresh address space, as exec(2) gives. Result: None."""

    pid: Pid


class Exit(Call, frozen=True):
    """The task ends; returns when its address space is gone. Result: None."""

    pid: Pid
    status: int = 0


class Kill(Call, frozen=True):
    """Sends a signal; returns when a killed task is gone. Result: None."""

    pid: Pid
    signal: int = 9
    reason: ReasonText = "kill"


class Setuid(Call, frozen=True):
    """Changes effective uid and groups. Result: None."""

    pid: Pid
    uid: Uid
    gids: Gids = field(default_factory=list)


# -- memory -----------------------------------------------------------------------------------


class Mmap(Call, frozen=True):
    """Result: address. `file` names a file of this partition; empty means anonymous."""

    pid: Pid
    length: U64
    prot: int = PROT_READ | PROT_WRITE
    flags: int = MAP_PRIVATE | MAP_ANONYMOUS
    address: U64 = 0
    file: MaybeName = ""
    offset: U64 = 0


class Munmap(Call, frozen=True):
    """Result: None."""

    pid: Pid
    address: U64
    length: U64


class Mprotect(Call, frozen=True):
    """Result: None."""

    pid: Pid
    address: U64
    length: U64
    prot: int


class Madvise(Call, frozen=True):
    """Result: None. DONTNEED, REMOVE, PAGEOUT; DONTNEED is EINVAL on PFNMAP areas (sources T5)."""

    pid: Pid
    address: U64
    length: U64
    advice: int


class Mremap(Call, frozen=True):
    """Result: the new address."""

    pid: Pid
    address: U64
    old_length: U64
    new_length: U64
    flags: int = MREMAP_MAYMOVE
    new_address: U64 = 0


class Load(Call, frozen=True):
    """Reads memory as the task would. Result: None, the bytes come as bulk."""

    pid: Pid
    address: U64
    size: Annotated[int, Meta(ge=0, le=1 << 26)]


class Store(Call, frozen=True):
    """Writes the call's bulk to memory as the task would. Result: None."""

    pid: Pid
    address: U64


class AtomicOp(Call, frozen=True, tag="amo"):
    """Atomic operation on an aligned 64-bit word of an uncached mapping.

    `operation`: `fetch`, `add`, `swap`, `compare_swap` or `store`. Result: the word before it.
    """

    pid: Pid
    address: U64
    operation: ShortText
    operand: U64 = 0
    compare: U64 = 0


class ZapPageRange(Call, frozen=True):
    """Drops the PTEs of a range, PFNMAP areas included (sources T5). Result: None."""

    pid: Pid
    address: U64
    length: U64


# -- files and the VM -------------------------------------------------------------------------


class Creat(Call, frozen=True):
    """A new file of `size` zero bytes. EEXIST when there is one. Result: None."""

    file: Name
    size: U64 = 0


class Unlink(Call, frozen=True):
    """The name goes; the inode lives until its last mapping is gone. Result: None."""

    file: Name


class Pwrite(Call, frozen=True):
    """Writes the call's bulk into a file at `offset`, extending it. Result: None."""

    file: Name
    offset: U64


class Pread(Call, frozen=True):
    """Result: None, the bytes come as bulk."""

    file: Name
    offset: U64
    size: Annotated[int, Meta(ge=0, le=1 << 26)]


class Truncate(Call, frozen=True):
    """Cuts or extends a file; mappings beyond the end are torn down. Result: None."""

    file: Name
    size: U64


class Writeback(Call, frozen=True):
    """Writes dirty pages back after page_mkclean of each. Result: pages written."""

    file: Name


class Reclaim(Call, frozen=True):
    """try_to_unmap: frees up to `pages` frames, of one task's range when given.

    Result: frames freed.
    """

    pages: U64
    pid: Pid = 0
    address: U64 = 0
    length: U64 = 0


class Migrate(Call, frozen=True):
    """Moves the resident pages of a range to other frames. Result: pages moved."""

    pid: Pid
    address: U64
    length: U64


# -- xpmem (sources 1.4 to 1.12) ----------------------------------------------------------------


class XpmemVersion(Call, frozen=True):
    """Result: 0x00027004."""


class XpmemOpen(Call, frozen=True):
    """Opens the xpmem device: the task gets its thread group. Idempotent. Result: None."""

    pid: Pid


class XpmemClose(Call, frozen=True):
    """Closes (flushes) the device: releases all permits, removes all segments. Result: None."""

    pid: Pid


class XpmemMake(Call, frozen=True):
    """Result: segid. `name` is an extension, refused with EINVAL unless the image enables it."""

    pid: Pid
    vaddr: U64
    size: U64
    permit_type: int = 1
    permit_value: S64 = 0o600
    name: MaybeName = ""


class XpmemRemove(Call, frozen=True):
    """Result: None."""

    pid: Pid
    segid: S64


class XpmemGet(Call, frozen=True):
    """Result: apid. `permit_value` stands for the pointer that must be NULL."""

    pid: Pid
    segid: S64
    flags: int = 2
    permit_type: int = 1
    permit_value: S64 = 0


class XpmemRelease(Call, frozen=True):
    """Result: None."""

    pid: Pid
    apid: S64


class XpmemAttach(Call, frozen=True):
    """Result: address."""

    pid: Pid
    apid: S64
    offset: S64
    size: U64
    vaddr: U64 = 0


class XpmemDetach(Call, frozen=True):
    """Result: None."""

    pid: Pid
    vaddr: U64


class XpmemCopy(Call, frozen=True):
    """Block transfer of `size` bytes between two permits of the caller. Result: None."""

    pid: Pid
    src_apid: S64
    src_offset: S64
    dst_apid: S64
    dst_offset: S64
    size: U64


class XpmemForkBegin(Call, frozen=True):
    """Recalls everything and blocks importers' faults (sources 1.12). Result: None."""

    pid: Pid


class XpmemForkEnd(Call, frozen=True):
    """Lets importers fault again. Result: None."""

    pid: Pid


class XpmemFind(Call, frozen=True):
    """Asks all partitions for a segment of this name (extension). Result: segid; ENOENT."""

    name: Name


class XpmemTunable(Call, frozen=True):
    """Sets faults_after or faults_before (sources 1.10). Result: the old value."""

    name: ShortText
    value: S64


# -- looking ----------------------------------------------------------------------------------


class Look(Call, frozen=True):
    """A table of objects. `kind`: segments, attachments, permits, faults, partitions, channels,
    pins, tasks, files, devices. Result: list of mappings, one row each, same keys in each row."""

    kind: ShortText


class Describe(Call, frozen=True):
    """One object with everything that is known of it, its last failure included.

    `what`: a segid, apid, pid (as text, decimal or hex) or `p3`. Result: mapping; ENOENT.
    """

    what: ShortText


class Pagetable(Call, frozen=True):
    """The walk for one address, level by level. Result: mapping."""

    pid: Pid
    address: U64


class Status(Call, frozen=True):
    """Result: mapping: partid, boot, uptime_ns, peers and their states, counters, audit."""


class Audit(Call, frozen=True):
    """Counts what is in use and checks that the counts agree. Result: mapping."""


class Shutdown(Call, frozen=True):
    """Deactivates all peers with xpUnloading, kills all tasks, then halts. Result: None."""

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

Value = Any
"""A result: None, int, str, or lists and mappings of these."""
