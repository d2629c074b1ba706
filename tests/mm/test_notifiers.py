"""Every trigger reaches the notifiers: invalidate, clear, sync, free (sources T12, T15, T23)."""

from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from xpmem_emu.errors import KernelBug
from xpmem_emu.mm import (
    AddressSpace,
    Prot,
    Remap,
    create_file,
    exit_mmap,
    fork,
    madvise,
    migrate_range,
    mmap,
    mprotect,
    mremap,
    munmap,
    reclaim_range,
    store,
    writeback,
    zap_page_range,
)
from xpmem_emu.mm.events import FramesFree
from xpmem_emu.mm.truncate import truncate
from xpmem_emu.units import PAGE_SIZE

from .rig import RW, Client, Rig

Trigger = Callable[[Rig, AddressSpace, int], Coroutine[Any, Any, Any]]

FREEING: dict[str, Trigger] = {
    "munmap": lambda rig, mm, at: munmap(mm, at, PAGE_SIZE),
    "mmap over": lambda rig, mm, at: rig_map_over(rig, mm, at),
    "madvise dontneed": lambda rig, mm, at: madvise(mm, at, PAGE_SIZE, 4),
    "madvise remove": lambda rig, mm, at: madvise(mm, at, PAGE_SIZE, 9),
    "madvise pageout": lambda rig, mm, at: madvise(mm, at, PAGE_SIZE, 21),
    "zap_page_range": lambda rig, mm, at: zap_page_range(mm, at, PAGE_SIZE),
    "mremap shrinks": lambda rig, mm, at: mremap(mm, at - PAGE_SIZE, 2 * PAGE_SIZE, PAGE_SIZE),
    "truncate": lambda rig, mm, at: truncate(rig.memory, rig.memory.files.lookup("f"), PAGE_SIZE),
    "reclaim": lambda rig, mm, at: reclaim_range(mm, at, PAGE_SIZE, 1),
    "migrate": lambda rig, mm, at: migrate_range(mm, at, PAGE_SIZE),
}
KEEPING: dict[str, Trigger] = {
    "mprotect": lambda rig, mm, at: mprotect(mm, at, PAGE_SIZE, Prot.READ),
    "mremap moves": lambda rig, mm, at: mremap(
        mm, at, PAGE_SIZE, PAGE_SIZE, Remap.MAYMOVE | Remap.FIXED, 0x50_0000
    ),
    "page_mkclean": lambda rig, mm, at: writeback(rig.memory, rig.memory.files.lookup("f")),
}
NEEDS_SHARED_FILE = {"madvise remove", "truncate", "page_mkclean"}


async def rig_map_over(rig: Rig, mm: AddressSpace, at: int) -> None:
    from xpmem_emu.mm import MapRequest

    await mmap(mm, MapRequest(PAGE_SIZE, address=at, fixed=True, prot=Prot.READ))


def watched_page(rig: Rig, mm: AddressSpace, why: str) -> int:
    """The second page of a mapping of two, resident and written."""
    from xpmem_emu.mm import VmaFlags

    if why in NEEDS_SHARED_FILE:
        inode = create_file(rig.memory, "f", 2 * PAGE_SIZE)
        at = rig.map(mm, 2, inode=inode, flags=VmaFlags.SHARED)
    else:
        at = rig.map(mm, 2)
    rig.store(mm, at, bytes(2 * PAGE_SIZE))
    return at + PAGE_SIZE


@pytest.mark.parametrize("why", FREEING)
def test_a_frame_is_freed_only_after_every_holder_is_done(rig: Rig, why: str) -> None:
    mm = rig.space()
    at = watched_page(rig, mm, why)
    client = Client(rig, watched=at).attach(mm)
    frame = rig.frame(mm, at)
    client.hold()
    operation = rig.start(FREEING[why](rig, mm, at))
    assert not operation.done
    assert client.kinds() == ["invalidate"]
    assert rig.memory.frames.refcount[frame] > 0
    assert rig.events(FramesFree) == []
    client.let_go()
    assert operation.done
    operation.value  # noqa: B018
    # (entry usable, frame in use): both before the entry is cleared, only the frame at the sync.
    # At the end, which a transit has not, neither, and nobody counts on this operation any more.
    assert client.seen[:2] == [("invalidate", True, True), ("sync", False, True)]
    transit = why in ("migrate", "reclaim", "madvise pageout")
    assert client.seen[2:] == ([] if transit else [("end", False, False)])
    assert not any(owed for _, _, owed in client.ended)
    assert frame in {f + i for e in rig.events(FramesFree) for f, n in e.extents for i in range(n)}


@pytest.mark.parametrize("why", KEEPING)
def test_weakened_entries_are_announced_and_synced_but_nothing_is_freed(rig: Rig, why: str) -> None:
    mm = rig.space()
    at = watched_page(rig, mm, why)
    client = Client(rig, watched=at).attach(mm)
    client.hold()
    operation = rig.start(KEEPING[why](rig, mm, at))
    assert not operation.done
    assert client.seen[0] == ("invalidate", True, True)
    client.let_go()
    assert operation.done
    assert "sync" in client.kinds()
    assert rig.events(FramesFree) == []


@pytest.mark.parametrize("why", [*FREEING, *KEEPING])
def test_the_sync_covers_what_was_invalidated(rig: Rig, why: str) -> None:
    mm = rig.space()
    at = watched_page(rig, mm, why)
    client = Client(rig, watched=at).attach(mm)
    rig.run((FREEING | KEEPING)[why](rig, mm, at))
    owed: list[tuple[int, int]] = []
    for kind, start, end in client.calls:
        if kind == "invalidate":
            owed.append((start, end))
        else:
            owed = [(a, b) for a, b in owed if a < start or b > end]
    assert owed == []
    assert any(start <= at < end for kind, start, end in client.calls if kind == "sync")


def test_fork_announces_the_writable_private_areas_of_the_parent(rig: Rig) -> None:
    mm = rig.space()
    private = rig.map(mm, 1)
    readonly = rig.map(mm, 1, prot=Prot.READ)
    shared = rig.shared(mm, 1)
    for at in (private, shared):
        rig.store(mm, at, b"x")
    rig.load(mm, readonly, 1)
    client = Client(rig, watched=private).attach(mm)
    rig.run(fork(mm, 2))
    page = (private, private + PAGE_SIZE)
    assert client.calls == [("invalidate", *page), ("sync", *page)]


def test_copy_on_write_announces_the_page(rig: Rig) -> None:
    mm = rig.space()
    at = rig.map(mm, 1)
    rig.store(mm, at, b"x")
    rig.run(fork(mm, 2))
    client = Client(rig, watched=at).attach(mm)
    rig.run(store(mm, at, b"y"))
    assert client.seen == [("invalidate", True, True), ("sync", False, True)]


def test_exit_releases_the_notifiers_before_any_page_goes(rig: Rig) -> None:
    mm = rig.space()
    at = rig.map(mm, 2)
    rig.store(mm, at, bytes(2 * PAGE_SIZE))
    client = Client(rig, watched=at).attach(mm)
    rig.run(exit_mmap(mm))
    assert client.seen == [("release", True, True), ("end", False, False)]
    assert mm.notifiers.registered == []


def test_one_operation_tells_once_about_a_range_of_many_areas_and_pages(rig: Rig) -> None:
    mm = rig.space()
    at = rig.map(mm, 60, address=0x10_0000, fixed=True)
    rig.store(mm, at, bytes(60 * PAGE_SIZE))
    for page in range(0, 60, 2):
        rig.run(mprotect(mm, at + page * PAGE_SIZE, PAGE_SIZE, Prot.READ))
    client = Client(rig).attach(mm)
    rig.run(munmap(mm, at, 60 * PAGE_SIZE))
    whole = (at, at + 60 * PAGE_SIZE)
    assert client.calls == [("invalidate", *whole), ("sync", *whole)]


def test_several_notifiers_are_told_in_order_and_one_that_leaves_is_left_alone(rig: Rig) -> None:
    mm = rig.space()
    at = rig.map(mm, 1)
    rig.store(mm, at, b"x")
    first, second = Client(rig).attach(mm), Client(rig).attach(mm)
    first.hold()
    operation = rig.start(munmap(mm, at, PAGE_SIZE))
    assert second.kinds() == ["invalidate"]
    mm.notifiers.unregister(second)
    first.let_go()
    assert operation.done
    assert second.kinds() == ["invalidate"]
    assert first.ended == second.ended == [(at, at + PAGE_SIZE, 0)]  # who was told is waited for
    with pytest.raises(KernelBug):
        mm.notifiers.register(first)


def test_an_address_space_without_notifiers_is_never_told_nor_waited_for(rig: Rig) -> None:
    told: list[str] = []

    class Chain:
        registered: list[object] = []  # noqa: RUF012

        def __getattr__(self, name: str) -> object:
            told.append(name)
            raise AssertionError(name)

    mm = rig.space()
    at = rig.map(mm, 4)
    rig.store(mm, at, bytes(4 * PAGE_SIZE))
    chain, mm.notifiers = mm.notifiers, Chain()  # type: ignore[assignment]
    rig.run(mprotect(mm, at, PAGE_SIZE, Prot.READ))
    rig.run(mprotect(mm, at, PAGE_SIZE, RW))
    rig.run(madvise(mm, at, PAGE_SIZE, 4))
    rig.run(reclaim_range(mm, at, 4 * PAGE_SIZE, 4))
    rig.run(fork(mm, 2))
    rig.run(munmap(mm, at, 4 * PAGE_SIZE))
    mm.notifiers = chain
    assert told == []
