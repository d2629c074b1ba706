"""The GRU: few entries, few contexts, few ASIDs, and misses that wait (sources T13)."""

import errno

import pytest

from tests.mm.rig import Client, Rig
from xpmem_emu.errors import KernelError
from xpmem_emu.mm import AddressSpace, migrate_range, munmap
from xpmem_emu.mmu.events import AsidsExhausted, MmuInvalidate, MmuWait
from xpmem_emu.mmu.gru import ASID_FIRST, ASID_STEP, Gru, GruContext
from xpmem_emu.units import PAGE_SIZE

from .bench import BASE, MMU, PAGES, backed


@pytest.fixture
def gru(rig: Rig) -> Gru:
    return Gru(MMU, rig.tracer)


def test_the_oldest_translation_goes_when_there_is_no_room(
    rig: Rig, mm: AddressSpace, gru: Gru
) -> None:
    context = GruContext(mm, gru)
    rig.run(context.store(BASE, bytes(PAGES * PAGE_SIZE)))
    last = range((BASE >> 12) + PAGES - MMU.gru_entries, (BASE >> 12) + PAGES)
    assert list(context.held()) == list(last)


def test_contexts_share_the_entries_and_see_their_own_memory(rig: Rig, gru: Gru) -> None:
    spaces = [rig.space(pid) for pid in (1, 2)]
    contexts = [GruContext(mm, gru) for mm in spaces]
    for mm, context in zip(spaces, contexts, strict=True):
        rig.map(mm, 1, address=BASE, fixed=True)
        rig.run(context.store(BASE, b"task %d" % mm.pid))
    assert [bytes(rig.run(each.load(BASE, 6))) for each in contexts] == [b"task 1", b"task 2"]
    rig.run(munmap(spaces[0], BASE, PAGE_SIZE))
    assert [len(each.held()) for each in contexts] == [0, 1]


def test_one_range_is_one_flush(rig: Rig, mm: AddressSpace, gru: Gru) -> None:
    context = GruContext(mm, gru)
    rig.run(context.store(BASE, bytes(4 * PAGE_SIZE)))
    rig.run(munmap(mm, BASE, PAGES * PAGE_SIZE))
    (told,) = rig.events(MmuInvalidate)
    assert (told.start, told.end, told.dropped) == (BASE, BASE + PAGES * PAGE_SIZE, 4)


def test_a_miss_waits_for_any_range_of_its_memory_and_of_no_other(rig: Rig, gru: Gru) -> None:
    spaces = [rig.space(pid) for pid in (1, 2)]
    client = Client(rig).attach(spaces[0])
    contexts = [GruContext(mm, gru) for mm in spaces]
    for mm in spaces:
        rig.map(mm, 2, address=BASE, fixed=True)
        rig.store(mm, BASE, bytes(2 * PAGE_SIZE))
    client.hold()
    migrating = rig.start(migrate_range(spaces[0], BASE, PAGE_SIZE))
    waiting = rig.start(contexts[0].load(BASE + PAGE_SIZE, 1))
    assert not waiting.done
    assert rig.run(contexts[1].load(BASE, 1)) == b"\0"
    client.let_go()
    assert (migrating.done, waiting.value) == (True, b"\0")
    assert [event.pid for event in rig.events(MmuWait)] == [1]


def test_a_range_that_becomes_active_in_the_walk_keeps_the_translation_out(
    rig: Rig, mm: AddressSpace, gru: Gru
) -> None:
    context = GruContext(mm, gru)
    walk = context.walk

    async def slow(address: int, write: bool) -> int:
        context.invalidate_range(address, address + PAGE_SIZE)
        return await walk(address, write)

    context.walk = slow  # type: ignore[method-assign]
    access = rig.start(context.load(BASE, 1))
    assert (access.done, context.held()) == (False, {})
    context.walk = walk  # type: ignore[method-assign]
    rig.run(mm.notifiers.invalidate_range_sync(BASE, BASE + PAGE_SIZE))
    assert access.value == b"\0"


def test_asids_come_again_only_after_everything_was_flushed(rig: Rig, gru: Gru) -> None:
    numbers = []
    lasting = rig.space(9)
    rig.map(lasting, 1, address=BASE, fixed=True)
    kept = GruContext(lasting, gru)
    for pid in range(1, 8):
        mm = rig.space(pid)
        rig.map(mm, 1, address=BASE, fixed=True)
        rig.run(kept.store(BASE, b"lasting"))
        context = GruContext(mm, gru)
        assert bytes(rig.run(context.load(BASE, 7))) == bytes(7)
        rig.run(context.store(BASE, b"task %2d" % pid))
        assert rig.run(kept.load(BASE, 7)) == b"lasting"
        assert backed(context)
        numbers.append(context.asid)
        context.close()
    free = [ASID_FIRST + n * ASID_STEP for n in range(1, MMU.gru_asids)]
    assert numbers == (free * 3)[:7]
    assert [event.generation for event in rig.events(AsidsExhausted)] == [1, 2]


def test_an_asid_that_was_kept_over_a_flush_is_not_given_out_before_the_next(
    rig: Rig, gru: Gru
) -> None:
    """Its context goes on after the flush, and ends before its number has its turn."""
    spaces = [rig.space(pid) for pid in range(1, 12)]
    for mm in spaces:
        rig.map(mm, 1, address=BASE, fixed=True)
    for mm in spaces[1 : MMU.gru_asids]:
        GruContext(mm, gru).close()
    lasting = GruContext(spaces[0], gru)
    GruContext(spaces[4], gru).close()
    assert gru.generation == 1
    rig.run(lasting.store(BASE, b"left behind"))
    lasting.close()
    for mm in spaces[5:]:
        context = GruContext(mm, gru)
        assert context.held() == {}
        context.close()


def test_one_context_too_many_is_refused_and_changes_nothing(rig: Rig, gru: Gru) -> None:
    contexts = [GruContext(rig.space(pid), gru) for pid in range(MMU.gru_contexts)]
    mm = rig.space(9)
    with pytest.raises(KernelError) as refusal:
        GruContext(mm, gru)
    assert (refusal.value.errno, mm.notifiers.registered) == (errno.EBUSY, [])
    contexts[0].close()
    GruContext(mm, gru)
