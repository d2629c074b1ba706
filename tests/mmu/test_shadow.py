"""KVM and HMM: a walk that an invalidation crossed is thrown away (sources T14, 4.2, 4.3)."""

import errno

import numpy as np
import pytest

from tests.mm.rig import Client, Rig
from xpmem_emu.errors import KernelError
from xpmem_emu.mm import AddressSpace, madvise, migrate_range, munmap
from xpmem_emu.mmu.events import MmuInstall, MmuRetry
from xpmem_emu.mmu.guest import Guest
from xpmem_emu.mmu.mirror import MIRROR_WINDOW, Mirror
from xpmem_emu.mmu.shadow import ShadowMmu
from xpmem_emu.units import PAGE_SIZE

from .bench import BASE, GUEST_BASE, KINDS, MMU, PAGES, WALK_NS, at, backed, finish, guest


@pytest.fixture(params=["guest", "guest with references", "mirror"])
def shadow(request: pytest.FixtureRequest, rig: Rig, mm: AddressSpace) -> ShadowMmu:
    device = KINDS[request.param](rig, mm)
    assert isinstance(device, ShadowMmu)
    return device


def test_a_walk_that_was_crossed_is_repeated(rig: Rig, mm: AddressSpace, shadow: ShadowMmu) -> None:
    rig.store(mm, BASE, b"old")
    access = rig.start(shadow.load(at(shadow, 0), 3))
    rig.run(madvise(mm, BASE, PAGE_SIZE, 4))  # between the walk and the entry
    rig.store(mm, BASE, b"new")
    rig.pass_time(WALK_NS)
    assert shadow.held() == {}
    rig.pass_time(WALK_NS)
    assert access.value == b"new"
    assert len(rig.events(MmuRetry)) == shadow.retries == 1
    assert backed(shadow)


def test_a_guest_does_not_wait_and_does_not_install_what_is_being_invalidated(
    rig: Rig, mm: AddressSpace
) -> None:
    client = Client(rig).attach(mm)
    device = guest(mm)
    client.hold()
    device.invalidate_range(BASE, BASE + PAGE_SIZE)
    access = rig.start(device.load(GUEST_BASE, 1))
    rig.pass_time(WALK_NS)
    assert (access.done, device.held(), device.retries) == (False, {}, 1)
    beside = rig.start(device.load(GUEST_BASE + PAGE_SIZE, 1))
    rig.pass_time(WALK_NS)
    assert beside.value == b"\0"
    client.gate = None
    rig.run(mm.notifiers.invalidate_range_sync(BASE, BASE + PAGE_SIZE))
    rig.pass_time(WALK_NS)
    assert access.value == b"\0"


def test_a_mirror_waits_before_it_walks(rig: Rig, mm: AddressSpace) -> None:
    client = Client(rig).attach(mm)
    device = Mirror(mm, BASE, PAGES * PAGE_SIZE)
    rig.store(mm, BASE, bytes(2 * PAGE_SIZE))
    client.hold()
    migrating = rig.start(migrate_range(mm, BASE, PAGE_SIZE))
    access = rig.start(device.load(BASE + PAGE_SIZE, 1))
    rig.pass_time(10 * WALK_NS)
    assert (access.done, device.waits, device.retries) == (False, 1, 0)
    client.let_go()
    rig.pass_time(WALK_NS)
    assert (migrating.done, access.value) == (True, b"\0")


def test_a_mirror_takes_what_is_present_behind_the_page(rig: Rig, mm: AddressSpace) -> None:
    device = Mirror(mm, BASE, PAGES * PAGE_SIZE)
    rig.store(mm, BASE, bytes(3 * PAGE_SIZE))
    rig.store(mm, BASE + 10 * PAGE_SIZE, bytes(22 * PAGE_SIZE))
    finish(rig, device.load(BASE, 1))
    finish(rig, device.load(BASE + 10 * PAGE_SIZE, 1))
    finish(rig, device.load(BASE + 30 * PAGE_SIZE, 1))
    assert [event.pages for event in rig.events(MmuInstall)] == [3, MIRROR_WINDOW, 2]


@pytest.mark.parametrize(("address", "length"), [(1, PAGE_SIZE), (BASE, 0), (1 << 63, PAGE_SIZE)])
def test_an_interval_that_is_none_is_refused(
    rig: Rig, mm: AddressSpace, address: int, length: int
) -> None:
    with pytest.raises(KernelError) as refusal:
        Mirror(mm, address, length)
    assert (refusal.value.errno, mm.notifiers.registered) == (errno.EINVAL, [])


def test_slots_are_checked_and_take_their_translations_along(rig: Rig, mm: AddressSpace) -> None:
    device = Guest(mm, references=False)
    device.set_slot(0, 2 * PAGE_SIZE, BASE + PAGE_SIZE)
    device.set_slot(4 * PAGE_SIZE, PAGE_SIZE, BASE)
    finish(rig, device.store(PAGE_SIZE, b"third page"))
    assert rig.load(mm, BASE + 2 * PAGE_SIZE, 10) == b"third page"
    for start, length, address, number in (
        (PAGE_SIZE, PAGE_SIZE, BASE, errno.EEXIST),
        (1, PAGE_SIZE, BASE, errno.EINVAL),
        (1 << 52, PAGE_SIZE, BASE, errno.EINVAL),
        (8 * PAGE_SIZE, PAGE_SIZE, BASE + 1, errno.EINVAL),
        (8 * PAGE_SIZE, 0, BASE, errno.ENOENT),
    ):
        with pytest.raises(KernelError) as refusal:
            device.set_slot(start, length, address)
        assert refusal.value.errno == number
    device.set_slot(0, 0, 0)
    assert device.held() == {}
    with pytest.raises(KernelError, match="no slot"):
        finish(rig, device.load(PAGE_SIZE, 1))
    for n in range(31):
        device.set_slot((10 + n) * PAGE_SIZE, PAGE_SIZE, BASE)
    with pytest.raises(KernelError, match="ENOSPC"):
        device.set_slot(0, PAGE_SIZE, BASE)


def test_one_page_may_be_in_two_slots_and_both_lose_it(rig: Rig, mm: AddressSpace) -> None:
    device = guest(mm)
    device.set_slot(0, PAGE_SIZE, BASE)
    finish(rig, device.store(0, b"x"))
    assert finish(rig, device.load(GUEST_BASE, 1)) == b"x"
    assert len(device.held()) == 2
    rig.run(munmap(mm, BASE, PAGE_SIZE))
    assert device.held() == {}


def test_references_come_and_go_with_translations(rig: Rig, mm: AddressSpace) -> None:
    device = guest(mm, references=True)
    finish(rig, device.store(GUEST_BASE, bytes(3 * PAGE_SIZE)))
    counts = rig.memory.frames.shadowed
    assert np.count_nonzero(counts) == 3
    rig.run(munmap(mm, BASE, PAGE_SIZE))
    assert np.count_nonzero(counts) == 2
    device.close()
    assert np.count_nonzero(counts) == 0


def test_the_oldest_makes_room(rig: Rig, mm: AddressSpace) -> None:
    device = guest(mm, references=True)
    finish(rig, device.load(GUEST_BASE, (MMU.shadow_entries + 2) * PAGE_SIZE))
    last = range(2, MMU.shadow_entries + 2)
    assert [page - (GUEST_BASE >> 12) for page in device.held()] == list(last)
    assert int(rig.memory.frames.shadowed.sum()) == MMU.shadow_entries
