"""Every call with every argument at the borders of its type: an answer and never a panic; and for
the calls that Linux has, the answer is Linux's."""

import errno
from collections.abc import Iterator
from itertools import combinations
from typing import get_args

import msgspec
import pytest
from msgspec.structs import fields, replace

from tests.xpmem.world import AT, FIXED, PAGE, PAGES, World, outcome_of
from xpmem_emu.kernel import breaking, calls, device_calls
from xpmem_emu.kernel.breaking import Breaking, BreakingCall
from xpmem_emu.kernel.calls import (
    MADV_DONTNEED,
    MADV_REMOVE,
    MAP_ANONYMOUS,
    MAP_SHARED,
    AnyCall,
    Call,
)
from xpmem_emu.sim.cluster import SimCluster
from xpmem_emu.sim.task import SimTask
from xpmem_emu.units import TASK_SIZE

SIZE = PAGES * PAGE
TOP = TASK_SIZE - PAGE
U64_MAX = (1 << 64) - 1
WORDS = (
    0,
    1,
    PAGE - 1,
    PAGE,
    TOP,
    TASK_SIZE,
    1 << 47,
    (1 << 63) - 1,
    1 << 63,
    U64_MAX - 4095,
    U64_MAX,
)
NEGATIVE = (-1, -PAGE, -(1 << 63))
LATER = (calls.Shutdown, breaking.CrashKernel, breaking.RawLoad, calls.Exit, calls.Kill, calls.Exec)
"""Calls without an argument to stretch, or that end what the others work on."""


def usual(world: World, at: int, apid: int) -> list[Call]:
    """One call of each kind that works, or nearly."""
    e, i, base, segid = world.exporter.pid, world.importer.pid, world.base, world.segid
    return [
        calls.Spawn(),
        calls.Fork(e),
        calls.Setuid(e, 1000),
        calls.Mmap(e, PAGE),
        calls.Mmap(e, PAGE, 3, FIXED, AT),
        calls.Mmap(e, PAGE, 3, MAP_SHARED, 0, "f"),
        calls.Mmap(e, PAGE, 3, MAP_SHARED | MAP_ANONYMOUS),
        calls.Munmap(e, AT, PAGE),
        calls.Mprotect(e, base, PAGE, 3),
        calls.Madvise(e, base, PAGE, MADV_DONTNEED),
        calls.Madvise(e, base, PAGE, MADV_REMOVE),
        calls.Madvise(e, base, PAGE, 21),
        calls.Mremap(e, base, PAGE, PAGE),
        calls.Load(e, base, 8),
        calls.Load(i, at, 8),
        calls.Store(e, base),
        calls.Store(i, at),
        calls.AtomicOp(e, base, "add"),
        calls.AtomicOp(i, at, "add"),
        calls.ZapPageRange(e, base, PAGE),
        calls.Creat("g", 1),
        calls.Pwrite("f", 1),
        calls.Pread("f", 0, 1),
        calls.Truncate("f", PAGE),
        calls.Unlink("h"),
        calls.Writeback("f"),
        calls.Reclaim(1, e, base, PAGE),
        calls.Migrate(e, base, PAGE),
        calls.XpmemVersion(),
        calls.XpmemOpen(e),
        calls.XpmemMake(e, base, PAGE),
        calls.XpmemRemove(e, 1),
        calls.XpmemGet(i, segid),
        calls.XpmemRelease(i, 1),
        calls.XpmemAttach(i, apid, 0, PAGE),
        calls.XpmemDetach(i, 1),
        calls.XpmemCopy(i, apid, 0, apid, 4 * PAGE, PAGE),
        calls.XpmemForkBegin(e),
        calls.XpmemForkEnd(e),
        calls.XpmemFind("x"),
        calls.XpmemTunable("faults_after", 32),
        *(of_devices(e, base) + of_devices(i, at)),
        calls.Look("pins"),
        calls.Describe("1"),
        calls.Pagetable(e, base),
        calls.Status(),
        calls.Audit(),
        calls.XpmemClose(world.bare(0).pid),
        breaking.FailpointSet("xpc.call.begin", "off", 1),
        breaking.FailpointClear(),
        breaking.FailpointResume("xpc.call.begin"),
        breaking.ListFailpoints(),
        breaking.Poison(1, 7),
        breaking.Unpoison(1, 7),
        breaking.Strain("pin_limit", 0),
    ]


def of_devices(pid: int, at: int) -> list[Call]:
    """Those about devices of a task, with memory there."""
    return [
        device_calls.GruAttach(pid),
        device_calls.GuestAttach(pid),
        device_calls.GuestSlot(pid, 0, PAGE, at),
        device_calls.MirrorAttach(pid, at, PAGE),
        device_calls.DeviceLoad(pid, "gru", at, 8),
        device_calls.DeviceStore(pid, "guest", 0),
        device_calls.BteCopy(pid, at, at + PAGE, 8),
        device_calls.DeviceDetach(pid, "mirror"),
    ]


def stretched(call: Call) -> Iterator[Call]:
    """The call with one or two of its numbers at a border, as far as their types let through."""
    kind = type(call)
    numbers = [
        field.name
        for field in fields(kind)
        if type(getattr(call, field.name)) is int and field.name != "pid"
    ]
    values = (*WORDS, *NEGATIVE)
    changes: list[dict[str, int]] = [{name: value} for name in numbers for value in values]
    changes += [
        {one: first, other: second}
        for one, other in combinations(numbers, 2)
        for first in values
        for second in values
    ]
    for change in changes:
        try:
            yield msgspec.convert(msgspec.to_builtins(replace(call, **change)), kind)
        except msgspec.ValidationError:
            continue


def test_no_kind_of_call_is_left_out(cluster: SimCluster) -> None:
    tried = {type(call) for call in usual(World(cluster), AT, 1)}
    assert {*get_args(AnyCall), *get_args(BreakingCall)} - tried == set(LATER)


@pytest.mark.parametrize("pid", [0, 999, (1 << 20) - 1])
def test_a_call_of_no_task_is_answered(cluster: SimCluster, pid: int) -> None:
    for call in usual(*stage(cluster)):
        if hasattr(call, "pid"):
            call = replace(call, pid=pid)
            for_all = isinstance(call, calls.Reclaim) and not pid
            outcome = outcome_of(lambda: cluster.call(0, call, b"12345678"))  # noqa: B023
            assert outcome == ("ok" if for_all else "ESRCH"), call


def test_arguments_at_the_borders_of_their_types_are_answered(unaudited: SimCluster) -> None:
    cluster = unaudited
    cluster.call(0, calls.Creat("f", 2 * PAGE))
    scene: tuple[World, int, int] | None = None
    tried = 0
    for number in range(len(usual(World(cluster), AT, 1))):
        for call in stretched(usual(*(scene or stage(cluster)))[number]):
            scene = scene or stage(cluster)
            who = 1 if getattr(call, "pid", 0) == scene[0].importer.pid else 0
            before = cluster.now_ns
            ticket = cluster.submit(who, call, b"12345678")
            cluster.run_until(lambda: ticket.ended)  # noqa: B023
            assert cluster.kernels[0].stopped is cluster.kernels[1].stopped is None, call
            assert cluster.now_ns - before < 1_000_000_000, call
            tried += 1
            if tried % 100 == 0:
                assert {partid: cluster.audit(partid)["calls"] for partid in (0, 1)} == {0: 1, 1: 1}
            if not isinstance(call, Breaking):
                alive = all(cluster.kernels[p].tasks.get(t.pid) for p, t in cast(scene[0]))
                scene = scene if alive else None
    assert tried > 5000


def cast(world: World) -> list[tuple[int, SimTask]]:
    return [(0, world.exporter), (1, world.importer)]


def stage(cluster: SimCluster) -> tuple[World, int, int]:
    """A fresh cast: the one before may have killed itself."""
    for partid in (0, 1):
        for task in cluster.kernels[partid].tasks:
            cluster.call(partid, calls.Kill(task.pid))
    world = World(cluster)
    apid = world.permit()
    return world, world.importer.xpmem_attach(apid, 0, SIZE, AT), apid


LINUX: list[tuple[str, Call, str]] = [
    ("mmap of no bytes", calls.Mmap(0, 0), "EINVAL"),
    ("mmap of more than there is", calls.Mmap(0, TASK_SIZE), "ENOMEM"),
    ("mmap of everything", calls.Mmap(0, U64_MAX), "ENOMEM"),
    ("mmap at the very top", calls.Mmap(0, PAGE, 3, FIXED, TOP), "ok"),
    ("mmap over the top", calls.Mmap(0, 2 * PAGE, 3, FIXED, TOP), "ENOMEM"),
    ("mmap far beyond, unaligned", calls.Mmap(0, PAGE, 3, FIXED, U64_MAX), "ENOMEM"),
    ("mmap below mmap_min_addr", calls.Mmap(0, PAGE, 3, FIXED, 0), "EPERM"),
    ("mmap with a hint beyond", calls.Mmap(0, PAGE, address=U64_MAX), "ok"),
    ("mmap of a file beyond any", calls.Mmap(0, PAGE, 3, 1, 0, "f", (1 << 63)), "EOVERFLOW"),
    ("mmap of a file's last page", calls.Mmap(0, PAGE, 3, 1, 0, "f", (1 << 63) - PAGE), "ok"),
    ("munmap of no bytes", calls.Munmap(0, AT, 0), "EINVAL"),
    ("munmap that wraps", calls.Munmap(0, PAGE, U64_MAX), "EINVAL"),
    ("munmap over the top", calls.Munmap(0, TOP, 2 * PAGE), "EINVAL"),
    ("munmap of everything", calls.Munmap(0, 0, TASK_SIZE), "ok"),
    ("mprotect of no bytes beyond the top", calls.Mprotect(0, 1 << 63, 0, 3), "ok"),
    ("mprotect over the top", calls.Mprotect(0, TOP, 2 * PAGE, 3), "ENOMEM"),
    ("mprotect that wraps", calls.Mprotect(0, PAGE, U64_MAX, 3), "ENOMEM"),
    ("madvise of no bytes beyond the top", calls.Madvise(0, 1 << 63, 0, 4), "ok"),
    ("madvise over the top", calls.Madvise(0, TOP, 2 * PAGE, 4), "ENOMEM"),
    ("madvise that wraps", calls.Madvise(0, U64_MAX - 4095, PAGE, 4), "EINVAL"),
    ("madvise unaligned", calls.Madvise(0, 1, PAGE, 4), "EINVAL"),
    ("mremap from nowhere", calls.Mremap(0, 1 << 63, PAGE, PAGE), "EFAULT"),
    ("mremap to a length that rounds to 0", calls.Mremap(0, 1 << 63, PAGE, U64_MAX), "EINVAL"),
    ("pread before the file", calls.Pread("f", 1 << 63, 1), "EINVAL"),
    ("pread behind the file", calls.Pread("f", (1 << 63) - 1, 1), "ok"),
    ("pwrite before the file", calls.Pwrite("f", 1 << 63), "EINVAL"),
    ("pwrite far behind the file", calls.Pwrite("f", (1 << 63) - 1), "EFBIG"),
    ("truncate to a negative size", calls.Truncate("f", 1 << 63), "EINVAL"),
    ("truncate to more than a disk", calls.Truncate("f", (1 << 63) - 1), "EFBIG"),
    ("setuid to nobody", calls.Setuid(0, (1 << 32) - 1), "EINVAL"),
    ("setgroups to nobody", calls.Setuid(0, 0, [1 << 32]), "EINVAL"),
    ("load beyond the top", calls.Load(0, TASK_SIZE, 1), "SIGSEGV"),
    ("load at the last address", calls.Load(0, U64_MAX, 1), "SIGSEGV"),
    ("poison of the reserved frame", breaking.Poison(1, 0), "EINVAL"),
    ("poison of another partition's number", breaking.Poison(1, 1 << 38 | 5), "EINVAL"),
    ("poison beyond a peer's memory", breaking.Poison(1, 1 << 37), "EINVAL"),
    ("poison of no partition", breaking.Poison(77, 5), "EINVAL"),
    ("unpoison beyond a peer's memory", breaking.Unpoison(1, 1 << 37), "EINVAL"),
    ("strain beyond every bound", breaking.Strain("number", 1 << 40), "EINVAL"),
    ("make beyond the top", calls.XpmemMake(0, 1 << 47, U64_MAX), "EINVAL"),
    ("make of a page that wraps", calls.XpmemMake(0, U64_MAX - 4095, PAGE), "EINVAL"),
    ("make of everything", calls.XpmemMake(0, 0, U64_MAX), "ok"),
]


@pytest.mark.parametrize(
    ("call", "expected"), [row[1:] for row in LINUX], ids=[row[0] for row in LINUX]
)
def test_the_answer_at_a_border_is_linuxs(cluster: SimCluster, call: Call, expected: str) -> None:
    cluster.call(0, calls.Creat("f", PAGE))
    task = cluster.spawn(0)
    call = replace(call, pid=task.pid) if hasattr(call, "pid") else call
    assert outcome_of(lambda: cluster.call(0, call, b"x")) == expected


def test_a_store_over_the_top_of_the_address_space_stops_there(cluster: SimCluster) -> None:
    task = cluster.spawn(0)
    task.mmap(PAGE, flags=FIXED, address=TOP)
    assert outcome_of(lambda: task.store(TASK_SIZE - 4, b"12345678")) == "SIGSEGV"
    assert task.load(TASK_SIZE - 4, 4) == b"1234"


def test_an_empty_write_changes_nothing_wherever_it_is(cluster: SimCluster) -> None:
    cluster.call(0, calls.Creat("f", 10))
    cluster.call(0, calls.Pwrite("f", 1 << 20), b"")
    assert cluster.call(0, calls.Look("files")).value[0]["size"] == 10


@pytest.mark.parametrize(
    ("flags", "prot", "file", "expected"),
    [
        (MAP_SHARED, 3, "f", 0),
        (MAP_SHARED, 1, "f", errno.EACCES),
        (calls.MAP_PRIVATE, 3, "f", errno.EACCES),
        (MAP_SHARED | MAP_ANONYMOUS, 3, "", 0),
        (MAP_SHARED | MAP_ANONYMOUS, 1, "", errno.EACCES),
        (calls.MAP_PRIVATE | MAP_ANONYMOUS, 3, "", errno.EINVAL),
    ],
)
def test_a_hole_is_made_only_where_stores_would_reach(
    cluster: SimCluster, flags: int, prot: int, file: str, expected: int
) -> None:
    cluster.call(0, calls.Creat("f", PAGE))
    cluster.call(0, calls.Pwrite("f", 0), b"bytes")
    task = cluster.spawn(0)
    at = task.mmap(PAGE, prot, flags, 0, file)
    name = errno.errorcode.get(expected, "ok")
    assert outcome_of(lambda: task.madvise(at, PAGE, MADV_REMOVE)) == name
    kept = bytes(cluster.call(0, calls.Pread("f", 0, 5)).bulk)
    assert kept == (b"bytes" if expected or not file else bytes(5))
