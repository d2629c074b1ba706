"""The rows of the API table (sources 1.4 to 1.11, "modern"): bad input and what it gets.

The rows stand in the historical order of the checks; rows with two faults show which check comes
first. test_api_table.py runs them."""

from collections.abc import Callable

from tests.xpmem.world import AT, FIXED, PAGE, PAGES, World, outcome_of
from xpmem_emu.kernel import calls
from xpmem_emu.kernel.calls import MADV_DONTNEED, PROT_NONE, PROT_READ
from xpmem_emu.sim.task import SimTask
from xpmem_emu.units import TASK_SIZE
from xpmem_emu.xpmem.ids import UNIQ_MAX, IdParts

MAXADDR = (1 << 64) - 1
SIZE = PAGES * PAGE
Action = Callable[[], object]
Row = tuple[str, str, Callable[[World], Action]]
"""(what, expected outcome, prepare(world) -> the action)."""


def make(
    w: World, vaddr: int, size: int, kind: int = 1, value: int = 0o600, name: str = ""
) -> Action:
    return lambda: w.do(w.exporter, calls.XpmemMake(w.exporter.pid, vaddr, size, kind, value, name))


def get(w: World, segid: int, flags: int = 2, kind: int = 1, value: int = 0) -> Action:
    return lambda: w.do(w.importer, calls.XpmemGet(w.importer.pid, segid, flags, kind, value))


def attach(w: World, apid: int, offset: int = 0, size: int = SIZE, vaddr: int = 0) -> Action:
    return lambda: w.importer.xpmem_attach(apid, offset, size, vaddr)


def with_bare_make(w: World, vaddr: int, size: int, kind: int = 1) -> Action:
    task = w.bare(0)
    return lambda: w.do(task, calls.XpmemMake(task.pid, vaddr, size, kind))


def exhausted_segids(w: World) -> Action:
    w.cluster.kernels[0].tasks.find(w.exporter.pid).last_uniq.segid = UNIQ_MAX
    return make(w, w.base, SIZE)


MAKE: list[Row] = [
    ("permit_type 0", "EINVAL", lambda w: make(w, w.base, SIZE, kind=0)),
    ("permit_type 2", "EINVAL", lambda w: make(w, w.base, SIZE, kind=2)),
    ("permit_value beyond 0777", "EINVAL", lambda w: make(w, w.base, SIZE, value=0o1000)),
    ("permit_value negative", "EINVAL", lambda w: make(w, w.base, SIZE, value=-1)),
    ("size 0", "EINVAL", lambda w: make(w, w.base, 0)),
    ("no tg", "NOPROC", lambda w: with_bare_make(w, AT, SIZE)),
    ("no tg and size 0: size first", "EINVAL", lambda w: with_bare_make(w, AT, 0)),
    ("no tg and bad type: type first", "EINVAL", lambda w: with_bare_make(w, AT, SIZE, 9)),
    ("no tg and unaligned: tg first", "NOPROC", lambda w: with_bare_make(w, AT + 1, SIZE)),
    ("beyond the address space", "EINVAL", lambda w: make(w, TASK_SIZE - PAGE, 2 * PAGE)),
    ("vaddr unaligned", "EINVAL", lambda w: make(w, w.base + 1, SIZE)),
    ("size unaligned", "EINVAL", lambda w: make(w, w.base, SIZE - 1)),
    ("MAXADDR from elsewhere than 0 (quirk)", "EINVAL", lambda w: make(w, w.base, MAXADDR)),
    ("MAXADDR from beyond the end", "EINVAL", lambda w: make(w, TASK_SIZE + PAGE, MAXADDR)),
    ("MAXADDR from the end", "EINVAL", lambda w: make(w, TASK_SIZE, MAXADDR)),
    ("near the top, wrapping", "EINVAL", lambda w: make(w, MAXADDR - 1, PAGE)),
    ("no uniq left", "EBUSY", exhausted_segids),
    ("a name without the extension", "EINVAL", lambda w: make(w, w.base, SIZE, name="field")),
    ("MAXADDR from 0", "ok", lambda w: make(w, 0, MAXADDR)),
    ("a range with nothing mapped", "ok", lambda w: make(w, AT, SIZE)),
    ("mode 0", "ok", lambda w: make(w, w.base, SIZE, value=0)),
    ("the same range again", "ok", lambda w: make(w, w.base, SIZE)),
    ("a range that overlaps", "ok", lambda w: make(w, w.base + PAGE, PAGE)),
]


def remove(w: World, segid: int) -> Action:
    return lambda: w.exporter.xpmem_remove(segid)


def remove_by(w: World, partid: int) -> Action:
    other = w.spawn(partid)
    return lambda: other.xpmem_remove(w.segid)


def removed(w: World) -> int:
    w.exporter.xpmem_remove(w.segid)
    return w.segid


def closed(w: World) -> int:
    w.do(w.exporter, calls.XpmemClose(w.exporter.pid))
    return w.segid


def exited(w: World) -> int:
    w.exporter.exit()
    return w.segid


REMOVE: list[Row] = [
    ("segid 0", "EINVAL", lambda w: remove(w, 0)),
    ("segid -1", "EINVAL", lambda w: remove(w, -1)),
    ("a made-up id", "ENOENT", lambda w: remove(w, 12345)),
    ("more than 56 bits", "ENOENT", lambda w: remove(w, 1 << 56)),
    ("owner without tg", "ENOENT", lambda w: remove(w, IdParts(0, 1, 999, 1).pack())),
    ("another task's", "EACCES", lambda w: remove_by(w, 0)),
    ("another partition's", "EACCES", lambda w: remove_by(w, 1)),
    ("an unknown uniq", "ENOENT", lambda w: remove(w, w.segid + 1)),
    ("an earlier boot's", "ENOENT", lambda w: remove(w, w.segid ^ 1 << 40)),
    ("twice", "ENOENT", lambda w: remove(w, removed(w))),
    ("after close", "ENOENT", lambda w: remove(w, closed(w))),
]


def get_as(w: World, uid: int, gids: list[int], flags: int = 2, mode: int = 0o640) -> Action:
    segid = w.exporter.xpmem_make(w.base, SIZE, mode)
    task = w.spawn(1, uid, gids)
    return lambda: task.xpmem_get(segid, flags)


def get_bare(w: World, segid: int, uid: int = 1000) -> Action:
    task = w.bare(1, uid)
    return lambda: task.xpmem_get(segid)


def exhausted_apids(w: World) -> Action:
    w.cluster.kernels[1].tasks.find(w.importer.pid).last_uniq.apid = UNIQ_MAX
    return get(w, w.segid)


def no_peer(w: World) -> Action:
    w.cluster.crash(0)
    w.cluster.prove_gone(0)
    w.cluster.run_until(lambda: w.cluster.kernels[1].xpc.incarnation(0) is None)
    return get(w, w.segid)


GET: list[Row] = [
    ("segid 0", "EINVAL", lambda w: get(w, 0)),
    ("segid -1", "EINVAL", lambda w: get(w, -1)),
    ("flags 4", "EINVAL", lambda w: get(w, w.segid, flags=4)),
    ("flags RDONLY and RDWR", "EINVAL", lambda w: get(w, w.segid, flags=3)),
    ("permit_type 0", "EINVAL", lambda w: get(w, w.segid, kind=0)),
    ("permit_value not NULL", "EINVAL", lambda w: get(w, w.segid, value=0o600)),
    ("unknown segid and bad flags: flags first", "EINVAL", lambda w: get(w, 12345, flags=8)),
    ("a made-up id", "ENOENT", lambda w: get(w, 12345)),
    ("a partition that is not there", "ENOENT", lambda w: get(w, IdParts(9, 0, 1, 1).pack())),
    ("more than 56 bits", "ENOENT", lambda w: get(w, 1 << 60)),
    ("an unknown uniq", "ENOENT", lambda w: get(w, w.segid + 1)),
    ("an earlier boot's", "ENOENT", lambda w: get(w, w.segid ^ 1 << 40)),
    ("a removed segment", "ENOENT", lambda w: get(w, removed(w))),
    ("exporter closed the device", "ENOENT", lambda w: get(w, closed(w))),
    ("exporter exited", "ENOENT", lambda w: get(w, exited(w))),
    ("others have no bits", "EACCES", lambda w: get_as(w, 7, [7])),
    ("group may read, wants to write", "EACCES", lambda w: get_as(w, 7, [100])),
    ("group may read", "ok", lambda w: get_as(w, 7, [100], flags=1)),
    ("group by a supplementary group", "ok", lambda w: get_as(w, 7, [7, 100], flags=1)),
    ("owner denied, others allowed", "EACCES", lambda w: get_as(w, 1000, [], mode=0o066)),
    ("group denied, others allowed", "EACCES", lambda w: get_as(w, 7, [100], mode=0o606)),
    ("write without read", "EACCES", lambda w: get_as(w, 1000, [], mode=0o200)),
    ("execute bits count for nothing", "EACCES", lambda w: get_as(w, 7, [7], mode=0o771)),
    ("others may", "ok", lambda w: get_as(w, 7, [7], mode=0o606)),
    ("root is refused nothing", "ok", lambda w: get_as(w, 0, [], mode=0)),
    ("flags 0 needs read only (quirk)", "ok", lambda w: get_as(w, 7, [100], flags=0)),
    ("no tg, segment gone: segment first", "ENOENT", lambda w: get_bare(w, removed(w))),
    ("no tg, not permitted: permission first", "EACCES", lambda w: get_bare(w, w.segid, 7)),
    ("no tg", "NOPROC", lambda w: get_bare(w, w.segid)),
    ("no uniq left", "EBUSY", exhausted_apids),
    ("the exporter's own segment", "ok", lambda w: lambda: w.exporter.xpmem_get(w.segid)),
]


def released(w: World) -> int:
    apid = w.permit()
    w.importer.xpmem_release(apid)
    return apid


def removed_permit(w: World, flags: int = 2) -> int:
    apid = w.permit(flags)
    w.exporter.xpmem_remove(w.segid)
    return apid


def orphaned_permit(w: World) -> int:
    apid = w.permit()
    w.exporter.exit()
    return apid


def foreign_permit(w: World) -> int:
    return w.spawn(1).xpmem_get(w.segid)


def self_attach(w: World, vaddr: int) -> Action:
    apid = w.exporter.xpmem_get(w.segid)
    return lambda: w.exporter.xpmem_attach(apid, 0, SIZE, vaddr)


def over_attachment(w: World) -> Action:
    apid = w.permit()
    w.importer.xpmem_attach(apid, 0, SIZE, AT)
    return attach(w, apid, vaddr=AT + PAGE)


def over_memory(w: World) -> Action:
    w.importer.mmap(SIZE, flags=FIXED, address=AT)
    return attach(w, w.permit(), vaddr=AT)


ATTACH: list[Row] = [
    ("apid 0", "EINVAL", lambda w: attach(w, 0)),
    ("apid -1", "EINVAL", lambda w: attach(w, -1)),
    ("vaddr beyond user space", "EINVAL", lambda w: attach(w, w.permit(), vaddr=TASK_SIZE)),
    ("vaddr in the last page", "EINVAL", lambda w: attach(w, w.permit(), vaddr=TASK_SIZE - PAGE)),
    ("vaddr unaligned", "EINVAL", lambda w: attach(w, w.permit(), vaddr=AT + 8)),
    ("offset unaligned", "EINVAL", lambda w: attach(w, w.permit(), offset=8, size=PAGE)),
    ("unaligned comes before unknown", "EINVAL", lambda w: attach(w, 12345, offset=8)),
    ("a made-up apid", "ENOENT", lambda w: attach(w, 12345)),
    ("more than 56 bits", "ENOENT", lambda w: attach(w, 1 << 60)),
    ("a released permit", "ENOENT", lambda w: attach(w, released(w))),
    ("the segment was removed", "ENOENT", lambda w: attach(w, removed_permit(w))),
    ("the exporter exited", "ENOENT", lambda w: attach(w, orphaned_permit(w))),
    ("removed and read-only: removed first", "ENOENT", lambda w: attach(w, removed_permit(w, 1))),
    ("removed and out of range", "ENOENT", lambda w: attach(w, removed_permit(w), size=99 * PAGE)),
    ("another task's permit", "EACCES", lambda w: attach(w, foreign_permit(w))),
    ("a read-only permit", "EACCES", lambda w: attach(w, w.permit(1))),
    ("read-only and out of range", "EACCES", lambda w: attach(w, w.permit(1), size=99 * PAGE)),
    ("offset negative", "EINVAL", lambda w: attach(w, w.permit(), offset=-PAGE, size=PAGE)),
    ("size 0", "EINVAL", lambda w: attach(w, w.permit(), size=0)),
    ("size wraps to 0", "EINVAL", lambda w: attach(w, w.permit(), size=MAXADDR)),
    ("beyond the segment", "EINVAL", lambda w: attach(w, w.permit(), offset=PAGE)),
    ("rounds up past the end", "EINVAL", lambda w: attach(w, w.permit(), size=SIZE + 1)),
    ("over its own source", "EINVAL", lambda w: self_attach(w, w.base + PAGE)),
    ("over an attachment", "EINVAL", over_attachment),
    ("below mmap_min_addr", "EPERM", lambda w: attach(w, w.permit(), vaddr=PAGE)),
    ("one byte is one page", "ok", lambda w: attach(w, w.permit(), offset=SIZE - PAGE, size=1)),
    ("over other memory", "ok", over_memory),
    ("a permit of flags 0 (quirk)", "ok", lambda w: attach(w, w.permit(0))),
    ("its own segment elsewhere", "ok", lambda w: self_attach(w, AT)),
]


def detach(w: World, address: int) -> Action:
    return lambda: w.importer.xpmem_detach(address)


def split_half(w: World) -> int:
    at = w.attached()
    w.importer.mprotect(at + 4 * PAGE, PAGE, PROT_READ)
    return at + 4 * PAGE


def detached(w: World) -> int:
    at = w.attached()
    w.importer.xpmem_detach(at)
    return at


def release(w: World, apid: int) -> Action:
    return lambda: w.importer.xpmem_release(apid)


DETACH_RELEASE: list[Row] = [
    ("detach of nothing succeeds", "ok", lambda w: detach(w, AT)),
    ("detach of other memory", "EINVAL", lambda w: detach(w, w.importer.mmap(PAGE))),
    ("detach of a piece cut off", "EINVAL", lambda w: detach(w, split_half(w))),
    ("detach twice", "ok", lambda w: detach(w, detached(w))),
    ("detach by an address in the middle", "ok", lambda w: detach(w, w.attached() + 3 * PAGE + 5)),
    ("release 0", "EINVAL", lambda w: release(w, 0)),
    ("release -1", "EINVAL", lambda w: release(w, -1)),
    ("release: tg unknown", "ENOENT", lambda w: release(w, IdParts(1, 1, 999, 1).pack())),
    ("release: another task's", "EACCES", lambda w: release(w, foreign_permit(w))),
    (
        "release: unknown uniq",
        "ENOENT",
        lambda w: release(w, IdParts(1, 1, w.importer.pid, 9).pack()),
    ),
    ("release twice", "ENOENT", lambda w: release(w, released(w))),
    ("release after remove", "ok", lambda w: release(w, removed_permit(w))),
    ("detach after remove", "ok", lambda w: detach(w, attached_then(w, w.exporter.xpmem_remove))),
]


def attached_then(w: World, change: Callable[[int], object]) -> int:
    at = w.attached()
    change(w.segid)
    return at


def touch(w: World, address: int) -> Action:
    return lambda: w.importer.load(address, 8)


def touched_then(w: World, change: Callable[[], object]) -> Action:
    at = w.attached()
    w.importer.load(at, SIZE)
    change()
    return touch(w, at)


def hole(w: World) -> Action:
    at = w.attached()
    w.exporter.munmap(w.base + PAGE, PAGE)
    return touch(w, at + PAGE)


def hole_filled(w: World) -> Action:
    action = hole(w)
    assert outcome_of(action) == "SIGBUS"
    w.exporter.mmap(PAGE, flags=FIXED, address=w.base + PAGE)
    return action


def beside_hole(w: World) -> Action:
    at = w.attached()
    w.exporter.munmap(w.base + PAGE, PAGE)
    return touch(w, at)


def beyond_file(w: World) -> Action:
    w.do(w.exporter, calls.Creat("short", PAGE))
    source = w.exporter.mmap(2 * PAGE, flags=2, file="short")
    segid = w.exporter.xpmem_make(source, 2 * PAGE)
    at = w.importer.xpmem_attach(w.importer.xpmem_get(segid), 0, 2 * PAGE)
    return touch(w, at + PAGE)


def attachment_of_attachment(w: World) -> Action:
    at = w.attached()
    segid = w.importer.xpmem_make(at, SIZE)
    again = w.spawn(0)
    there = again.xpmem_attach(again.xpmem_get(segid), 0, SIZE)
    return lambda: again.load(there, 8)


def source_without_access(w: World) -> Action:
    at = w.attached()
    w.exporter.mprotect(w.base, PAGE, PROT_NONE)
    return touch(w, at)


def home_lost(w: World) -> Action:
    at = w.attached()
    w.importer.load(at, 8)
    w.cluster.crash(0)
    w.cluster.run_until(lambda: w.cluster.kernels[1].xpc.incarnation(0) is None)
    return touch(w, at)


def forked(w: World, what: Callable[[World, tuple[int, SimTask]], Action]) -> Action:
    at = w.attached()
    return what(w, (at, w.importer.fork()))


FAULTS: list[Row] = [
    ("the segment was removed", "SIGBUS", lambda w: touched_then(w, lambda: removed(w))),
    ("the exporter exited", "SIGBUS", lambda w: touched_then(w, w.exporter.exit)),
    ("the exporter closed the device", "SIGBUS", lambda w: touched_then(w, lambda: closed(w))),
    ("a hole", "SIGBUS", hole),
    ("a hole filled later", "ok", hole_filled),
    ("a page beside a hole", "ok", beside_hole),
    ("beyond the end of the file", "SIGBUS", beyond_file),
    ("an attachment of an attachment", "SIGBUS", attachment_of_attachment),
    ("a source that forbids access", "SIGBUS", source_without_access),
    ("the piece cut off by mprotect", "SIGBUS", lambda w: touch(w, split_half(w))),
    ("beside the attachment", "SIGSEGV", lambda w: touch(w, w.attached() + SIZE)),
    ("after detach", "SIGSEGV", lambda w: touch(w, detached(w))),
    ("the home partition is lost", "SIGBUS", home_lost),
    ("madvise(DONTNEED) on an attachment", "EINVAL",
     lambda w: (lambda at: lambda: w.importer.madvise(at, PAGE, MADV_DONTNEED))(w.attached())),
    ("mremap that grows an attachment", "EFAULT",
     lambda w: (lambda at: lambda: w.do(w.importer, calls.Mremap(
         w.importer.pid, at, SIZE, 2 * SIZE)))(w.attached())),
    ("a forked child touches it", "SIGSEGV", lambda w: forked(
        w, lambda w, p: lambda: p[1].load(p[0], 8))),
    ("a forked child makes", "NOPROC", lambda w: forked(
        w, lambda w, p: lambda: p[1].xpmem_make(AT, PAGE))),
    ("a forked child gets", "NOPROC", lambda w: forked(
        w, lambda w, p: lambda: p[1].xpmem_get(w.segid))),
    ("a forked child detaches the parent's", "ok", lambda w: forked(
        w, lambda w, p: lambda: p[1].xpmem_detach(p[0]))),
    ("tunable below 0", "EINVAL", lambda w: lambda: w.do(
        w.importer, calls.XpmemTunable("faults_after", -1))),
    ("tunables that sum to 96", "EINVAL", lambda w: lambda: w.do(
        w.importer, calls.XpmemTunable("faults_after", 80))),
    ("an unknown tunable", "EINVAL", lambda w: lambda: w.do(
        w.importer, calls.XpmemTunable("faults_sideways", 1))),
]  # fmt: skip

TABLE = {
    "make": MAKE,
    "remove": REMOVE,
    "get": GET,
    "attach": ATTACH,
    "detach and release": DETACH_RELEASE,
    "faults and events": FAULTS,
}
