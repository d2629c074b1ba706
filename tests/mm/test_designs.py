"""What each notifier design tells a client, and when (sources T11, T12, T13, T15)."""

from collections.abc import Iterator
from unittest.mock import patch

import pytest

from xpmem_emu.errors import KernelBug
from xpmem_emu.image import MmSection, NotifierDesign, RmapLock
from xpmem_emu.mm import AddressSpace, Prot, migrate_range, mprotect, munmap
from xpmem_emu.mm.designs import DESIGNS, PAGE_TABLE_PAGES
from xpmem_emu.mm.entries import zap
from xpmem_emu.mm.gather import Gather
from xpmem_emu.sched import Completion
from xpmem_emu.units import PAGE_SIZE

from .conftest import finish
from .rig import Client, Rig

TABLE = PAGE_TABLE_PAGES * PAGE_SIZE
BASE = 4 * TABLE


def boot(design: str, lock: str = "spinlock") -> Rig:
    return Rig(frames=2048, mm=MmSection(NotifierDesign(design), RmapLock(lock)))


@pytest.fixture
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    rig = boot(*request.param.split())
    yield rig
    finish(rig)


def sparse(rig: Rig) -> tuple[AddressSpace, Client]:
    """Memory of two and a half page tables, with pages in the first and in the last."""
    mm = rig.space()
    rig.map(mm, 5 * PAGE_TABLE_PAGES // 2, address=BASE, fixed=True)
    for page in (1, 2, 2 * PAGE_TABLE_PAGES):
        rig.store(mm, BASE + page * PAGE_SIZE, b"x")
    return mm, Client(rig, watched=BASE + PAGE_SIZE).attach(mm)


def test_every_design_of_an_image_exists() -> None:
    assert set(DESIGNS) == set(NotifierDesign)


@pytest.mark.parametrize("rig", ["page"], indirect=True)
def test_page_by_page_only_those_that_are_there_are_told_of(rig: Rig) -> None:
    mm, client = sparse(rig)
    rig.run(munmap(mm, BASE, 5 * TABLE // 2))
    pages = [BASE + page * PAGE_SIZE for page in (1, 2, 2 * PAGE_TABLE_PAGES)]
    assert client.calls == [("pages", at, at + PAGE_SIZE) for at in pages]
    assert client.seen[0] == ("pages", True, True)
    assert mm.notifiers.calls == 3


@pytest.mark.parametrize("rig", ["pages"], indirect=True)
def test_a_call_for_each_page_table_ends_where_the_range_does(rig: Rig) -> None:
    mm, client = sparse(rig)
    rig.run(munmap(mm, BASE + PAGE_SIZE, 5 * TABLE // 2 - PAGE_SIZE))
    assert client.calls == [
        ("pages", BASE + PAGE_SIZE, BASE + TABLE),
        ("pages", BASE + 2 * TABLE, BASE + 5 * TABLE // 2),
    ]


@pytest.mark.parametrize("rig", ["gather"], indirect=True)
def test_gathered_a_client_hears_of_everything_once_and_before_any_frame_goes(rig: Rig) -> None:
    mm, client = sparse(rig)
    client.hold()
    rig.audits = False  # it holds references while it waits
    operation = rig.start(migrate_range(mm, BASE, 5 * TABLE // 2))  # page by page, under the locks
    assert client.calls == [("invalidate", BASE + PAGE_SIZE, BASE + 2 * TABLE + PAGE_SIZE)]
    assert client.seen == [("invalidate", False, True)]
    client.let_go()
    assert operation.done
    assert client.kinds() == ["invalidate", "sync"]


@pytest.mark.parametrize("rig", ["deferred"], indirect=True)
def test_deferred_a_client_hears_of_each_range_and_syncs_once(rig: Rig) -> None:
    mm, client = sparse(rig)
    rig.run(migrate_range(mm, BASE, 5 * TABLE // 2))
    assert client.kinds() == ["invalidate", "invalidate", "sync"]


@pytest.mark.parametrize("rig", ["range", "interval"], indirect=True)
def test_a_range_has_a_start_before_and_an_end_after_the_change(rig: Rig) -> None:
    mm, client = sparse(rig)
    rig.run(munmap(mm, BASE, 5 * TABLE // 2))
    whole = (BASE, BASE + 5 * TABLE // 2)
    assert client.calls == [("start", *whole), ("sync", *whole)]
    assert client.seen[:2] == [("start", True, True), ("sync", False, True)]
    assert mm.notifiers.active == []


@pytest.mark.parametrize("rig", ["interval"], indirect=True)
def test_only_who_watches_an_interval_hears_of_it(rig: Rig) -> None:
    mm, client = sparse(rig)
    rig.run(munmap(mm, BASE + 2 * PAGE_SIZE, TABLE))
    assert client.calls == []
    rig.run(munmap(mm, BASE, TABLE))
    assert client.kinds() == ["start", "sync"]


@pytest.mark.parametrize("rig", ["range rwsem"], indirect=True)
def test_who_subscribes_in_between_is_told_of_what_is_under_way(rig: Rig) -> None:
    mm, client = sparse(rig)
    gate = client.start_gate = Completion(rig.scheduler)
    rig.audits = False
    operation = rig.start(munmap(mm, BASE, PAGE_TABLE_PAGES * PAGE_SIZE))
    told: list[tuple[int, int]] = []
    late = Client(rig, watched=BASE)
    with patch.object(late, "invalidate_range", lambda start, end: told.append((start, end))):
        late.attach(mm)
    assert told == [(BASE, BASE + TABLE)]
    gate.complete(None)
    rig.go_on()
    assert operation.done
    assert late.kinds() == ["sync"]


def test_a_change_that_nobody_was_told_of_is_a_bug() -> None:
    rig = boot("range")
    mm, _ = sparse(rig)

    async def hasty() -> None:
        async with Gather(rig.memory) as gather:
            zap(mm, gather, BASE, BASE + TABLE, "test")

    with pytest.raises(KernelBug, match="without a start"):
        rig.run(hasty())


@pytest.mark.parametrize("design", ["range", "interval"])
def test_a_client_that_sleeps_in_a_walk_under_a_spinlock_is_reported(design: str) -> None:
    rig = boot(design)
    mm, client = sparse(rig)
    client.start_gate = Completion(rig.scheduler)
    rig.audits = False
    walk = rig.start(migrate_range(mm, BASE + PAGE_SIZE, PAGE_SIZE))
    with pytest.raises(KernelBug, match=r"invalid context: test holds spinlock anon_vma"):
        walk.value  # noqa: B018


@pytest.mark.parametrize("rig", ["range rwsem", "interval rwsem"], indirect=True)
def test_under_a_semaphore_it_may_and_who_changes_areas_waits(rig: Rig) -> None:
    mm, client = sparse(rig)
    gate = client.start_gate = Completion(rig.scheduler)
    rig.audits = False
    walk = rig.start(migrate_range(mm, BASE + PAGE_SIZE, PAGE_SIZE))
    client.watched = BASE + 2 * TABLE
    client.start_gate = None
    change = rig.start(mprotect(mm, BASE + 2 * TABLE, PAGE_SIZE, Prot.READ))
    assert not walk.done
    assert not change.done
    assert len(list(mm.vmas)) == 1
    gate.complete(None)
    rig.go_on()
    assert walk.done
    assert change.done
    assert len(list(mm.vmas)) == 3


@pytest.mark.parametrize("rig", list(NotifierDesign), indirect=True)
def test_under_every_design_a_client_knows_before_a_page_is_used_again(rig: Rig) -> None:
    mm, client = sparse(rig)
    rig.run(mprotect(mm, BASE, TABLE, Prot.READ))
    rig.run(munmap(mm, BASE, 5 * TABLE // 2))
    for page in (1, 2):
        at = BASE + page * PAGE_SIZE
        told = [kind for kind, start, end in client.calls if start <= at < end]
        assert len([kind for kind in told if kind != "sync"]) == 2
    assert all(in_use for call, _, in_use in client.seen if call != "end")
