"""Foreign pages: areas with ops, SPECIAL entries, what may and may not be done with them."""

import errno

import numpy as np
import pytest

from xpmem_emu.errors import KernelBug, KernelError, Signal, SignalInfo, Signalled
from xpmem_emu.mm import (
    AddressSpace,
    DeadOps,
    MapRequest,
    Prot,
    Remap,
    Vma,
    VmaFlags,
    insert_special,
    load,
    madvise,
    mmap,
    mprotect,
    mremap,
    munmap,
    pte,
    store,
    zap_page_range,
    zap_special,
)
from xpmem_emu.mm.areas import cut_area
from xpmem_emu.units import PAGE_SIZE

from .rig import Client, Rig, Work

HOME = 7
FLAGS = VmaFlags.SHARED | VmaFlags.PFNMAP | VmaFlags.IO | VmaFlags.DONTCOPY | VmaFlags.DONTEXPAND


class Foreign:
    """Ops that map page n of the area to frame n + 1 of partition 7."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.memory = bytearray(16 * PAGE_SIZE)
        rig.memory.physical.add_window(HOME, memoryview(self.memory))
        self.alive = True
        self.calls: list[tuple[str, int, int]] = []

    async def fault(self, vma: Vma, address: int, write: bool) -> None:
        thread = self.rig.scheduler.current
        assert thread is not None
        assert thread.held == []
        self.calls.append(("fault", address, write))
        await self.rig.scheduler.reschedule()
        first = (address >> 12) - vma.first
        if vma.mm.vmas.find(address) is vma:
            frames = np.arange(first + 1, vma.pages + 1, dtype=np.int64)
            insert_special(vma, address >> 12, (HOME << 38) + frames, pte.WRITE)

    def check(self, vma: Vma, address: int) -> None:
        if not self.alive:
            raise Signalled(SignalInfo(Signal.SIGBUS, "partition lost", address, partid=HOME))

    def unmapped(self, vma: Vma, start: int, end: int) -> None:
        assert not vma.mm.page_table.read_range(start >> 12, (end - start) >> 12).any()
        self.calls.append(("unmapped", start, end))

    def split(self, vma: Vma, tail: Vma) -> None:
        self.calls.append(("split", tail.start, tail.end))
        tail.ops = DeadOps("cut off")


def attach(rig: Rig, pages: int = 4) -> tuple[AddressSpace, Foreign, int]:
    mm, ops = rig.space(), Foreign(rig)
    return mm, ops, rig.map(mm, pages, flags=FLAGS, ops=ops)


def sigbus(rig: Rig, access: Work) -> str:
    with pytest.raises(Signalled) as raised:
        rig.run(access)
    assert raised.value.info.signal is Signal.SIGBUS
    return raised.value.info.reason


def test_loads_and_stores_reach_the_foreign_frames(rig: Rig) -> None:
    mm, ops, at = attach(rig)
    rig.store(mm, at + PAGE_SIZE - 2, b"abcd")
    assert ops.memory[2 * PAGE_SIZE - 2 : 2 * PAGE_SIZE + 2] == b"abcd"
    ops.memory[PAGE_SIZE] = 5
    assert rig.load(mm, at, 1) == b"\5"
    assert ops.calls == [("fault", at, True)]
    assert mm.rss == 0


def test_every_access_asks_whether_the_home_is_alive(rig: Rig) -> None:
    mm, ops, at = attach(rig)
    rig.load(mm, at, 1)
    ops.alive = False
    assert sigbus(rig, load(mm, at, 1)) == "partition lost"
    assert sigbus(rig, store(mm, at, b"x")) == "partition lost"
    assert not any(ops.memory)


def test_a_closed_window_is_sigbus_not_a_crash(rig: Rig) -> None:
    mm, _, at = attach(rig)
    rig.load(mm, at, 1)
    rig.memory.physical.remove_window(HOME)
    assert "no window" in sigbus(rig, load(mm, at, 1))


def test_special_entries_go_into_absent_pages_of_the_area_only(rig: Rig) -> None:
    mm, _, at = attach(rig)
    vma = mm.vmas.find(at)
    assert vma is not None
    frames = np.arange(1, 9, dtype=np.int64) + (HOME << 38)
    assert insert_special(vma, (at >> 12) + 1, frames[:1], 0) == 1
    assert insert_special(vma, (at >> 12) - 2, frames, 0) == 3
    assert mm.page_table.walk((at >> 12) + 1) >> 12 == frames[0]
    assert mm.page_table.walk((at >> 12) - 1) == 0
    rig.run(munmap(mm, at, 4 * PAGE_SIZE))
    with pytest.raises(KernelBug, match="not mapped"):
        insert_special(vma, at >> 12, frames, 0)


def test_zapping_special_entries_is_atomic_and_tells_shadowing_devices(rig: Rig) -> None:
    mm, ops, at = attach(rig)
    rig.load(mm, at, 1)
    device = Client(rig).attach(mm)
    assert zap_special(mm, at + PAGE_SIZE, at + 3 * PAGE_SIZE) == 2
    assert zap_special(mm, at + PAGE_SIZE, at + 3 * PAGE_SIZE) == 0
    assert device.calls == [("special", at + PAGE_SIZE, at + 3 * PAGE_SIZE)]
    rig.load(mm, at, 1)
    rig.load(mm, at + PAGE_SIZE, 1)
    assert [call[:2] for call in ops.calls] == [("fault", at), ("fault", at + PAGE_SIZE)]


def test_an_exporter_can_zap_its_own_attachment_while_it_unmaps_the_source(rig: Rig) -> None:
    mm, _, at = attach(rig)
    source = rig.map(mm, 1)
    rig.store(mm, source, b"x")
    rig.load(mm, at, 1)

    class SelfAttached(Client):
        def invalidate_range(self, start: int, end: int) -> None:
            if start == source:
                super().invalidate_range(start, end)
                zap_special(mm, at, at + PAGE_SIZE)

    client = SelfAttached(rig).attach(mm)
    rig.run(munmap(mm, source, PAGE_SIZE))
    assert mm.page_table.walk(at >> 12) == 0
    assert client.kinds() == ["invalidate", "special", "sync"]


def test_madvise_refuses_what_zap_page_range_does(rig: Rig) -> None:
    mm, ops, at = attach(rig)
    normal = rig.map(mm, 1)
    rig.store(mm, normal, b"x")
    rig.load(mm, at, 1)
    with pytest.raises(KernelError) as refusal:
        rig.run(madvise(mm, at, PAGE_SIZE, 4))
    assert refusal.value.errno == errno.EINVAL
    rig.run(zap_page_range(mm, normal, at + 4 * PAGE_SIZE - normal))
    assert mm.page_table.walk(at >> 12) == 0
    assert rig.load(mm, normal, 1) == b"\0"
    rig.load(mm, at, 1)
    assert len(ops.calls) == 2


@pytest.mark.parametrize(
    ("address", "length", "advice", "number"),
    [(1, 1, 4, errno.EINVAL), (0x10_0000, 1, 4, errno.ENOMEM), (0x10_0000, 1, 5, errno.EINVAL)],
)
def test_madvise_refuses_bad_ranges_and_advice(
    rig: Rig, address: int, length: int, advice: int, number: int
) -> None:
    with pytest.raises(KernelError) as refusal:
        rig.run(madvise(rig.space(), address, length, advice))
    assert refusal.value.errno == number


def test_unmapping_the_middle_reports_the_piece_and_cuts_the_tail_off(rig: Rig) -> None:
    mm, ops, at = attach(rig)
    rig.load(mm, at, 1)
    rig.run(munmap(mm, at + PAGE_SIZE, 2 * PAGE_SIZE))
    end = at + 4 * PAGE_SIZE
    assert ops.calls[1:] == [
        ("unmapped", at + PAGE_SIZE, at + 3 * PAGE_SIZE),
        ("split", at + PAGE_SIZE, end),
    ]
    assert rig.load(mm, at, 1) == b"\0"
    assert sigbus(rig, load(mm, at + 3 * PAGE_SIZE, 1)) == "cut off"


def test_partial_mprotect_cuts_and_drops_the_entries(rig: Rig) -> None:
    mm, ops, at = attach(rig)
    rig.load(mm, at, 1)
    rig.run(mprotect(mm, at + 2 * PAGE_SIZE, 2 * PAGE_SIZE, Prot.READ))
    assert ops.calls[1:] == [("split", at + 2 * PAGE_SIZE, at + 4 * PAGE_SIZE)]
    assert sigbus(rig, load(mm, at + 3 * PAGE_SIZE, 1)) == "cut off"
    assert rig.load(mm, at, 1) == b"\0"


def test_moving_an_attachment_leaves_a_dead_area(rig: Rig) -> None:
    mm, ops, at = attach(rig)
    rig.load(mm, at, 1)
    size = 4 * PAGE_SIZE
    moved = rig.run(mremap(mm, at, size, size, Remap.MAYMOVE | Remap.FIXED, 0x50_0000))
    assert ops.calls[1:] == [("unmapped", at, at + size)]
    assert "moved" in sigbus(rig, load(mm, moved, 1))
    assert mm.vmas.find(at) is None


@pytest.mark.parametrize("offset", [0, 1, 8, PAGE_SIZE - 8])
@pytest.mark.parametrize("size", [1, 8])
def test_an_access_is_judged_by_the_areas_that_it_touches(rig: Rig, offset: int, size: int) -> None:
    mm, ops, at = attach(rig)
    rig.store(mm, at, b"abcdefgh" * (4 * PAGE_SIZE // 8))
    cut_area(mm, at + PAGE_SIZE)
    cut_area(mm, at + 2 * PAGE_SIZE)
    for vma in mm.vmas:  # all entries are there still; only the second page's area is alive
        vma.ops = ops if vma.start == at + PAGE_SIZE else DeadOps("a dead neighbour")
    inside = at + PAGE_SIZE + offset
    rig.store(mm, inside, b"z" * size)
    assert rig.load(mm, inside, size) == b"z" * size
    over = PAGE_SIZE - offset + 1
    assert sigbus(rig, load(mm, inside, over)) == "a dead neighbour"
    assert sigbus(rig, load(mm, at, 1)) == "a dead neighbour"


def test_a_cut_link_ends_accesses_even_where_entries_are_left(rig: Rig) -> None:
    mm, _, at = attach(rig)
    rig.load(mm, at, 1)
    vma = mm.vmas.find(at)
    assert vma is not None
    vma.ops = DeadOps("the exporter removed the segment")
    assert sigbus(rig, load(mm, at, 1)) == "the exporter removed the segment"
    rig.run(munmap(mm, at, 4 * PAGE_SIZE))


def test_a_fault_that_never_sticks_ends_in_sigbus(rig: Rig) -> None:
    mm, ops, at = attach(rig)

    async def install_nothing(*arguments: object) -> None:
        ops.calls.append(("fault", at, 0))

    ops.fault = install_nothing  # type: ignore[method-assign, assignment]
    assert "taken away" in sigbus(rig, load(mm, at, 1))
    assert len(ops.calls) == 64


def test_an_area_that_changes_during_a_long_fault_is_looked_at_again(rig: Rig) -> None:
    mm, ops, at = attach(rig)
    reader = rig.start(replaced_while_faulting(rig, mm, at))
    assert reader.value == b"\0"
    assert ops.calls[0] == ("fault", at, False)


async def replaced_while_faulting(rig: Rig, mm: AddressSpace, at: int) -> bytes | bytearray:
    rig.scheduler.spawn("unmapper", remap(mm, MapRequest(4 * PAGE_SIZE, address=at, fixed=True)))
    return await load(mm, at, 1)


async def remap(mm: AddressSpace, request: MapRequest) -> None:
    await mmap(mm, request)
