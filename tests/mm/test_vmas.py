"""Areas against a byte map: random mmap, munmap, mprotect, mremap, loads and stores."""

import errno
import itertools

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from xpmem_emu.errors import KernelError, Signal, Signalled
from xpmem_emu.mm import (
    MapRequest,
    Prot,
    Remap,
    Vma,
    VmaFlags,
    create_file,
    madvise,
    mmap,
    mprotect,
    mremap,
    munmap,
    unlink_file,
)
from xpmem_emu.mm.vma_list import MMAP_TOP
from xpmem_emu.units import PAGE_SIZE, TASK_SIZE

from .conftest import finish
from .rig import RW, Client, MakeRig, Rig

BASE = 0x10_0000
PAGES = 24
page = st.integers(0, PAGES - 1)
length = st.integers(1, 6)


class AddressSpaceMachine(RuleBasedStateMachine):
    """24 pages of address space, modelled as {page: (protection, contents)}."""

    @initialize()
    def start(self) -> None:
        self.rig = Rig(frames=96, swap=32)
        self.mm = self.rig.space()
        self.model: dict[int, tuple[Prot, bytearray]] = {}

    def span(self, first: int, count: int) -> range:
        return range(first, min(first + count, PAGES))

    def at(self, first: int) -> int:
        return BASE + first * PAGE_SIZE

    @rule(
        first=page,
        count=length,
        prot=st.sampled_from([RW, Prot.READ, Prot.NONE]),
        shared=st.booleans(),
    )
    def mmap(self, first: int, count: int, prot: Prot, shared: bool) -> None:
        span = self.span(first, count)
        flags = VmaFlags.SHARED if shared else VmaFlags.NONE
        where = self.rig.map(
            self.mm, len(span), prot=prot, flags=flags, address=self.at(first), fixed=True
        )
        assert where == self.at(first)
        self.model.update({p: (prot, bytearray(PAGE_SIZE)) for p in span})

    @rule(first=page, count=length)
    def munmap(self, first: int, count: int) -> None:
        span = self.span(first, count)
        self.rig.run(munmap(self.mm, self.at(first), len(span) * PAGE_SIZE))
        for p in span:
            self.model.pop(p, None)

    @rule(first=page, count=length, prot=st.sampled_from([RW, Prot.READ, Prot.NONE]))
    def mprotect(self, first: int, count: int, prot: Prot) -> None:
        span = self.span(first, count)
        change = mprotect(self.mm, self.at(first), len(span) * PAGE_SIZE, prot)
        if all(p in self.model for p in span):
            self.rig.run(change)
            self.model.update({p: (prot, self.model[p][1]) for p in span})
        else:
            with pytest.raises(KernelError) as refusal:
                self.rig.run(change)
            assert refusal.value.errno == errno.ENOMEM

    @rule(first=page, count=length, place=page)
    def mremap(self, first: int, count: int, place: int) -> None:
        span = self.span(first, min(count, PAGES - place))
        moved = range(place, place + len(span))
        area = self.mm.vmas.find(self.at(first))
        if area is None or self.at(span.stop) > area.end or set(span) & set(moved):
            return
        size = len(span) * PAGE_SIZE
        flags = Remap.MAYMOVE | Remap.FIXED
        where = self.rig.run(mremap(self.mm, self.at(first), size, size, flags, self.at(place)))
        assert where == self.at(place)
        pages = [self.model.pop(p) for p in span]
        self.model.update(zip(moved, pages, strict=True))

    @rule(first=page, offset=st.integers(0, PAGE_SIZE - 1), data=st.binary(min_size=1, max_size=9))
    def store(self, first: int, offset: int, data: bytes) -> None:
        address = self.at(first) + offset
        touched = range(first, first + 1 + (offset + len(data) > PAGE_SIZE))
        bad = [p for p in touched if p not in self.model or not self.model[p][0] & Prot.WRITE]
        if bad:
            with pytest.raises(Signalled) as signal:
                self.rig.store(self.mm, address, data)
            assert signal.value.info.signal is Signal.SIGSEGV
        else:
            self.rig.store(self.mm, address, data)
        for i, byte in enumerate(data):
            p, at = divmod(first * PAGE_SIZE + offset + i, PAGE_SIZE)
            if p in bad:
                break
            self.model[p][1][at] = byte

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def reclaim(self, data: st.DataObject) -> None:
        first = data.draw(st.sampled_from(sorted(self.model)))
        self.rig.run(madvise(self.mm, self.at(first), PAGE_SIZE, 21))

    @rule(first=page, count=length)
    def load_all(self, first: int, count: int) -> None:
        for p in self.span(first, count):
            if p in self.model and self.model[p][0] != Prot.NONE:
                assert self.rig.load(self.mm, self.at(p), PAGE_SIZE) == self.model[p][1]
            else:
                with pytest.raises(Signalled):
                    self.rig.load(self.mm, self.at(p), 1)

    @invariant()
    def areas_are_those_of_the_model_and_merged(self) -> None:
        areas = list(self.mm.vmas)
        mapped = {
            (at - BASE) // PAGE_SIZE: vma.prot
            for vma in areas
            for at in range(vma.start, vma.end, PAGE_SIZE)
        }
        assert mapped == {p: prot for p, (prot, _) in self.model.items()}
        assert not any(b.continues(a) for a, b in itertools.pairwise(areas))
        self.rig.audit()

    def teardown(self) -> None:
        if hasattr(self, "rig"):
            finish(self.rig)


AddressSpaceMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=30)
TestAddressSpace = AddressSpaceMachine.TestCase


@pytest.mark.parametrize(
    ("request_", "number"),
    [
        (MapRequest(length=0), errno.EINVAL),
        (MapRequest(length=TASK_SIZE + 1), errno.ENOMEM),
        (MapRequest(length=1, address=BASE + 1, fixed=True), errno.EINVAL),
        (MapRequest(length=1, address=TASK_SIZE, fixed=True), errno.ENOMEM),
        (MapRequest(length=1, address=0x1000, fixed=True), errno.EPERM),
        (MapRequest(length=1, offset=7), errno.EINVAL),
        (MapRequest(length=1 << 40, flags=VmaFlags.SHARED), errno.ENOMEM),
    ],
)
def test_mmap_refuses_with_the_errno_of_linux(rig: Rig, request_: MapRequest, number: int) -> None:
    with pytest.raises(KernelError) as refusal:
        rig.run(mmap(rig.space(), request_))
    assert refusal.value.errno == number


def test_areas_are_placed_top_down_and_holes_are_used_again(rig: Rig) -> None:
    mm = rig.space()
    first, second = rig.map(mm, 2), rig.map(mm, 2, prot=Prot.READ)
    assert (first, second) == (MMAP_TOP - 2 * PAGE_SIZE, MMAP_TOP - 4 * PAGE_SIZE)
    rig.run(munmap(mm, first, 2 * PAGE_SIZE))
    assert rig.map(mm, 2) == first
    assert rig.map(mm, 1, address=BASE) == BASE
    assert rig.map(mm, 1, address=BASE) != BASE


def test_a_check_can_refuse_a_fixed_mapping_before_anything_is_replaced(rig: Rig) -> None:
    mm = rig.space()
    rig.map(mm, 2, address=BASE, fixed=True)
    rig.store(mm, BASE, b"kept")

    def refuse(areas: list[Vma]) -> None:
        assert [area.start for area in areas] == [BASE]
        raise KernelError(errno.EINVAL, "in the way")

    with pytest.raises(KernelError, match="in the way"):
        rig.map(mm, 1, address=BASE, fixed=True, check=refuse)
    assert rig.load(mm, BASE, 4) == b"kept"


def test_a_file_that_is_deleted_while_mmap_waits_is_not_mapped_over_its_last_area(rig: Rig) -> None:
    mm, inode = rig.space(), create_file(rig.memory, "f", PAGE_SIZE)
    at, other = rig.map(mm, 1, inode=inode), rig.map(mm, 1)
    client = Client(rig, watched=other).attach(mm)
    client.hold()
    rig.start(munmap(mm, other, PAGE_SIZE))  # has the mmap_lock
    request = MapRequest(length=PAGE_SIZE, address=at, fixed=True, inode=inode)
    over = rig.start(mmap(mm, request))
    rig.run(unlink_file(rig.memory, "f"))
    client.let_go()
    with pytest.raises(KernelError, match="file f was deleted"):
        _ = over.value
    assert rig.load(mm, at, 1) == b"\0"


def test_the_limit_on_areas_is_enomem_and_changes_nothing(make_rig: MakeRig) -> None:
    rig = make_rig(vmas_per_task=3)
    mm = rig.space()
    rig.map(mm, 3, address=BASE, fixed=True)
    rig.run(mprotect(mm, BASE + PAGE_SIZE, PAGE_SIZE, Prot.READ))
    for change in (mmap(mm, MapRequest(PAGE_SIZE)), mremap(mm, BASE, PAGE_SIZE, 3 * PAGE_SIZE)):
        with pytest.raises(KernelError, match="areas") as refusal:
            rig.run(change)
        assert refusal.value.errno == errno.ENOMEM
    assert len(mm.vmas) == 3


@pytest.mark.parametrize(
    ("arguments", "number"),
    [
        ((BASE + 1, 1, 1), errno.EINVAL),
        ((BASE, PAGE_SIZE, 0), errno.EINVAL),
        ((BASE, PAGE_SIZE, PAGE_SIZE, Remap.FIXED, 0x40_0000), errno.EINVAL),
        ((BASE, PAGE_SIZE, PAGE_SIZE, 8), errno.EINVAL),
        ((BASE, 2 * PAGE_SIZE, PAGE_SIZE, Remap.MAYMOVE | Remap.FIXED, BASE), errno.EINVAL),
        ((BASE, 3 * PAGE_SIZE, PAGE_SIZE), errno.EFAULT),
        ((0x40_0000, PAGE_SIZE, PAGE_SIZE), errno.EFAULT),
        ((BASE, PAGE_SIZE, 2 * PAGE_SIZE, Remap.NONE), errno.ENOMEM),
    ],
)
def test_mremap_refuses_with_the_errno_of_linux(
    rig: Rig, arguments: tuple[int, ...], number: int
) -> None:
    mm = rig.space()
    rig.map(mm, 2, address=BASE, fixed=True)
    with pytest.raises(KernelError) as refusal:
        rig.run(mremap(mm, *arguments))
    assert refusal.value.errno == number


def test_mremap_grows_in_place_shrinks_and_moves(rig: Rig) -> None:
    mm = rig.space()
    rig.map(mm, 2, address=BASE, fixed=True)
    rig.store(mm, BASE, b"here")
    assert rig.run(mremap(mm, BASE, 2 * PAGE_SIZE, 4 * PAGE_SIZE, Remap.NONE)) == BASE
    rig.store(mm, BASE + 3 * PAGE_SIZE, b"tail")
    rig.map(mm, 1, address=BASE + 4 * PAGE_SIZE, fixed=True, prot=Prot.READ)
    moved = rig.run(mremap(mm, BASE, 4 * PAGE_SIZE, 5 * PAGE_SIZE))
    assert moved != BASE
    assert rig.load(mm, moved, 4) + rig.load(mm, moved + 3 * PAGE_SIZE, 4) == b"heretail"
    assert rig.run(mremap(mm, moved, 5 * PAGE_SIZE, PAGE_SIZE)) == moved
    with pytest.raises(Signalled):
        rig.load(mm, moved + 3 * PAGE_SIZE, 4)


@pytest.mark.parametrize("flag", [VmaFlags.DONTEXPAND, VmaFlags.PFNMAP])
def test_areas_that_must_not_grow_are_efault(rig: Rig, flag: VmaFlags) -> None:
    mm = rig.space()
    at = rig.map(mm, 1, flags=flag)
    with pytest.raises(KernelError, match="must not grow") as refusal:
        rig.run(mremap(mm, at, PAGE_SIZE, 2 * PAGE_SIZE))
    assert refusal.value.errno == errno.EFAULT
