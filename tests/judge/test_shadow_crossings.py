"""S14 where changes cross: what the model has lost sight of may still lead to memory of others.

In each story somebody's page is lost to the model, because two calls changed it at a time, and then
something is stored through it that shows elsewhere.
"""

from collections.abc import Callable
from typing import NamedTuple

import pytest

from xpmem_emu.codec import Buffer
from xpmem_emu.image import Image
from xpmem_emu.judge.checkers.shadow import Shadow
from xpmem_emu.judge.scene import Scene
from xpmem_emu.kernel import calls
from xpmem_emu.kernel.events import KernelBoot
from xpmem_emu.kernel.interface import Done, Reply, Request
from xpmem_emu.sim.task import SimTask
from xpmem_emu.units import PAGE_SIZE
from xpmem_emu.xpmem.ids import IdParts

from .judged import World, judged

READ = calls.PROT_READ
BOTH = calls.PROT_READ | calls.PROT_WRITE
SHARED = calls.MAP_SHARED
FIXED = calls.MAP_SHARED | calls.MAP_FIXED


class Scenery(NamedTuple):
    """A file that two tasks of p0 map; what `one` has of it is held by a task of p1, so that each
    change there has to wait for an answer."""

    world: World
    one: SimTask
    address: int
    two: SimTask
    there: int
    importer: SimTask
    attached: int

    def together(self, task: SimTask, *changes: calls.Call) -> list[object]:
        """Calls that cross; their values."""
        tickets = [task.begin(change) for change in changes]
        self.world.cluster.run_until(lambda: all(each.ended for each in tickets))
        outcomes = [each.outcome for each in tickets]
        assert all(isinstance(each, Done) for each in outcomes), outcomes
        return [each.value for each in outcomes if isinstance(each, Done)]

    def lose(self) -> None:
        """The model does not know any more what `one` has."""
        self.together(self.one, *[calls.Mprotect(self.one.pid, self.address, PAGE_SIZE, READ)] * 2)
        self.one.mprotect(self.address, PAGE_SIZE, BOTH)

    def hold(self) -> None:
        """The importer has the page of `one`, to store into."""
        self.importer.store(self.attached, b"held")


def scenery() -> Scenery:
    world = judged()
    world.cluster.call(0, calls.Creat("f", PAGE_SIZE))
    one, two, importer = (world.cluster.spawn(partid) for partid in (0, 0, 1))
    address, there = (each.mmap(PAGE_SIZE, flags=SHARED, file="f") for each in (one, two))
    apid = importer.xpmem_get(one.xpmem_make(address, PAGE_SIZE, 0o666))
    made = Scenery(
        world, one, address, two, there, importer, importer.xpmem_attach(apid, 0, PAGE_SIZE)
    )
    made.hold()
    return made


def store_of_an_importer(at: Scenery) -> None:
    """Chaos, seed 5003."""
    at.lose()
    at.importer.store(at.attached, b"by p1")


def stopped_store_of_an_importer(at: Scenery) -> None:
    at.lose()
    at.hold()
    entry = at.world.cluster.kernels[0].tasks.find(at.one.pid).mm.page_table.walk(at.address >> 12)
    landed = at.world.watch.shadow.caught(1, at.importer.pid, at.attached, 8)
    at.world.cluster.kernels[0].memory.frames.pages[entry >> 12][:8] = 7
    landed()


def store_of_a_child(at: Scenery) -> None:
    at.lose()
    at.one.fork().store(at.address, b"by a child")


def held_place(at: Scenery) -> int:
    """Private memory of `one` that the importer holds as well."""
    place = at.one.mmap(PAGE_SIZE)
    apid = at.importer.xpmem_get(at.one.xpmem_make(place, PAGE_SIZE, 0o666))
    at.importer.store(at.importer.xpmem_attach(apid, 0, PAGE_SIZE), b"held")
    return place


def store_into_what_was_mapped(at: Scenery) -> None:
    """A mapping of the file comes where another change goes on."""
    place = held_place(at)
    at.together(
        at.one,
        calls.Mprotect(at.one.pid, place, PAGE_SIZE, READ),
        calls.Mmap(at.one.pid, PAGE_SIZE, BOTH, FIXED, place, "f"),
    )
    at.one.store(place, b"through the new one")


def store_into_what_was_moved(at: Scenery) -> None:
    behind = at.address + PAGE_SIZE
    at.one.mmap(PAGE_SIZE, flags=calls.MAP_ANONYMOUS | FIXED, address=behind)
    _, new = at.together(
        at.one,
        calls.Mprotect(at.one.pid, at.address, PAGE_SIZE, READ),
        calls.Mremap(at.one.pid, at.address, PAGE_SIZE, 2 * PAGE_SIZE, calls.MREMAP_MAYMOVE),
    )
    assert isinstance(new, int)
    at.one.mprotect(new, PAGE_SIZE, BOTH)
    at.one.store(new, b"after the move")


def store_through_what_was_attached(at: Scenery) -> None:
    place = held_place(at)
    segid = at.two.xpmem_make(at.there, PAGE_SIZE, 0o666)
    at.together(
        at.one,
        calls.Mprotect(at.one.pid, place, PAGE_SIZE, READ),
        calls.XpmemAttach(at.one.pid, at.one.xpmem_get(segid), 0, PAGE_SIZE, place),
    )
    at.one.store(place, b"through the attachment")


CROSSED: list[Callable[[Scenery], None]] = [
    store_of_an_importer,
    stopped_store_of_an_importer,
    store_of_a_child,
    store_into_what_was_mapped,
    store_into_what_was_moved,
    store_through_what_was_attached,
]


@pytest.mark.parametrize("story", CROSSED, ids=lambda s: s.__name__)
def test_the_model_follows_what_it_lost(story: Callable[[Scenery], None]) -> None:
    at = scenery()
    story(at)
    at.two.load(at.there, PAGE_SIZE)
    at.world.watch.shadow.settled()
    assert at.world.invariants == set(), at.world.said()


class Told:
    """The model alone, told of calls and answers of one partition."""

    def __init__(self) -> None:
        self.scene = Scene(Image())
        self._shadow = Shadow(self.scene)
        self._shadow.handlers()[KernelBoot](0, KernelBoot(1, "sim", 64))
        self._calls = 0
        self("one", calls.Spawn(), 1)
        self("two", calls.Spawn(), 2)
        self("file", calls.Creat("f", PAGE_SIZE))
        self("two maps it", calls.Mmap(2, PAGE_SIZE, BOTH, SHARED, 0, "f"), THERE)

    def ask(self, call: calls.Call, bulk: Buffer = b"") -> int:
        self._calls += 1
        self._shadow.asked(0, Request(self._calls, call, bulk))
        return self._calls

    def answer(self, call_id: int, value: int | None = None, bulk: Buffer = b"") -> None:
        self._shadow.answered(0, Reply(call_id, Done(value, bulk)))

    def __call__(self, what: str, call: calls.Call, value: int | None = None) -> None:
        self.answer(self.ask(call), value)

    def wrong(self, *words: bytes) -> list[bytes]:
        """Those of the words that task two must not have loaded, one after the other."""
        found = []
        for word in words:
            before = len(self.scene.violations)
            self.answer(self.ask(calls.Load(2, THERE, len(word))), bulk=word)
            found += [word] * (len(self.scene.violations) - before)
        return found

    def stored_by_two(self) -> list[bytes]:
        """What is known again is judged again: two stores, and loads that and something else."""
        self.answer(self.ask(calls.Store(2, THERE), LATER))
        return self.wrong(LATER, OLD)


HERE, THERE = 0x10000, 0x20000
OLD, NEW, LATER = bytes(8), b"whoever?", b"by two.."


def test_a_store_under_way_may_go_to_what_is_mapped_there_next() -> None:
    told = Told()
    told("map", calls.Mmap(1, PAGE_SIZE), HERE)
    store = told.ask(calls.Store(1, HERE), NEW)
    told("unmap", calls.Munmap(1, HERE, PAGE_SIZE))
    told("map", calls.Mmap(1, PAGE_SIZE, BOTH, SHARED, 0, "f"), HERE)
    assert told.wrong(OLD, NEW, OLD) == []
    told.answer(store)
    assert told.wrong(OLD, NEW) == []
    assert told.stored_by_two() == [OLD]


def test_a_child_may_have_what_was_replaced_while_its_parent_forked() -> None:
    told = Told()
    told("map", calls.Mmap(1, PAGE_SIZE, BOTH, SHARED, 0, "f"), HERE)
    fork = told.ask(calls.Fork(1))
    told("replace", calls.Mmap(1, PAGE_SIZE, BOTH, 0x20 | FIXED, HERE), HERE)
    told.answer(fork, 3)
    told.answer(told.ask(calls.Store(3, HERE), NEW))
    assert told.wrong(OLD, NEW) == []
    assert told.stored_by_two() == [OLD]


def test_a_hole_may_be_in_the_file_that_was_mapped_meanwhile() -> None:
    told = Told()
    told.answer(told.ask(calls.Store(2, THERE), NEW))
    told("map", calls.Mmap(1, PAGE_SIZE, BOTH, 0x20 | SHARED), HERE)
    hole = told.ask(calls.Madvise(1, HERE, PAGE_SIZE, calls.MADV_REMOVE))
    told("replace", calls.Mmap(1, PAGE_SIZE, BOTH, FIXED, HERE, "f"), HERE)
    told.answer(hole)
    assert told.wrong(OLD, NEW) == []
    assert told.stored_by_two() == [OLD]


def test_the_rest_of_a_far_store_may_go_to_what_is_mapped_there_next() -> None:
    told = Told()
    segid, apid = IdParts(0, 1, 2, 1).pack(), IdParts(0, 1, 1, 1).pack()
    told("make", calls.XpmemMake(2, THERE, PAGE_SIZE, permit_value=0o666), segid)
    told("get", calls.XpmemGet(1, segid), apid)
    told("attach", calls.XpmemAttach(1, apid, 0, PAGE_SIZE, HERE), HERE)
    store = told.ask(calls.Store(1, HERE), NEW)
    told("unmap", calls.Munmap(1, HERE, PAGE_SIZE))
    told("map", calls.Mmap(1, PAGE_SIZE, BOTH, 0x20 | FIXED, HERE), HERE)
    told.answer(store)
    for seen in (OLD, NEW):
        told.answer(told.ask(calls.Load(1, HERE, len(seen))), bulk=seen)
    assert not told.scene.violations, told.scene.violations
    # It is over then: what is stored later is known.
    told("unmap", calls.Munmap(1, HERE, PAGE_SIZE))
    told("map", calls.Mmap(1, PAGE_SIZE, BOTH, 0x20 | FIXED, HERE), HERE)
    told.answer(told.ask(calls.Load(1, HERE, len(NEW))), bulk=NEW)
    assert [each.invariant for each in told.scene.violations] == ["S14"]
