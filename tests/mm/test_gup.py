"""Pinning pages for somebody outside: what is faulted in, what is skipped, what is refused."""

import errno

import pytest

from xpmem_emu.errors import KernelError
from xpmem_emu.mm import (
    AddressSpace,
    DeadOps,
    PinnedRun,
    Prot,
    VmaFlags,
    create_file,
    fork,
    migrate_range,
    munmap,
    pin_pages,
    reclaim_range,
    store,
    unpin_pages,
)
from xpmem_emu.mm.truncate import punch
from xpmem_emu.units import PAGE_SIZE

from .rig import Client, MakeRig, Rig

BASE = 0x10_0000


def pin(rig: Rig, mm: AddressSpace, at: int, pages: int, touched: int = 0) -> list[PinnedRun]:
    return rig.run(pin_pages(mm, at >> 12, pages, (at >> 12) + touched))


def give_back(rig: Rig, runs: list[PinnedRun]) -> None:
    for run in runs:
        unpin_pages(rig.memory, run.frames)


def refusal_of(
    rig: Rig, mm: AddressSpace, at: int, pages: int = 1, touched: int = 0
) -> tuple[int, str]:
    with pytest.raises(KernelError) as refusal:
        pin(rig, mm, at, pages, touched)
    assert rig.audit()["frames_pinned"] == 0
    return refusal.value.errno, refusal.value.cause


def test_absent_pages_are_allocated_and_pinned_where_they_are_mapped(rig: Rig) -> None:
    mm = rig.space()
    at = rig.map(mm, 4)
    (run,) = pin(rig, mm, at, 4, touched=2)
    assert run.first_vpn == at >> 12
    assert run.frames.tolist() == [rig.frame(mm, at + page * PAGE_SIZE) for page in range(4)]
    assert rig.memory.frames.pins[run.frames].tolist() == [1, 1, 1, 1]
    rig.store(mm, at, b"seen through the pin")
    assert bytes(rig.memory.frames.pages[run.frames[0]][:4]) == b"seen"
    give_back(rig, [run])


def test_copy_on_write_is_broken_for_the_exporter_when_it_may_write(rig: Rig) -> None:
    parent = rig.space()
    at = rig.map(parent, 1)
    rig.store(parent, at, b"x")
    child = rig.run(fork(parent, 2))
    (run,) = pin(rig, parent, at, 1)
    assert run.frames.tolist() == [rig.frame(parent, at)] != [rig.frame(child, at)]
    rig.store(parent, at, b"y")
    assert run.frames.tolist() == [rig.frame(parent, at)]
    give_back(rig, [run])


def test_a_private_file_page_is_copied_before_it_is_pinned(rig: Rig) -> None:
    mm, inode = rig.space(), create_file(rig.memory, "f", PAGE_SIZE)
    at = rig.map(mm, 1, inode=inode)
    rig.load(mm, at, 1)
    (run,) = pin(rig, mm, at, 1)
    assert run.frames[0] != inode.frames[0]
    give_back(rig, [run])


def test_read_only_areas_are_pinned_without_write_intent(rig: Rig) -> None:
    mm, inode = rig.space(), create_file(rig.memory, "f", 2 * PAGE_SIZE)
    at = rig.map(mm, 2, inode=inode, prot=Prot.READ)
    (run,) = pin(rig, mm, at, 2)
    assert run.frames.tolist() == inode.frames.tolist()
    assert not inode.dirty.any()
    give_back(rig, [run])


def test_a_pinned_shared_page_counts_as_dirty(rig: Rig) -> None:
    mm, inode = rig.space(), create_file(rig.memory, "f", PAGE_SIZE)
    at = rig.map(mm, 1, inode=inode, flags=VmaFlags.SHARED)
    (run,) = pin(rig, mm, at, 1)
    rig.memory.frames.pages[run.frames[0]][0] = 9
    give_back(rig, [run])
    assert rig.run(reclaim_range(mm, at, PAGE_SIZE, 1)) == 1
    assert rig.load(mm, at, 1) == b"\x09"


def test_swapped_pages_are_brought_back_to_be_pinned(rig: Rig) -> None:
    mm = rig.space()
    at = rig.map(mm, 2)
    rig.store(mm, at, b"s" * 2 * PAGE_SIZE)
    rig.run(reclaim_range(mm, at, 2 * PAGE_SIZE, 2))
    (run,) = pin(rig, mm, at, 2)
    assert bytes(rig.memory.frames.pages[run.frames[1]][:1]) == b"s"
    give_back(rig, [run])


def test_holes_and_unusable_areas_around_the_touched_page_are_skipped(rig: Rig) -> None:
    mm, inode = rig.space(), create_file(rig.memory, "f", PAGE_SIZE)
    page = PAGE_SIZE
    rig.map(mm, 2, address=BASE, fixed=True)
    rig.map(mm, 1, address=BASE + 3 * page, fixed=True, prot=Prot.NONE)
    rig.map(mm, 1, address=BASE + 4 * page, fixed=True, flags=VmaFlags.UNCACHED)
    rig.map(mm, 3, address=BASE + 5 * page, fixed=True, inode=inode)
    rig.map(mm, 1, address=BASE + 8 * page, fixed=True, flags=VmaFlags.IO)
    runs = pin(rig, mm, BASE - page, 12, touched=5)
    shape = [(run.first_vpn - (BASE >> 12), len(run.frames), run.uncached) for run in runs]
    assert shape == [(0, 2, False), (4, 1, True), (5, 1, False)]
    give_back(rig, runs)


def test_no_page_need_be_touched(rig: Rig) -> None:
    mm = rig.space()
    assert rig.run(pin_pages(mm, BASE >> 12, 4, -1)) == []
    rig.map(mm, 1, address=BASE, fixed=True)
    runs = rig.run(pin_pages(mm, BASE >> 12, 4, -1))
    assert [len(run.frames) for run in runs] == [1]
    give_back(rig, runs)


def test_the_touched_page_is_refused_with_its_reason(rig: Rig) -> None:
    mm, inode = rig.space(), create_file(rig.memory, "f", PAGE_SIZE)
    hidden = rig.map(mm, 1, prot=Prot.NONE)
    device = rig.map(mm, 1, flags=VmaFlags.PFNMAP)
    attached = rig.map(mm, 1, flags=VmaFlags.PFNMAP, ops=DeadOps("gone"))
    short = rig.map(mm, 2, inode=inode)
    for at, touched, number, text in (
        (BASE, 0, errno.ENOENT, "nothing is mapped"),
        (attached, 0, errno.ENOENT, "itself an attachment"),
        (hidden, 0, errno.EFAULT, "forbids all access"),
        (device, 0, errno.EFAULT, "no accountable frames"),
        (short, 1, errno.EFAULT, "beyond the end of file f"),
    ):
        got, cause = refusal_of(rig, mm, at, 2, touched)
        assert (got, text in cause) == (number, True), cause


def test_running_out_of_memory_around_the_touched_page_is_not_an_error(make_rig: MakeRig) -> None:
    rig = make_rig(frames=16, swap=0)
    mm = rig.space()
    at = rig.map(mm, 40)
    (run,) = pin(rig, mm, at, 40)
    assert (run.first_vpn, len(run.frames)) == (at >> 12, 15)
    give_back(rig, [run])
    rig.run(munmap(mm, at, 40 * PAGE_SIZE))
    hog = rig.map(mm, 15)
    rig.store(mm, hog, b"h" * 15 * PAGE_SIZE)
    number, _ = refusal_of(rig, mm, rig.map(mm, 1))
    assert number == errno.ENOMEM


def test_fault_around_in_tight_memory_does_not_push_the_touched_page_out(make_rig: MakeRig) -> None:
    rig = make_rig(frames=16, swap=64)
    mm = rig.space()
    at = rig.map(mm, 40)
    rig.store(mm, at, b"t" * 40 * PAGE_SIZE)
    runs = pin(rig, mm, at, 40, touched=20)
    assert any((at >> 12) + 20 in run for run in runs)
    give_back(rig, runs)
    assert rig.load(mm, at, 40 * PAGE_SIZE) == b"t" * 40 * PAGE_SIZE


def test_a_fault_around_that_fails_leaves_nothing_pinned(rig: Rig) -> None:
    mm = rig.space()
    at = rig.map(mm, 4)
    rig.memory.failpoints.set("mm.frames.allocate", "1*off->return(EIO)", 0)
    assert refusal_of(rig, mm, at, pages=4)[0] == errno.EIO
    rig.memory.failpoints.reset()


def test_a_touched_page_that_is_taken_again_is_pinned_at_its_next_frame(rig: Rig) -> None:
    mm, inode = rig.space(), create_file(rig.memory, "f", PAGE_SIZE)
    at = rig.map(mm, 1, inode=inode, flags=VmaFlags.SHARED)
    rig.load(mm, at, 1)
    rig.map(mm, 1, address=at + PAGE_SIZE, fixed=True)
    rig.memory.failpoints.set("mm.frames.allocate", "1*pause", 0)
    pinning = rig.start(pin_pages(mm, at >> 12, 2, at >> 12))
    assert not pinning.done  # the neighbour wants a frame
    rig.run(punch(rig.memory, inode, 0, 1))
    rig.memory.failpoints.reset()
    rig.scheduler.run(rig.scheduler.now_ns)
    runs = pinning.value
    assert runs[0].frames.tolist() == inode.frames.tolist() != [0]
    give_back(rig, runs)


def test_read_ahead_does_not_wait_for_a_page_in_transit(rig: Rig) -> None:
    mm = rig.space()
    at = rig.map(mm, 3)
    rig.store(mm, at, b"x" * 3 * PAGE_SIZE)
    client = Client(rig).attach(mm)
    client.hold()
    moving = rig.start(migrate_range(mm, at + PAGE_SIZE, PAGE_SIZE))
    runs = rig.start(pin_pages(mm, at >> 12, 3, at >> 12)).value
    assert [run.first_vpn - (at >> 12) for run in runs] == [0, 2]
    give_back(rig, runs)
    client.let_go()
    assert moving.done


def test_pinning_waits_for_a_page_in_transit_and_pins_the_new_frame(rig: Rig) -> None:
    mm = rig.space()
    at = rig.map(mm, 1)
    rig.store(mm, at, b"x")
    child = rig.run(fork(mm, 2))
    client = Client(rig, watched=at).attach(mm)
    client.hold()
    writer = rig.start(store(mm, at, b"y"))
    pinning = rig.start(pin_pages(mm, at >> 12, 1, at >> 12))
    assert not pinning.done
    client.let_go()
    assert writer.done
    (run,) = pinning.value
    assert run.frames.tolist() == [rig.frame(mm, at)] != [rig.frame(child, at)]
    give_back(rig, [run])


def test_pinning_waits_for_a_munmap_and_then_finds_the_hole(rig: Rig) -> None:
    mm = rig.space()
    at = rig.map(mm, 1)
    rig.store(mm, at, b"x")
    client = Client(rig, watched=at).attach(mm)
    client.hold()
    unmapping = rig.start(munmap(mm, at, PAGE_SIZE))
    pinning = rig.start(pin_pages(mm, at >> 12, 1, at >> 12))
    assert not pinning.done
    client.let_go()
    assert unmapping.done
    with pytest.raises(KernelError, match="nothing is mapped"):
        _ = pinning.value
