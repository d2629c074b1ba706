"""Swap, reclaim with and without pins, migration, quarantine, running out of memory."""

import errno

import numpy as np
import pytest

from xpmem_emu.errors import KernelError, Signal, Signalled
from xpmem_emu.mm import (
    AddressSpace,
    VmaFlags,
    create_file,
    fork,
    load,
    madvise,
    migrate_frames,
    migrate_range,
    munmap,
    pin_pages,
    pwrite,
    reclaim,
    reclaim_range,
    store,
    unpin_pages,
    writeback,
    zap_page_range,
)
from xpmem_emu.mm.events import FramesFree, Migrated, Reclaimed, SwapOut
from xpmem_emu.mm.extents import numbers
from xpmem_emu.mm.transit import TRANSIT_BATCH
from xpmem_emu.mm.truncate import truncate
from xpmem_emu.units import PAGE_SIZE

from .rig import Client, MakeRig, Rig


def pattern(pages: int) -> bytes:
    return b"".join(bytes([page % 251 + 1]) * PAGE_SIZE for page in range(pages))


def filled(rig: Rig, mm: AddressSpace, pages: int) -> int:
    at = rig.map(mm, pages)
    rig.store(mm, at, pattern(pages))
    return at


def test_swapped_pages_come_back_as_they_went(rig: Rig) -> None:
    mm = rig.space()
    at = filled(rig, mm, 20)
    assert rig.run(reclaim_range(mm, at, 20 * PAGE_SIZE, 20)) == 20
    assert (mm.rss, rig.audit()["swap_in_use"]) == (0, 20)
    assert rig.load(mm, at, 20 * PAGE_SIZE) == pattern(20)
    assert rig.audit()["swap_in_use"] == 0
    assert [event.pages for event in rig.events(SwapOut)] == [20]


def test_reclaim_of_a_range_stops_at_the_number_wanted(rig: Rig) -> None:
    mm = rig.space()
    at = filled(rig, mm, 10)
    assert rig.run(reclaim_range(mm, at, 10 * PAGE_SIZE, 4)) == 4
    assert mm.rss == 6


def test_reclaim_of_a_long_range_looks_at_no_page_beyond_those_wanted(make_rig: MakeRig) -> None:
    rig = make_rig(frames=3 * TRANSIT_BATCH, swap=TRANSIT_BATCH)
    mm, pages = rig.space(), 2 * TRANSIT_BATCH
    at = filled(rig, mm, pages)
    assert rig.run(reclaim_range(mm, at, pages * PAGE_SIZE, 4)) == 4
    assert [event.tried for event in rig.events(Reclaimed)] == [4]


def test_a_page_shared_by_fork_is_swapped_once_and_read_by_both(rig: Rig) -> None:
    parent = rig.space()
    at = filled(rig, parent, 2)
    child = rig.run(fork(parent, 2))
    assert rig.run(reclaim_range(child, at, 2 * PAGE_SIZE, 2)) == 2
    assert (parent.rss, rig.audit()["swap_in_use"]) == (0, 2)
    rig.store(parent, at, b"\xff")
    assert rig.load(child, at, 2 * PAGE_SIZE) == pattern(2)
    assert rig.load(parent, at, 2) == b"\xff\x01"
    grandchild = rig.run(fork(parent, 3))
    assert rig.load(grandchild, at + PAGE_SIZE, 1) == b"\x02"


def test_unmapping_swapped_pages_frees_their_slots(rig: Rig) -> None:
    mm = rig.space()
    at = filled(rig, mm, 8)
    rig.run(reclaim_range(mm, at, 8 * PAGE_SIZE, 8))
    rig.run(munmap(mm, at + PAGE_SIZE, 3 * PAGE_SIZE))
    assert rig.audit()["swap_in_use"] == 5


def test_more_memory_than_there_is_works_through_swap(make_rig: MakeRig) -> None:
    rig = make_rig(frames=32, swap=96)
    mm = rig.space()
    at = filled(rig, mm, 100)
    assert rig.load(mm, at, 100 * PAGE_SIZE) == pattern(100)
    assert rig.audit()["swap_in_use"] > 60


def test_out_of_memory_kills_the_access_and_says_so(make_rig: MakeRig) -> None:
    rig = make_rig(frames=16, swap=2)
    mm = rig.space()
    at = rig.map(mm, 40)
    with pytest.raises(Signalled, match="out of memory") as raised:
        rig.run(store(mm, at, pattern(40)))
    assert raised.value.info.signal is Signal.SIGKILL
    rig.run(munmap(mm, at + 8 * PAGE_SIZE, 32 * PAGE_SIZE))
    assert rig.load(mm, at, 8 * PAGE_SIZE) == pattern(8)


def test_clean_file_pages_are_dropped_without_any_swap(make_rig: MakeRig) -> None:
    rig = make_rig(frames=24, swap=0)
    mm, inode = rig.space(), create_file(rig.memory, "f", 60 * PAGE_SIZE)
    rig.run(pwrite(rig.memory, inode, 0, pattern(60)))
    at = rig.map(mm, 60, inode=inode, flags=VmaFlags.SHARED)
    assert rig.load(mm, at, 60 * PAGE_SIZE) == pattern(60)
    rig.store(mm, at, pattern(60)[::-1])
    assert rig.load(mm, at, 60 * PAGE_SIZE) == pattern(60)[::-1]


def test_copies_of_file_pages_are_broken_even_when_memory_is_tight(make_rig: MakeRig) -> None:
    rig = make_rig(frames=16, swap=96)
    mm, inode = rig.space(), create_file(rig.memory, "f", 40 * PAGE_SIZE)
    at = rig.map(mm, 40, inode=inode)
    rig.load(mm, at, 40 * PAGE_SIZE)
    rig.store(mm, at, pattern(40))
    child = rig.run(fork(mm, 2))
    rig.store(child, at, b"\xee" * 20 * PAGE_SIZE)
    assert rig.load(mm, at, 40 * PAGE_SIZE) == pattern(40)
    assert rig.load(child, at + 19 * PAGE_SIZE, 2 * PAGE_SIZE)[::PAGE_SIZE] == b"\xee\x15"


def test_a_store_into_pages_of_a_file_leaves_room_to_read_them_in(make_rig: MakeRig) -> None:
    rig = make_rig(frames=16, swap=96)
    mm, inode = rig.space(), create_file(rig.memory, "f", 40 * PAGE_SIZE)
    at = rig.map(mm, 40, inode=inode)
    rig.store(mm, at, pattern(40))
    assert rig.load(mm, at, 40 * PAGE_SIZE) == pattern(40)


def test_a_page_that_is_swapped_out_to_make_room_for_its_own_copy_survives(
    make_rig: MakeRig,
) -> None:
    rig = make_rig(frames=16, swap=32)
    parent = rig.space()
    at = filled(rig, parent, 15)
    child = rig.run(fork(parent, 2))
    rig.store(child, at + 1, b"\xee")
    assert rig.load(child, at, 3) == b"\1\xee\1"
    assert rig.load(parent, at, 3) == b"\1\1\1"
    assert rig.load(child, at + PAGE_SIZE, 14 * PAGE_SIZE) == pattern(15)[PAGE_SIZE:]


def test_a_pinned_page_is_kept_when_its_holder_insists(rig: Rig) -> None:
    mm = rig.space()
    at = filled(rig, mm, 3)
    (run,) = rig.run(pin_pages(mm, at >> 12, 1, at >> 12))
    frame = rig.frame(mm, at)
    assert rig.run(reclaim_range(mm, at, 3 * PAGE_SIZE, 3)) == 2
    assert rig.run(migrate_range(mm, at, 3 * PAGE_SIZE)) == 0
    assert rig.frame(mm, at) == frame
    rig.run(munmap(mm, at, 3 * PAGE_SIZE))
    assert rig.memory.frames.refcount[frame] == 1
    assert bytes(rig.memory.frames.pages[frame][:2]) == b"\1\1"
    unpin_pages(rig.memory, run.frames)
    assert rig.audit()["frames_in_use"] == 0


def test_a_pinned_page_is_taken_when_its_holder_lets_go_at_the_sync(rig: Rig) -> None:
    mm = rig.space()
    at = filled(rig, mm, 2)
    client = Client(rig, watched=at).attach(mm)
    client.pins = [run.frames for run in rig.run(pin_pages(mm, at >> 12, 2, at >> 12))]
    assert rig.run(reclaim(rig.memory, 2)) == 2
    assert client.kinds() == ["invalidate", "sync"]
    assert rig.audit()["frames_pinned"] == 0
    assert rig.load(mm, at, 2 * PAGE_SIZE) == pattern(2)


def test_reclaim_prefers_pages_that_nobody_pins(make_rig: MakeRig) -> None:
    rig = make_rig(frames=256, swap=128)
    mm = rig.space()
    at = filled(rig, mm, 64)
    (run,) = rig.run(pin_pages(mm, at >> 12, 32, at >> 12))
    client = Client(rig).attach(mm)
    assert rig.run(reclaim(rig.memory, 32)) == 32
    assert all(start >= at + 32 * PAGE_SIZE for _, start, _ in client.calls)
    assert rig.events(Reclaimed) == [Reclaimed(tried=32, freed=32)]
    unpin_pages(rig.memory, run.frames)


def test_what_an_importer_stores_before_the_sync_is_swapped_out_too(rig: Rig) -> None:
    mm = rig.space()
    at = filled(rig, mm, 1)
    client = Client(rig, watched=at).attach(mm)
    client.hold()
    work = rig.start(reclaim_range(mm, at, PAGE_SIZE, 1))
    rig.memory.frames.pages[rig.frame(mm, at)][7] = 0xEE
    reader = rig.start(load(mm, at, 8))
    assert not reader.done
    client.let_go()
    assert work.value == 1
    assert reader.value == b"\1" * 7 + b"\xee"


def test_migration_moves_contents_and_every_mapping(rig: Rig) -> None:
    parent = rig.space()
    at = filled(rig, parent, 4)
    child = rig.run(fork(parent, 2))
    shared = rig.shared(parent, 2)
    rig.store(parent, shared, b"shared")
    before = rig.frame(parent, shared)
    assert rig.run(migrate_range(parent, shared, 2 * PAGE_SIZE)) == 1
    assert rig.frame(parent, shared) != before
    before = rig.frame(parent, at)
    assert rig.run(migrate_range(parent, at, 4 * PAGE_SIZE)) == 4
    assert rig.frame(child, at) == rig.frame(parent, at) != before
    assert rig.load(child, at, 4 * PAGE_SIZE) == pattern(4)
    assert rig.load(parent, shared, 6) == b"shared"
    assert (rig.memory.frames.pages[before] == 0x6B).all()
    assert rig.events(Migrated) == [Migrated(tried=1, moved=1), Migrated(tried=4, moved=4)]


def test_a_fault_on_a_migrating_page_waits_and_finds_the_new_frame(rig: Rig) -> None:
    mm = rig.space()
    at = filled(rig, mm, 1)
    old = rig.frame(mm, at)
    client = Client(rig, watched=at).attach(mm)
    client.hold()
    move = rig.start(migrate_range(mm, at, PAGE_SIZE))
    writer = rig.start(store(mm, at, b"after"))
    assert not writer.done
    client.let_go()
    assert move.value == 1
    assert writer.done
    assert rig.frame(mm, at) != old
    assert rig.load(mm, at, 6) == b"after\1"


def test_a_file_page_mapped_anew_during_migration_stays_where_it_is(rig: Rig) -> None:
    mm, other = rig.space(1), rig.space(2)
    inode = create_file(rig.memory, "f", PAGE_SIZE)
    first = rig.map(mm, 1, inode=inode, flags=VmaFlags.SHARED)
    second = rig.map(other, 1, inode=inode, flags=VmaFlags.SHARED)
    rig.store(mm, first, b"x")
    client = Client(rig, watched=first).attach(mm)
    client.hold()
    move = rig.start(migrate_range(mm, first, PAGE_SIZE))
    rig.store(other, second, b"y")
    client.let_go()
    assert move.value == 0
    assert rig.load(mm, first, 1) == b"y"
    assert rig.frame(mm, first) == rig.frame(other, second)


def test_quarantined_frames_are_left_behind_and_stay_out_of_the_allocator(rig: Rig) -> None:
    mm = rig.space()
    at = filled(rig, mm, 3)
    frames = np.array([rig.frame(mm, at + page * PAGE_SIZE) for page in range(3)])
    rig.memory.frames.quarantine(frames)
    assert rig.run(migrate_frames(rig.memory, frames)) == 3
    rig.memory.frames.pages[frames] = 0xBD  # the lost importer wakes up and stores
    assert rig.load(mm, at, 3 * PAGE_SIZE) == pattern(3)
    assert rig.audit()["frames_quarantined"] == 3
    assert rig.events(FramesFree) == []
    rig.memory.frames.release_quarantined(frames)
    assert rig.audit()["frames_in_use"] == 3


def test_migration_without_a_free_frame_is_enomem_and_loses_nothing(make_rig: MakeRig) -> None:
    rig = make_rig(frames=16, swap=0)
    mm = rig.space()
    at = filled(rig, mm, 15)
    with pytest.raises(KernelError) as refusal:
        rig.run(migrate_range(mm, at, PAGE_SIZE))
    assert refusal.value.errno == errno.ENOMEM
    assert rig.load(mm, at, 15 * PAGE_SIZE) == pattern(15)


def test_two_reclaimers_do_not_take_the_same_page(rig: Rig) -> None:
    mm = rig.space()
    at = filled(rig, mm, 4)
    client = Client(rig).attach(mm)
    client.hold()
    works = [rig.start(reclaim_range(mm, at, 4 * PAGE_SIZE, 4)) for _ in range(2)]
    client.let_go()
    assert sorted(work.value for work in works) == [0, 4]
    assert rig.load(mm, at, 4 * PAGE_SIZE) == pattern(4)


@pytest.mark.parametrize("how", ["truncate", "remove"])
def test_reclaim_leaves_alone_what_a_file_is_giving_up(rig: Rig, how: str) -> None:
    mm, inode = rig.space(), create_file(rig.memory, "f", 4 * PAGE_SIZE)
    at = rig.map(mm, 4, inode=inode, flags=VmaFlags.SHARED)
    rig.store(mm, at, pattern(4))
    rig.run(zap_page_range(mm, at + 2 * PAGE_SIZE, 2 * PAGE_SIZE))  # cached, but not mapped
    client = Client(rig, watched=at).attach(mm)
    client.hold()
    cut = rig.start(
        truncate(rig.memory, inode, 0) if how == "truncate" else madvise(mm, at, 4 * PAGE_SIZE, 9)
    )
    assert rig.run(reclaim(rig.memory, 10)) == 0
    assert rig.run(migrate_frames(rig.memory, np.arange(1, 9))) == 0
    assert rig.events(FramesFree) == [FramesFree(count=8, extents=[(5, 8)])]
    client.let_go()
    assert cut.done
    assert rig.audit()["frames_in_use"] == 0


def test_an_access_waits_for_frames_that_are_about_to_be_freed(make_rig: MakeRig) -> None:
    rig = make_rig(frames=16, swap=0)
    mm = rig.space()
    at = filled(rig, mm, 15)
    other = rig.space(2)
    wanted = rig.map(other, 2)
    client = Client(rig, watched=at).attach(mm)
    client.hold()
    rig.start(munmap(mm, at, 15 * PAGE_SIZE))
    writer = rig.start(store(other, wanted, b"at last"))
    assert not writer.done
    client.let_go()
    assert writer.done
    assert rig.load(other, wanted, 7) == b"at last"


def test_who_reads_a_file_in_waits_for_no_writeback_that_waits_for_it(make_rig: MakeRig) -> None:
    rig = make_rig(frames=16, swap=16)
    mm, other, inode = rig.space(1), rig.space(2), create_file(rig.memory, "f", PAGE_SIZE)
    at = filled(rig, mm, 15)
    (run,) = rig.run(pin_pages(mm, at >> 12, 15, at >> 12))
    client = Client(rig, watched=at).attach(mm)
    client.hold()
    reader = rig.start(load(other, rig.map(other, 1, inode=inode), 1))  # it reclaims
    work = rig.start(writeback(rig.memory, inode))
    client.let_go()  # of nothing: every page is pinned
    assert work.value == 0
    with pytest.raises(Signalled, match="out of memory"):
        _ = reader.value
    unpin_pages(rig.memory, run.frames)


def test_frames_in_quarantine_are_not_taken_for_free_memory(make_rig: MakeRig) -> None:
    rig = make_rig(frames=16, swap=16)
    mm = rig.space()
    at = filled(rig, mm, 15)
    frames = np.arange(1, 16)
    rig.memory.frames.quarantine(frames)
    with pytest.raises(Signalled, match="out of memory"):
        rig.store(mm, rig.map(mm, 1), b"x")
    assert rig.audit()["swap_in_use"] == 15
    rig.memory.frames.release_quarantined(frames)
    assert rig.load(mm, at, 15 * PAGE_SIZE) == pattern(15)


class Insistent(Client):
    """A notifier that takes its time and keeps the pins it has."""

    async def invalidate_range_sync(self, start: int, end: int) -> None:
        await self.rig.scheduler.sleep_until(self.rig.scheduler.now_ns + 10)


@pytest.mark.parametrize("allocators", [1, 2, 3, 5])
def test_allocators_that_can_reclaim_nothing_give_up_instead_of_waiting_for_each_other(
    make_rig: MakeRig, allocators: int
) -> None:
    rig = make_rig(frames=32, swap=8)
    mm = rig.space()
    address = rig.map(mm, 31 + allocators)
    rig.store(mm, address, b"x" * 31 * PAGE_SIZE)
    Insistent(rig).attach(mm)
    rig.memory.frames.pin(numbers(1, 31))
    fresh = [address + (31 + each) * PAGE_SIZE for each in range(allocators)]
    begun = []
    for place in fresh:
        begun.append(rig.start(load(mm, place, 1)))
        rig.scheduler.run(rig.scheduler.now_ns + 3)
    for _ in range(100):
        if (deadline := rig.scheduler.next_deadline_ns()) is not None:
            rig.scheduler.run(deadline)
    assert all(each.done for each in begun)
    for each in begun:
        with pytest.raises(Signalled, match="out of memory"):
            _ = each.value
    rig.memory.frames.unpin(numbers(1, 31))
    for _ in range(100):
        if (deadline := rig.scheduler.next_deadline_ns()) is not None:
            rig.scheduler.run(deadline)
    mm.notifiers.registered.clear()
