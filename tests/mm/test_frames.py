"""The frame allocator and the swap area: counts, order, junk, and what they refuse."""

import errno

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpmem_emu.errors import KernelBug, KernelError
from xpmem_emu.mm.events import FramesFree
from xpmem_emu.mm.frames import JUNK, FrameAllocator
from xpmem_emu.mm.physical import PhysicalMemory
from xpmem_emu.mm.swap import SwapArea
from xpmem_emu.sched import Scheduler
from xpmem_emu.trace import Tracer
from xpmem_emu.units import PAGE_SIZE


def allocator(frames: int = 32) -> tuple[FrameAllocator, Tracer]:
    tracer = Tracer(3, Scheduler())
    return FrameAllocator(3, memoryview(bytearray(frames * PAGE_SIZE)), tracer), tracer


def test_frames_come_out_ascending_and_contiguous_and_never_frame_0() -> None:
    frames, _ = allocator()
    assert frames.allocate(31).tolist() == list(range(1, 32))
    with pytest.raises(KernelError) as refusal:
        frames.allocate(1)
    assert refusal.value.errno == errno.ENOMEM


def test_the_frame_freed_last_is_handed_out_first() -> None:
    frames, _ = allocator()
    batch = frames.allocate(20)
    frames.put(batch[4:9])
    frames.put(batch[[15]])
    assert frames.allocate(1).tolist() == [16]
    assert frames.allocate(5).tolist() == [5, 6, 7, 8, 9]


def test_freed_frames_are_filled_with_junk_and_traced_as_extents() -> None:
    frames, tracer = allocator()
    batch = frames.allocate(6)
    frames.fill(batch, 0)
    frames.put(batch[[4, 0, 1]])
    assert (frames.pages[[1, 2, 5]] == JUNK).all()
    assert (frames.pages[[3, 4, 6]] == 0).all()
    assert [r.event for r in tracer.drain()] == [FramesFree(count=3, extents=[(1, 2), (5, 1)])]


def test_a_frame_lives_until_its_last_holder_lets_go() -> None:
    frames, _ = allocator()
    one = frames.allocate(1)
    frames.pin(one)
    frames.quarantine(one)
    frames.put(one)
    frames.unpin(one)
    assert frames.in_use == 1
    frames.release_quarantined(one)
    assert (frames.in_use, frames.pinned) == (0, 0)


@pytest.mark.parametrize("misuse", ["put", "unpin", "drop_mappings", "release_quarantined"])
def test_counts_never_fall_below_zero(misuse: str) -> None:
    frames, _ = allocator()
    one = frames.allocate(1)
    if misuse == "put":
        frames.put(one)
    with pytest.raises(KernelBug, match="below zero"):
        getattr(frames, misuse)(one)


def test_freeing_a_pinned_frame_is_a_bug() -> None:
    frames, _ = allocator()
    one = frames.allocate(1)
    frames.pin(one)
    with pytest.raises(KernelBug, match="pinned"):
        frames.put(np.repeat(one, 2))


def test_a_free_frame_cannot_be_taken_by_reference() -> None:
    frames, _ = allocator()
    with pytest.raises(KernelBug, match="free frame"):
        frames.get(np.array([5]))


def test_a_frame_named_twice_in_a_vector_counts_twice() -> None:
    frames, _ = allocator()
    one = frames.allocate(1)
    frames.get(np.repeat(one, 3))
    assert frames.refcount[one[0]] == 4
    frames.put(np.repeat(one, 4))
    assert frames.in_use == 0


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 12)), max_size=40))
def test_no_frame_is_ever_handed_out_twice(steps: list[tuple[bool, int]]) -> None:
    frames, _ = allocator()
    held: list[int] = []
    for take, count in steps:
        if take and count <= frames.free:
            held += frames.allocate(count).tolist()
        else:
            gone, held = held[:count], held[count:]
            frames.put(np.array(gone, dtype=np.int64))
        assert len(set(held)) == len(held) == frames.in_use
        assert 0 not in held


def test_swap_slots_are_reused_only_when_nobody_names_them() -> None:
    frames, _ = allocator()
    swap = SwapArea(memoryview(bytearray(4 * PAGE_SIZE)))
    slots = swap.allocate_up_to(9)
    assert slots.tolist() == [0, 1, 2, 3]
    assert len(swap.allocate_up_to(1)) == 0
    batch = frames.allocate(4)
    frames.fill(batch[:2], 7)
    swap.write(slots, frames, batch)
    swap.read(slots[:1], frames, batch[3:])
    assert (frames.pages[batch[3]] == 7).all()
    swap.get(slots[:1])
    swap.put(slots)
    assert swap.in_use == 1
    swap.put(slots[:1])
    assert swap.in_use == 0
    with pytest.raises(KernelBug, match="twice"):
        swap.put(slots[:1])


def test_physical_memory_reaches_windows_and_nothing_else() -> None:
    memory = PhysicalMemory(3, memoryview(bytearray(4 * PAGE_SIZE)))
    other = memoryview(bytearray(2 * PAGE_SIZE))
    memory.add_window(5, other)
    memory.view(5 << 38 | 1, 1)[:3] = b"abc"
    assert bytes(other[PAGE_SIZE : PAGE_SIZE + 3]) == b"abc"
    for beyond in (5 << 38 | 1, 3 << 38 | 3):
        with pytest.raises(KernelError) as refusal:
            memory.view(beyond, 2)
        assert refusal.value.errno == errno.EFAULT
    with pytest.raises(KernelBug):
        memory.add_window(5, other)
    memory.remove_window(5)
    assert not memory.has_window(5)
    with pytest.raises(KernelError, match="no window on the memory of p5"):
        memory.view(5 << 38, 1)
