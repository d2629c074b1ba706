"""What holds for every secondary MMU, whatever becomes of the task's memory."""

import errno
from collections.abc import Callable

import pytest

from tests.mm.rig import Client, Rig, Work
from tests.mm.test_special import FLAGS, Foreign
from xpmem_emu.errors import KernelError, Signal, Signalled
from xpmem_emu.mm import (
    AddressSpace,
    Prot,
    Remap,
    exit_mmap,
    fork,
    madvise,
    migrate_range,
    mprotect,
    mremap,
    munmap,
    reclaim_range,
    zap_special,
)
from xpmem_emu.mm.memory_failure import poison_frame
from xpmem_emu.mm.vma_ops import DeadOps
from xpmem_emu.mmu.events import MmuAttach, MmuDetach, MmuInvalidate, MmuWait
from xpmem_emu.mmu.mirror import Mirror
from xpmem_emu.mmu.secondary import SecondaryMmu
from xpmem_emu.units import PAGE_SIZE

from .bench import BASE, KINDS, PAGES, at, backed, finish, guest

TRIGGERS: dict[str, Callable[[AddressSpace], Work]] = {
    "munmap": lambda mm: munmap(mm, BASE, PAGE_SIZE),
    "madvise dontneed": lambda mm: madvise(mm, BASE, PAGE_SIZE, 4),
    "madvise pageout": lambda mm: madvise(mm, BASE, PAGE_SIZE, 21),
    "reclaim": lambda mm: reclaim_range(mm, BASE, PAGE_SIZE, 1),
    "migrate": lambda mm: migrate_range(mm, BASE, PAGE_SIZE),
    "mprotect": lambda mm: mprotect(mm, BASE, PAGE_SIZE, Prot.READ),
    "fork": lambda mm: fork(mm, 2),
    "mremap": lambda mm: mremap(
        mm, BASE, PAGE_SIZE, PAGE_SIZE, Remap.MAYMOVE | Remap.FIXED, 0x50_0000
    ),
}


def refused(rig: Rig, work: Work) -> int:
    with pytest.raises(KernelError) as refusal:
        finish(rig, work)
    return refusal.value.errno


def test_loads_and_stores_reach_the_memory_of_the_task(
    rig: Rig, mm: AddressSpace, device: SecondaryMmu
) -> None:
    data = bytes(range(256)) * 40
    finish(rig, device.store(at(device, 0) + 100, data))
    assert rig.load(mm, BASE + 100, len(data)) == data
    rig.store(mm, BASE + 200, b"other")
    assert finish(rig, device.load(at(device, 0) + 200, 5)) == b"other"
    assert device.misses


@pytest.mark.parametrize("why", TRIGGERS)
def test_a_translation_goes_in_the_step_that_changes_the_entry(
    rig: Rig, mm: AddressSpace, device: SecondaryMmu, why: str
) -> None:
    finish(rig, device.store(at(device, 0), b"page"))
    finish(rig, device.store(at(device, 5), b"kept"))
    client = Client(rig, BASE).attach(mm)
    client.hold()
    operation = rig.start(TRIGGERS[why](mm))
    assert not operation.done
    assert backed(device)
    assert at(device, 0) >> 12 not in device.held()
    client.let_go()
    operation.value  # noqa: B018
    mm.notifiers.unregister(client)
    if why in ("munmap", "mremap"):
        assert refused(rig, device.load(at(device, 0), 4)) == errno.EFAULT
    else:
        expected = b"page" if why != "madvise dontneed" else bytes(4)
        assert finish(rig, device.load(at(device, 0), 4)) == expected
    assert finish(rig, device.load(at(device, 5), 4)) == b"kept"


def test_a_store_through_a_translation_breaks_copy_on_write(
    rig: Rig, mm: AddressSpace, device: SecondaryMmu
) -> None:
    rig.store(mm, BASE, b"parent")
    child = rig.run(fork(mm, 2))
    assert finish(rig, device.load(at(device, 0), 6)) == b"parent"
    finish(rig, device.store(at(device, 0), b"DEVICE"))
    assert rig.load(child, BASE, 6) == b"parent"
    assert rig.load(mm, BASE, 6) == b"DEVICE"


def test_what_a_device_may_not_touch_is_an_error_and_no_signal(
    rig: Rig, mm: AddressSpace, device: SecondaryMmu
) -> None:
    rig.run(mprotect(mm, BASE, PAGE_SIZE, Prot.READ))
    assert refused(rig, device.store(at(device, 0), b"x")) == errno.EFAULT
    rig.run(munmap(mm, BASE, PAGE_SIZE))
    assert refused(rig, device.load(at(device, 0), 1)) == errno.EFAULT
    assert refused(rig, device.load(1 << 63, 1)) == errno.EFAULT
    assert device.held() == {}


def test_a_frame_that_went_bad_is_an_input_output_error(
    rig: Rig, mm: AddressSpace, device: SecondaryMmu
) -> None:
    finish(rig, device.store(at(device, 0), b"x"))
    frame = rig.frame(mm, BASE)
    poison_frame(rig.memory, rig.memory.partid, frame)
    assert refused(rig, device.load(at(device, 0), 1)) == errno.EIO
    rig.run(munmap(mm, BASE, PAGE_SIZE))
    rig.memory.frames.unpoison(frame)


def test_special_entries_are_dropped_at_once_and_nothing_waits(
    rig: Rig, mm: AddressSpace, device: SecondaryMmu
) -> None:
    ops = Foreign(rig)
    rig.map(mm, 4, flags=FLAGS, ops=ops, address=BASE, fixed=True)
    finish(rig, device.store(at(device, 0), b"to another partition"))
    assert ops.memory[PAGE_SIZE : PAGE_SIZE + 20] == b"to another partition"
    rig.events(MmuInvalidate).clear()
    zap_special(mm, BASE, BASE + 4 * PAGE_SIZE)
    assert device.held() == {}
    assert [event.settles for event in rig.events(MmuInvalidate)][-1] is False
    assert not device.active(BASE, BASE + PAGE_SIZE)
    assert finish(rig, device.load(at(device, 0), 2)) == b"to"


def test_a_device_asks_like_the_processor_whether_an_attachment_lives(
    rig: Rig, mm: AddressSpace, device: SecondaryMmu
) -> None:
    rig.map(mm, 4, flags=FLAGS, ops=Foreign(rig), address=BASE, fixed=True)
    finish(rig, device.load(at(device, 0), 1))
    vma = mm.vmas.find(BASE)
    assert vma is not None
    vma.ops = DeadOps("cut off")
    assert refused(rig, device.load(at(device, 0), 1)) == errno.EFAULT


def test_a_task_has_one_device_of_a_kind_and_one_that_exits_none(
    rig: Rig, mm: AddressSpace, device: SecondaryMmu
) -> None:
    kind = next(make for name, make in KINDS.items() if name.split()[0] == device.kind)
    with pytest.raises(KernelError, match="EEXIST"):
        kind(rig, mm)
    rig.run(exit_mmap(mm))
    assert not device.open
    assert device.held() == {}
    with pytest.raises(KernelError, match="ESRCH"):
        kind(rig, mm)
    names = [(event.device, event.pid) for event in rig.events(MmuAttach)]
    assert names == [(event.device, event.pid) for event in rig.events(MmuDetach)]


def test_who_is_detached_while_a_miss_is_under_way_installs_nothing(
    rig: Rig, mm: AddressSpace, device: SecondaryMmu
) -> None:
    client = Client(rig).attach(mm)
    client.hold()
    unmapping = rig.start(munmap(mm, BASE + PAGE_SIZE, PAGE_SIZE))
    access = rig.start(device.load(at(device, 1), 1))
    device.close()
    client.let_go()
    rig.pass_time(10_000)
    assert unmapping.done
    assert device.held() == {}
    with pytest.raises(KernelError):
        access.value  # noqa: B018


@pytest.mark.parametrize("kind", ["gru", "mirror"])
def test_a_miss_in_an_active_range_waits_and_can_be_killed(
    rig: Rig, mm: AddressSpace, kind: str
) -> None:
    client = Client(rig).attach(mm)  # before the device, whose range is active until its own sync
    device = KINDS[kind](rig, mm)
    client.hold()
    rig.store(mm, BASE + 3 * PAGE_SIZE, b"m")
    migrating = rig.start(migrate_range(mm, BASE + 3 * PAGE_SIZE, PAGE_SIZE))
    first, second = (rig.start(device.load(at(device, 3), 1)) for _ in range(2))
    rig.pass_time(10_000)
    assert len(rig.events(MmuWait)) == 2
    assert device.held() == {}
    rig.scheduler.kill(second.thread)
    rig.pass_time(0)
    with pytest.raises(Signalled) as signalled:
        second.value  # noqa: B018
    assert signalled.value.info.signal is Signal.SIGKILL
    client.let_go()
    rig.pass_time(10_000)
    assert migrating.done
    assert first.value == b"m"
    assert backed(device)


def test_what_is_settled_in_parts_is_settled(rig: Rig, mm: AddressSpace) -> None:
    device = KINDS["gru"](rig, mm)
    with mm.page_table_lock:
        mm.notifiers.invalidate_range(BASE, BASE + 4 * PAGE_SIZE)
    rig.run(mm.notifiers.invalidate_range_sync(BASE + PAGE_SIZE, BASE + 2 * PAGE_SIZE))
    assert [device.active(at(device, n), at(device, n + 1)) for n in range(4)] == [
        True,
        False,
        True,
        True,
    ]
    rig.run(mm.notifiers.invalidate_range_sync(0, BASE + PAGES * PAGE_SIZE))
    assert not device.active(0, 1 << 47)


def test_a_device_is_told_only_of_what_it_may_have(rig: Rig, mm: AddressSpace) -> None:
    elsewhere = rig.map(mm, 1)
    rig.store(mm, elsewhere, b"x")
    devices = [guest(mm), Mirror(mm, BASE, PAGES * PAGE_SIZE)]
    rig.run(munmap(mm, elsewhere, PAGE_SIZE))
    assert rig.events(MmuInvalidate) == []
    assert [device.sequence for device in devices] == [0, 0]
