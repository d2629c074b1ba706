"""The model's own bookkeeping of stores stays small, whatever is mapped meanwhile.

A judge that takes for ever tells nothing: in chaos seeds 1003 and 1378 pages were mapped over a
store that never ends, and what was remembered of it doubled with each of them.
"""

from xpmem_emu.judge.shadow.cells import Cell, Log, Order, Span, StoreFate
from xpmem_emu.judge.shadow.stores import Stores
from xpmem_emu.judge.shadow.world import Backing, ShadowPage, ShadowPartition, ShadowTask
from xpmem_emu.units import PAGE_SIZE

VPN = 7
TURNS = 40


def stores(task: ShadowTask) -> Stores:
    machine = ShadowPartition(task.partid)
    machine.tasks[task.pid] = task
    return Stores(Order(), {task.partid: machine}, {})


def fresh() -> ShadowPage:
    return ShadowPage(Backing.PRIVATE, prot=3, cell=Cell())


def open_spans(log: Log) -> list[Span]:
    return [span for span in log.crossing(0, 0, PAGE_SIZE) if span.end is None]


def test_maps_over_a_store_that_goes_on_do_not_double_it() -> None:
    task = ShadowTask(0, 1, None)
    model = stores(task)
    task.put(VPN, fresh())
    model.claimed(task, VPN, 0, 8, 0)
    pages = [fresh() for _ in range(TURNS)]
    for page in pages:
        model.clock.now += 1
        model.put(task, VPN, page, model.clock.now)
    assert len(open_spans(task.stores)) == 1
    for page in pages:
        assert page.cell is not None
        assert len(open_spans(page.cell.writes)) == 1


def test_what_follows_a_store_ends_with_it() -> None:
    task = ShadowTask(0, 1, None)
    model = stores(task)
    task.put(VPN, fresh())
    [part] = model.claimed(task, VPN, 0, 8, 0)
    later = fresh()
    model.put(task, VPN, later, 0)
    model.clock.now += 1
    model.settle(part, bytes(8), StoreFate.MAYBE, 0)
    assert later.cell is not None
    assert open_spans(later.cell.writes) == open_spans(task.stores) == []


def test_two_logs_that_follow_each_other_hold_a_store_once_each() -> None:
    here, there = Log(), Log()
    store = here.begin(1, VPN, VPN + 1, 0)
    for now in range(2, TURNS):
        for one, other in ((here, there), (there, here)):
            for span in one.crossing(now, VPN, VPN + 1):
                other.follow(span, now, VPN, VPN + 1, 0)
    assert len(open_spans(here)) == len(open_spans(there)) == 1
    store.close(TURNS)
    assert open_spans(here) == open_spans(there) == []
