"""Demand zero, signals, fork and copy on write, kills."""

import pytest

from xpmem_emu.errors import KernelError, Signal, Signalled
from xpmem_emu.mm import (
    MapRequest,
    Prot,
    Remap,
    VmaFlags,
    create_file,
    exit_mmap,
    fork,
    load,
    madvise,
    migrate_range,
    mmap,
    mprotect,
    mremap,
    munmap,
    pin_pages,
    store,
    walk_word,
    zap_page_range,
)
from xpmem_emu.mm import pte as entries
from xpmem_emu.mm.atomic import AmoOperation, atomic
from xpmem_emu.mm.events import Cow, PageFault
from xpmem_emu.mm.memory_failure import poison_frame, unpoison_frame
from xpmem_emu.units import PAGE_SIZE, TASK_SIZE

from .rig import PARTID, RW, Client, MakeRig, Rig, Work


def signal_of(rig: Rig, access: Work) -> tuple[Signal, str]:
    with pytest.raises(Signalled) as raised:
        rig.run(access)
    return raised.value.info.signal, raised.value.info.reason


def test_memory_is_zero_until_it_is_written_and_then_keeps_its_bytes(rig: Rig) -> None:
    mm = rig.space()
    at = rig.map(mm, 3)
    assert mm.rss == 0
    assert rig.load(mm, at + 5, PAGE_SIZE) == bytes(PAGE_SIZE)
    rig.store(mm, at + PAGE_SIZE - 2, b"abcd")
    assert rig.load(mm, at + PAGE_SIZE - 3, 6) == b"\0abcd\0"
    assert mm.rss == 2


def test_reused_frames_show_nothing_of_their_past(rig: Rig) -> None:
    mm = rig.space()
    at = rig.map(mm, 1)
    rig.store(mm, at, b"secret")
    frame = rig.frame(mm, at)
    rig.run(munmap(mm, at, PAGE_SIZE))
    again = rig.map(mm, 1)
    assert rig.load(mm, again, 6) == bytes(6)
    assert rig.frame(mm, again) == frame


def test_entries_carry_the_global_frame_number(rig: Rig) -> None:
    mm = rig.space()
    at = rig.map(mm, 1, flags=VmaFlags.UNCACHED)
    rig.store(mm, at, b"x")
    entry = mm.page_table.walk(at >> 12)
    assert entry >> 12 >> 38 == PARTID
    assert entry & entries.UNCACHED
    assert entry & entries.WRITE


def test_accesses_that_nothing_allows_are_sigsegv(rig: Rig) -> None:
    mm = rig.space()
    readable = rig.map(mm, 1, prot=Prot.READ)
    hidden = rig.map(mm, 1, prot=Prot.NONE)
    assert signal_of(rig, load(mm, 0x10_0000, 1)) == (Signal.SIGSEGV, "nothing is mapped there")
    assert signal_of(rig, store(mm, readable, b"x"))[0] is Signal.SIGSEGV
    assert "forbids" in signal_of(rig, load(mm, hidden, 1))[1]
    assert signal_of(rig, load(mm, TASK_SIZE - 4, 8))[0] is Signal.SIGSEGV
    assert rig.load(mm, readable, 1) == b"\0"


def test_what_is_loaded_of_present_pages_is_copied_once(rig: Rig) -> None:
    """Bytes are sent as they are; what could still change is copied again."""
    mm = rig.space()
    at = rig.map(mm, 3)
    rig.store(mm, at, b"12" * (3 * PAGE_SIZE // 2))
    data = rig.run(load(mm, at + 1, 2 * PAGE_SIZE))
    assert (type(data), data) == (bytes, b"21" * PAGE_SIZE)


def test_protection_can_be_taken_and_given_back_without_losing_the_page(rig: Rig) -> None:
    mm = rig.space()
    at = rig.map(mm, 2)
    rig.store(mm, at, b"kept")
    for prot, last in ((Prot.READ, b"kept"), (Prot.NONE, None), (RW, b"kept")):
        rig.run(mprotect(mm, at, PAGE_SIZE, prot))
        if last is None:
            assert signal_of(rig, load(mm, at, 4))[0] is Signal.SIGSEGV
        else:
            assert rig.load(mm, at, 4) == last
        if not prot & Prot.WRITE:
            assert signal_of(rig, store(mm, at, b"x"))[0] is Signal.SIGSEGV
    rig.store(mm, at, b"more")
    assert rig.load(mm, at, 4) == b"more"


def test_a_store_fills_a_long_range_with_few_faults(make_rig: MakeRig) -> None:
    rig = make_rig(frames=1200)
    mm = rig.space()
    at = rig.map(mm, 1100)
    data = bytes(range(256)) * (1100 * 16 - 1)
    rig.store(mm, at + 100, data)
    assert rig.load(mm, at + 100, len(data)) == data
    assert [event.pages for event in rig.events(PageFault)] == [1024, 76]


def test_fork_shares_frames_until_one_side_writes(rig: Rig) -> None:
    parent = rig.space()
    at = rig.map(parent, 3)
    rig.store(parent, at, b"before" + bytes(2 * PAGE_SIZE))
    child = rig.run(fork(parent, 2))
    assert rig.frame(parent, at) == rig.frame(child, at) != 0
    rig.store(child, at, b"child!")
    assert rig.frame(parent, at) != rig.frame(child, at)
    assert rig.load(parent, at, 6) == b"before"
    assert rig.load(child, at, 6) == b"child!"
    assert rig.events(Cow) == [Cow(pid=2, address=at, pages=1)]


def test_the_last_one_to_write_reuses_the_frame(rig: Rig) -> None:
    parent = rig.space()
    at = rig.map(parent, 1)
    rig.store(parent, at, b"x")
    frame = rig.frame(parent, at)
    child = rig.run(fork(parent, 2))
    rig.store(child, at, b"y")
    rig.store(parent, at, b"z")
    assert rig.frame(parent, at) == frame
    assert len(rig.events(Cow)) == 1


def test_a_store_does_not_reuse_a_frame_that_an_importer_of_the_other_side_still_reads(
    rig: Rig,
) -> None:
    parent = rig.space()
    at = rig.map(parent, 1)
    rig.store(parent, at, b"parent")
    rig.run(mprotect(parent, at, PAGE_SIZE, Prot.READ))
    child = rig.run(fork(parent, 2))
    rig.run(mprotect(child, at, PAGE_SIZE, RW))
    (run,) = rig.run(pin_pages(parent, at >> 12, 1, at >> 12))
    client = Client(rig, watched=at).attach(parent)
    client.pins = [run.frames]
    client.hold()
    gone = rig.start(munmap(parent, at, PAGE_SIZE))
    rig.store(child, at, b"child!")
    assert bytes(rig.memory.frames.pages[run.frames[0]][:6]) == b"parent"
    client.let_go()
    assert gone.done
    assert rig.load(child, at, 6) == b"child!"


def test_grandchildren_each_get_a_copy_of_what_they_saw(rig: Rig) -> None:
    first = rig.space()
    at = rig.map(first, 1)
    spaces = [first]
    for generation in range(4):
        rig.store(spaces[-1], at, bytes([generation]))
        spaces.append(rig.run(fork(spaces[-1], generation + 2)))
    rig.store(spaces[-1], at, b"\x04")
    assert [rig.load(mm, at, 1)[0] for mm in spaces] == [0, 1, 2, 3, 4]
    rig.run(exit_mmap(first))
    assert [rig.load(mm, at, 1)[0] for mm in spaces[1:]] == [1, 2, 3, 4]


def test_fork_leaves_dontcopy_areas_out_and_shared_memory_shared(rig: Rig) -> None:
    parent = rig.space()
    private = rig.map(parent, 1, flags=VmaFlags.DONTCOPY)
    shared = rig.shared(parent, 1)
    rig.store(parent, shared, b"old")
    child = rig.run(fork(parent, 2))
    rig.store(parent, shared, b"new")
    assert rig.load(child, shared, 3) == b"new"
    assert signal_of(rig, load(child, private, 1))[0] is Signal.SIGSEGV


def test_copy_on_write_waits_for_the_notifiers_and_others_wait_for_it(rig: Rig) -> None:
    mm = rig.space()
    at = rig.map(mm, 1)
    rig.store(mm, at, b"old!")
    child = rig.run(fork(mm, 2))
    client = Client(rig, watched=at).attach(mm)
    client.hold()
    writer = rig.start(store(mm, at, b"new!"))
    reader = rig.start(load(mm, at, 4))
    assert not writer.done
    assert not reader.done
    assert mm.page_table.walk(at >> 12) & entries.BUSY
    # An importer that has not been told yet stores once more into the old frame.
    old = rig.memory.frames.pages[rig.frame(child, at)]
    old[4:8] = list(b"late")
    client.let_go()
    assert writer.done
    assert reader.value == b"new!"
    assert rig.load(mm, at, 8) == b"new!late"


def test_mprotect_waits_until_an_entry_in_transit_has_arrived(rig: Rig) -> None:
    mm = rig.space()
    at = rig.map(mm, 1)
    rig.store(mm, at, b"x")
    client = Client(rig).attach(mm)
    client.hold()
    moving = rig.start(madvise(mm, at, PAGE_SIZE, 21))
    change = rig.start(mprotect(mm, at, PAGE_SIZE, Prot.NONE))
    assert not change.done
    client.let_go()
    assert moving.done
    assert change.done
    assert signal_of(rig, load(mm, at, 1))[0] is Signal.SIGSEGV
    rig.run(mprotect(mm, at, PAGE_SIZE, RW))
    assert rig.load(mm, at, 1) == b"x"


def test_a_page_in_transit_stays_out_of_reach_when_its_protection_is_lifted(rig: Rig) -> None:
    mm = rig.space()
    at = rig.map(mm, 1)
    rig.store(mm, at, b"x")
    rig.run(mprotect(mm, at, PAGE_SIZE, Prot.NONE))
    client = Client(rig).attach(mm)
    client.hold()
    move = rig.start(migrate_range(mm, at, PAGE_SIZE))
    change = rig.start(mprotect(mm, at, PAGE_SIZE, RW))
    reader = rig.start(load(mm, at, 1))
    assert not reader.done
    client.let_go()
    assert (move.value, reader.value) == (1, b"x")
    assert change.done


def test_mremap_takes_a_page_along_only_after_its_transit(rig: Rig) -> None:
    mm = rig.space()
    at = rig.map(mm, 1)
    rig.store(mm, at, b"x")
    client = Client(rig).attach(mm)
    client.hold()
    move = rig.start(migrate_range(mm, at, PAGE_SIZE))
    flags = Remap.MAYMOVE | Remap.FIXED
    remap = rig.start(mremap(mm, at, PAGE_SIZE, PAGE_SIZE, flags, 0x50_0000))
    client.let_go()
    assert (move.value, remap.value) == (1, 0x50_0000)
    assert rig.load(mm, 0x50_0000, 1) == b"x"


def test_munmap_wins_over_a_transit_and_nothing_leaks(rig: Rig) -> None:
    mm = rig.space()
    at = rig.map(mm, 4)
    rig.store(mm, at, bytes(4 * PAGE_SIZE))
    client = Client(rig).attach(mm)
    client.hold()
    moving = rig.start(madvise(mm, at, 4 * PAGE_SIZE, 21))
    gone = rig.start(munmap(mm, at, 2 * PAGE_SIZE))
    client.let_go()
    assert moving.done
    assert gone.done
    assert rig.load(mm, at + 2 * PAGE_SIZE, 1) == b"\0"
    assert signal_of(rig, load(mm, at, 1))[0] is Signal.SIGSEGV


def test_a_killed_thread_stops_at_its_next_fault(rig: Rig) -> None:
    mm = rig.space()
    at = rig.map(mm, 1)

    async def die_then_load() -> None:
        assert rig.scheduler.current is not None
        rig.scheduler.kill(rig.scheduler.current)
        await load(mm, at, 1)

    assert signal_of(rig, die_then_load())[0] is Signal.SIGKILL


def test_an_exiting_address_space_kills_whoever_still_faults(rig: Rig) -> None:
    mm = rig.space()
    at = rig.map(mm, 1)
    rig.run(exit_mmap(mm))
    assert signal_of(rig, load(mm, at, 1)) == (Signal.SIGKILL, "the task is exiting")
    for call in (mmap(mm, MapRequest(1)), fork(mm, 2), mprotect(mm, at, 1, RW)):
        with pytest.raises(Exception, match="exiting"):
            rig.run(call)


def test_a_word_is_reached_in_place_and_only_when_aligned(rig: Rig) -> None:
    mm = rig.space()
    at = rig.map(mm, 1)

    async def increment() -> None:
        word = await walk_word(mm, at + 16, write=True)
        word[:] = (int.from_bytes(word, "little") + 1).to_bytes(8, "little")

    rig.run(increment())
    rig.run(increment())
    assert rig.load(mm, at + 16, 8) == (2).to_bytes(8, "little")
    assert signal_of(rig, walk_word(mm, at + 4, write=True))[0] is Signal.SIGBUS


def test_a_private_store_ends_before_a_page_that_is_poisoned(rig: Rig) -> None:
    mm, inode = rig.space(), create_file(rig.memory, "f", 2 * PAGE_SIZE)
    at = rig.map(mm, 2, inode=inode)
    rig.load(mm, at, 2 * PAGE_SIZE)
    bad = rig.frame(mm, at + PAGE_SIZE)
    rig.run(zap_page_range(mm, at, 2 * PAGE_SIZE))
    poison_frame(rig.memory, PARTID, bad)
    with pytest.raises(Signalled, match="machine check"):
        rig.store(mm, at, b"s" * 2 * PAGE_SIZE)
    assert rig.load(mm, at, 1) == b"s"
    unpoison_frame(rig.memory, PARTID, bad)


def test_an_atomic_operation_looks_again_at_the_area_when_it_slept(rig: Rig) -> None:
    mm = rig.space()
    at = rig.map(mm, 1, flags=VmaFlags.UNCACHED)
    rig.memory.failpoints.set("mm.fault.begin", "1*pause", 0)
    add = rig.start(atomic(mm, at, AmoOperation.ADD, 1, 0))
    rig.map(mm, 1, address=at, fixed=True)
    rig.memory.failpoints.reset()
    assert rig.load(mm, at, 8) == bytes(8)
    with pytest.raises(KernelError, match="cached memory"):
        _ = add.value
