"""Files: page cache, truncation, private and shared mappings, writeback, names, the disk."""

import errno

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xpmem_emu.errors import KernelError, Signal, Signalled
from xpmem_emu.mm import (
    AddressSpace,
    Inode,
    MapRequest,
    Prot,
    VmaFlags,
    create_file,
    exit_mmap,
    fork,
    load,
    madvise,
    mmap,
    munmap,
    pin_pages,
    pread,
    pwrite,
    reclaim,
    reclaim_range,
    store,
    unlink_file,
    writeback,
    zap_page_range,
)
from xpmem_emu.mm.events import Mkclean, Truncated
from xpmem_emu.mm.gather import Gather
from xpmem_emu.mm.memory_failure import poison_frame, unpoison_frame
from xpmem_emu.mm.page_cache import discard
from xpmem_emu.mm.truncate import punch, truncate
from xpmem_emu.units import PAGE_SIZE

from .conftest import finish
from .rig import PARTID, Client, MakeRig, Rig, Work


def new_file(rig: Rig, pages: int, name: str = "f") -> Inode:
    return create_file(rig.memory, name, pages * PAGE_SIZE)


def map_shared(rig: Rig, mm: AddressSpace, inode: Inode, pages: int, **request: int) -> int:
    return rig.map(mm, pages, inode=inode, flags=VmaFlags.SHARED, **request)


def refuses(rig: Rig, number: int, operation: Work) -> None:
    with pytest.raises(KernelError) as refusal:
        rig.run(operation)
    assert refusal.value.errno == number


def test_mapping_pread_and_pwrite_see_the_same_bytes(rig: Rig) -> None:
    inode, mm = new_file(rig, 4), rig.space()
    rig.run(pwrite(rig.memory, inode, PAGE_SIZE - 2, b"disk"))
    at = map_shared(rig, mm, inode, 3, offset=PAGE_SIZE)
    assert rig.load(mm, at, 2) == b"sk"
    rig.store(mm, at + 1, b"LOAD")
    assert rig.run(pread(inode, PAGE_SIZE - 2, 7)) == b"disLOAD"
    rig.run(pwrite(rig.memory, inode, PAGE_SIZE, b"back"))
    assert rig.load(mm, at, 5) == b"backD"
    assert rig.run(pread(inode, 4 * PAGE_SIZE - 1, 100)) == b"\0"
    assert rig.run(pread(inode, 5 * PAGE_SIZE, 1)) == b""


def test_pwrite_touches_only_its_bytes_of_a_cached_page(rig: Rig) -> None:
    inode, mm = new_file(rig, 1), rig.space()
    at = map_shared(rig, mm, inode, 1)
    rig.store(mm, at, b"abcdef")
    frame = rig.frame(mm, at)
    rig.memory.frames.pages[frame][0] = ord("X")  # an importer's store, unseen by this kernel
    rig.run(pwrite(rig.memory, inode, 2, b"--"))
    assert rig.load(mm, at, 6) == b"Xb--ef"


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["pwrite", "truncate", "store", "evict", "writeback"]),
            st.integers(0, 4 * PAGE_SIZE),
            st.integers(1, 2 * PAGE_SIZE),
        ),
        max_size=12,
    )
)
def test_a_file_is_a_row_of_bytes_whatever_the_cache_does(
    steps: list[tuple[str, int, int]],
) -> None:
    rig = Rig(frames=32)
    inode, mm = new_file(rig, 2), rig.space()
    at = map_shared(rig, mm, inode, 6)
    model = bytearray(2 * PAGE_SIZE)
    for i, (step, offset, size) in enumerate(steps, 1):
        data = bytes([i]) * size
        if step == "pwrite":
            rig.run(pwrite(rig.memory, inode, offset, data))
            model.extend(bytes(max(0, offset + size - len(model))))
            model[offset : offset + size] = data
        elif step == "truncate":
            rig.run(truncate(rig.memory, inode, offset))
            del model[offset:]
            model.extend(bytes(offset - len(model)))
        elif step == "store":
            if offset + size <= len(model):
                rig.store(mm, at + offset, data)
                model[offset : offset + size] = data
        elif step == "evict":
            rig.run(reclaim_range(mm, at, 6 * PAGE_SIZE, 6))
        else:
            rig.run(writeback(rig.memory, inode))
        assert rig.run(pread(inode, 0, 1 << 20)) == model
        if model:
            assert rig.load(mm, at, len(model)) == model
        rig.audit()
    finish(rig)


def test_beyond_the_end_of_a_file_is_sigbus_until_it_grows(rig: Rig) -> None:
    inode, mm = new_file(rig, 1), rig.space()
    at = map_shared(rig, mm, inode, 2)
    with pytest.raises(Signalled, match="beyond the end of file f") as raised:
        rig.load(mm, at + PAGE_SIZE, 1)
    assert raised.value.info.signal is Signal.SIGBUS
    assert raised.value.info.address == at + PAGE_SIZE
    rig.run(truncate(rig.memory, inode, 2 * PAGE_SIZE))
    assert rig.load(mm, at + PAGE_SIZE, 1) == b"\0"


def test_bytes_stored_beyond_the_end_of_a_file_never_become_part_of_it(rig: Rig) -> None:
    inode, mm = create_file(rig.memory, "f", 10), rig.space()
    at = map_shared(rig, mm, inode, 1)
    rig.store(mm, at + 100, b"beyond")
    rig.run(pwrite(rig.memory, inode, 200, b"grow"))
    assert rig.run(pread(inode, 90, 200)) == bytes(110) + b"grow"
    assert rig.load(mm, at + 100, 6) == bytes(6)


def test_truncation_takes_mapped_pages_away_private_copies_too(rig: Rig) -> None:
    inode, mm = new_file(rig, 3), rig.space()
    shared = map_shared(rig, mm, inode, 3)
    private = rig.map(mm, 3, inode=inode)
    rig.store(mm, shared, b"s" * 3 * PAGE_SIZE)
    rig.store(mm, private + 2 * PAGE_SIZE, b"p")
    rig.run(truncate(rig.memory, inode, PAGE_SIZE + 1))
    for at in (shared + 2 * PAGE_SIZE, private + 2 * PAGE_SIZE):
        with pytest.raises(Signalled, match="SIGBUS"):
            rig.load(mm, at, 1)
    assert rig.load(mm, shared + PAGE_SIZE, 3) == b"s\0\0"
    rig.run(truncate(rig.memory, inode, 3 * PAGE_SIZE))
    assert rig.load(mm, shared + PAGE_SIZE, 2 * PAGE_SIZE) == b"s" + bytes(2 * PAGE_SIZE - 1)
    assert rig.events(Truncated)[0] == Truncated(file="f", size=PAGE_SIZE + 1, pages=1)


def test_a_page_cannot_come_back_while_a_truncation_waits_for_its_holders(rig: Rig) -> None:
    inode, mm = new_file(rig, 2), rig.space()
    at = map_shared(rig, mm, inode, 2)
    rig.store(mm, at + PAGE_SIZE, b"old")
    client = Client(rig, watched=at + PAGE_SIZE).attach(mm)
    client.hold()
    cut = rig.start(truncate(rig.memory, inode, PAGE_SIZE))
    grow = rig.start(truncate(rig.memory, inode, 2 * PAGE_SIZE))
    reader = rig.start(load(mm, at + PAGE_SIZE, 3))
    assert not cut.done
    assert not grow.done
    with pytest.raises(Signalled):
        _ = reader.value
    client.let_go()
    assert grow.done
    assert rig.load(mm, at + PAGE_SIZE, 3) == bytes(3)


def test_a_hole_cannot_be_filled_while_its_old_pages_still_have_holders(rig: Rig) -> None:
    inode, mm = new_file(rig, 1), rig.space()
    at = map_shared(rig, mm, inode, 1)
    rig.store(mm, at, b"old")
    client = Client(rig, watched=at).attach(mm)
    client.hold()
    hole = rig.start(madvise(mm, at, PAGE_SIZE, 9))
    reader = rig.start(load(mm, at, 3))
    assert not reader.done
    client.let_go()
    assert hole.done
    assert reader.value == bytes(3)


def test_private_mappings_follow_the_file_until_they_are_written(rig: Rig) -> None:
    inode, mm = new_file(rig, 2), rig.space()
    rig.run(pwrite(rig.memory, inode, 0, b"file"))
    at = rig.map(mm, 2, inode=inode)
    assert rig.load(mm, at, 4) == b"file"
    rig.run(pwrite(rig.memory, inode, 0, b"FILE"))
    assert rig.load(mm, at, 4) == b"FILE"
    rig.store(mm, at, b"mine")
    rig.store(mm, at + PAGE_SIZE, b"too")
    rig.run(pwrite(rig.memory, inode, 0, b"seen by nobody"))
    assert rig.load(mm, at, 8) == b"mine" + bytes(4)
    assert rig.run(pread(inode, 0, 4)) == b"seen"
    assert not inode.dirty[1]


def test_private_copies_survive_swap_and_fork(rig: Rig) -> None:
    inode, mm = new_file(rig, 1), rig.space()
    at = rig.map(mm, 1, inode=inode)
    rig.store(mm, at, b"mine")
    child = rig.run(fork(mm, 2))
    assert rig.run(reclaim_range(mm, at, PAGE_SIZE, 1)) == 1
    rig.store(child, at, b"his!")
    assert rig.load(mm, at, 4) == b"mine"
    assert rig.run(pread(inode, 0, 4)) == bytes(4)


def test_shared_anonymous_memory_survives_reclaim_and_is_shared_by_fork(rig: Rig) -> None:
    mm = rig.space()
    at = rig.shared(mm, 3)
    rig.store(mm, at, b"a" * 3 * PAGE_SIZE)
    child = rig.run(fork(mm, 2))
    assert rig.run(reclaim_range(mm, at, 3 * PAGE_SIZE, 3)) == 3
    assert rig.audit()["frames_in_use"] == 0
    rig.store(child, at + 1, b"b")
    assert rig.load(mm, at, 3) == b"aba"
    rig.run(exit_mmap(mm))
    assert rig.load(child, at + 2 * PAGE_SIZE, 1) == b"a"


def test_writeback_cleans_pages_and_notices_the_next_store(rig: Rig) -> None:
    inode, mm = new_file(rig, 3), rig.space()
    at = map_shared(rig, mm, inode, 3)
    rig.store(mm, at, b"1" * 2 * PAGE_SIZE)
    rig.load(mm, at + 2 * PAGE_SIZE, 1)
    assert inode.dirty.tolist() == [True, True, False]
    assert rig.run(writeback(rig.memory, inode)) == 2
    assert not inode.dirty.any()
    rig.store(mm, at + PAGE_SIZE, b"2")
    assert inode.dirty.tolist() == [False, True, False]
    assert rig.run(writeback(rig.memory, inode)) == 1
    assert [event.pages for event in rig.events(Mkclean)] == [2, 1]
    assert rig.load(mm, at + PAGE_SIZE, 2) == b"21"


def test_writeback_writes_what_importers_stored_until_they_were_stopped(rig: Rig) -> None:
    inode, mm = new_file(rig, 1), rig.space()
    at = map_shared(rig, mm, inode, 1)
    rig.store(mm, at, b"x")
    client = Client(rig, watched=at).attach(mm)
    client.hold()
    work = rig.start(writeback(rig.memory, inode))
    rig.memory.frames.pages[rig.frame(mm, at)][1] = ord("y")
    client.let_go()
    assert work.done
    rig.run(reclaim_range(mm, at, PAGE_SIZE, 1))
    assert rig.load(mm, at, 2) == b"xy"


def test_a_page_that_a_fence_takes_out_of_the_cache_during_writeback_is_an_error(rig: Rig) -> None:
    mm, inode = rig.space(), create_file(rig.memory, "f", 2 * PAGE_SIZE)
    at = rig.map(mm, 2, inode=inode, flags=VmaFlags.SHARED)
    rig.run(pwrite(rig.memory, inode, 0, b"a" * 2 * PAGE_SIZE))
    rig.store(mm, at, b"b" * 2 * PAGE_SIZE)
    frame = rig.frame(mm, at)
    client = Client(rig, watched=at).attach(mm)
    client.hold()
    work = rig.start(writeback(rig.memory, inode))
    poison_frame(rig.memory, PARTID, frame)
    rig.audits = False  # as `Fence._give_up_spoilt`, and its users are about to be killed

    async def give_up() -> None:
        async with Gather(rig.memory) as gather:
            discard(gather, inode, np.array([0]))

    rig.run(give_up())
    client.let_go()
    with pytest.raises(KernelError, match="machine check"):
        _ = work.value
    assert bytes(inode.blocks[:, 0]) == b"ab"
    rig.run(munmap(mm, at, 2 * PAGE_SIZE))
    unpoison_frame(rig.memory, PARTID, frame)
    rig.audits = True


def test_a_store_during_writeback_leaves_the_page_dirty(rig: Rig) -> None:
    inode, mm = new_file(rig, 1), rig.space()
    at = map_shared(rig, mm, inode, 1)
    rig.store(mm, at, b"x")
    client = Client(rig, watched=at).attach(mm)
    client.hold()
    work = rig.start(writeback(rig.memory, inode))
    rig.start(store(mm, at, b"z"))
    client.let_go()
    assert work.done
    assert inode.dirty.tolist() == [True]


def test_a_hole_in_shared_memory_reads_as_zeros_everywhere(rig: Rig) -> None:
    inode, mm = new_file(rig, 3), rig.space()
    at = map_shared(rig, mm, inode, 3)
    rig.store(mm, at, b"d" * 3 * PAGE_SIZE)
    rig.run(writeback(rig.memory, inode))
    rig.run(madvise(mm, at + PAGE_SIZE, PAGE_SIZE, 9))
    assert rig.load(mm, at + PAGE_SIZE - 1, 2) == b"d\0"
    assert rig.run(pread(inode, 2 * PAGE_SIZE - 1, 2)) == b"\0d"
    private = rig.map(mm, 1)
    refuses(rig, errno.EINVAL, madvise(mm, private, PAGE_SIZE, 9))


def test_a_deleted_file_lives_until_its_last_mapping_goes(rig: Rig) -> None:
    inode, mm = new_file(rig, 2), rig.space()
    at = map_shared(rig, mm, inode, 2)
    rig.store(mm, at, b"still here")
    rig.run(unlink_file(rig.memory, "f"))
    new_file(rig, 1)
    assert rig.load(mm, at, 10) == b"still here"
    assert rig.memory.files.used == 3 * PAGE_SIZE
    rig.run(munmap(mm, at, PAGE_SIZE))
    assert rig.memory.files.used == 3 * PAGE_SIZE
    rig.run(munmap(mm, at + PAGE_SIZE, PAGE_SIZE))
    assert rig.memory.files.used == PAGE_SIZE
    refuses(rig, errno.ENOENT, pwrite(rig.memory, inode, 0, b"x"))
    refuses(rig, errno.ENOENT, mmap(mm, MapRequest(PAGE_SIZE, inode=inode)))


def test_names_and_the_disk_are_bounded(make_rig: MakeRig) -> None:
    rig = make_rig(files=2)
    files = rig.memory.files
    inode = new_file(rig, 500, "a")
    for number, name, size in (
        (errno.EEXIST, "a", 1),
        (errno.ENOSPC, "b", 13 * PAGE_SIZE),
        (errno.EFBIG, "b", 1 << 30),
    ):
        with pytest.raises(KernelError) as refusal:
            create_file(rig.memory, name, size)
        assert refusal.value.errno == number
    create_file(rig.memory, "b", 1)
    with pytest.raises(KernelError) as refusal:
        create_file(rig.memory, "c", 0)
    assert refusal.value.errno == errno.ENFILE
    refuses(rig, errno.ENOENT, unlink_file(rig.memory, "c"))
    refuses(rig, errno.ENOSPC, pwrite(rig.memory, inode, 511 * PAGE_SIZE, b"xx" * PAGE_SIZE))
    assert inode.size == 500 * PAGE_SIZE
    rig.run(truncate(rig.memory, inode, 0))
    assert files.used == PAGE_SIZE


def test_two_tasks_read_a_missing_page_in_once(rig: Rig) -> None:
    inode = new_file(rig, 1)
    spaces = [rig.space(1), rig.space(2)]
    places = [map_shared(rig, mm, inode, 1, prot=Prot.READ) for mm in spaces]
    loads = [rig.start(load(mm, at, 1)) for mm, at in zip(spaces, places, strict=True)]
    assert [outcome.value for outcome in loads] == [b"\0", b"\0"]
    frames = {rig.frame(mm, at) for mm, at in zip(spaces, places, strict=True)}
    assert len(frames) == 1
    assert rig.memory.frames.mapcount[list(frames)] == np.array([2])


def test_what_was_stored_through_a_pin_after_writeback_is_not_lost(rig: Rig) -> None:
    inode, mm = new_file(rig, 1), rig.space()
    at = map_shared(rig, mm, inode, 1)
    (run,) = rig.run(pin_pages(mm, at >> 12, 1, at >> 12))
    client = Client(rig, watched=at).attach(mm)
    client.hold()
    zap = rig.start(zap_page_range(mm, at, PAGE_SIZE))
    assert rig.run(writeback(rig.memory, inode)) == 1
    rig.memory.frames.pages[run.frames[0]][0] = ord("z")  # not told to stop yet
    client.pins.append(run.frames)
    client.let_go()
    assert zap.done
    assert rig.run(reclaim(rig.memory, 1)) == 1
    assert rig.load(mm, at, 1) == b"z"


def test_a_hole_leaves_what_a_task_has_copied_for_itself(rig: Rig) -> None:
    inode, mm = new_file(rig, 2), rig.space()
    shared = map_shared(rig, mm, inode, 2)
    private = rig.map(mm, 2, inode=inode)
    rig.store(mm, shared, b"f" * 2 * PAGE_SIZE)
    rig.store(mm, private, b"mine")
    rig.load(mm, private + PAGE_SIZE, 1)
    rig.run(punch(rig.memory, inode, 0, 2))
    assert rig.load(mm, private, 8) == b"mineffff"
    assert rig.load(mm, private + PAGE_SIZE, 4) == bytes(4)
    assert rig.load(mm, shared, 2 * PAGE_SIZE) == bytes(2 * PAGE_SIZE)
