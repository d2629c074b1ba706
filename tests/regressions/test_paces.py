"""Found by a campaign of 10,000 seeds: paces and clocks that let events in where none may come."""

from functools import partial

from xpmem_emu.inject.throttle import Throttle
from xpmem_emu.sim.cluster import SimCluster
from xpmem_emu.sim.injection.injections import SimInjections


def test_the_end_of_a_throttle_takes_what_it_put_off_before_anything_else() -> None:
    """Seed 2290: an unpoison overtook its poison."""
    pace = Throttle()
    taken: list[int] = []
    pace.throttle(10)
    assert [pace.defer(0, partial(taken.append, each)) for each in range(4)] == [0, 10, 20, 30]
    pace.due(10)
    assert taken == [1]
    for event in pace.unthrottle():
        event()
    assert taken == [1, 2, 3]
    assert pace.free
    pace.due(30)
    assert taken == [1, 2, 3]


def test_a_stall_keeps_what_a_throttle_put_off() -> None:
    pace = Throttle()
    taken: list[int] = []
    pace.throttle(10)
    for each in range(3):
        pace.defer(0, partial(taken.append, each))
    pace.stall()
    pace.due(20)
    assert pace.unthrottle() == []
    assert taken == []
    assert len(pace.go_on()) == 2


def test_a_stopped_partition_takes_no_step_when_its_clock_changes_or_a_put_off_event_is_due(
    cluster: SimCluster,
) -> None:
    """Seed 9927: a stopped kernel moved pages under a store that it was stopped in."""
    cluster.run_until_active()
    faults = SimInjections(cluster, 0, lambda record: None)
    faults.board.add("clock p0 skew 0.1 --name wrong")
    faults.board.add("throttle p0 5ms --name slow")
    cluster.run_for(50_000_000)
    cluster.hang(0)
    before_ns = cluster.kernels[0].scheduler.now_ns
    faults.board.remove("wrong")
    faults.board.remove("slow")
    cluster.run_for(50_000_000)
    assert cluster.kernels[0].scheduler.now_ns == before_ns
    cluster.resume(0)
    cluster.run_until_active()
