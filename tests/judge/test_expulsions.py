"""S12: whoever is given up was given a cause, and panics are excused by what was injected only."""

from xpmem_emu.kernel import calls
from xpmem_emu.kernel.breaking import CrashKernel, FailpointSet
from xpmem_emu.kernel.events import KernelPanic
from xpmem_emu.sim.mutations.table import mutated
from xpmem_emu.trace import Record
from xpmem_emu.units import MILLISECOND, PAGE_SIZE, SECOND

from .judged import World, judged, share


def kill_during_recall(world: World) -> None:
    exporter, importer, address, *_, there = share(world.cluster)
    importer.store(there, b"x" * 8)
    exporter.begin(calls.Munmap(exporter.pid, address, 4 * PAGE_SIZE))
    world.cluster.call(0, calls.Kill(exporter.pid))
    world.cluster.run_for(100 * MILLISECOND)


def test_a_quiet_world_gives_nobody_up() -> None:
    world = judged(3)
    share(world.cluster)
    world.cluster.run_for(5 * SECOND)
    assert world.invariants == set(), world.said()


def test_a_peer_given_up_for_the_death_of_a_local_task_is_seen() -> None:
    with mutated("interrupted_expels"):
        world = judged()
        kill_during_recall(world)
    assert "S12" in world.invariants


def test_a_peer_that_beats_and_is_given_up_is_seen() -> None:
    with mutated("heart_stops"):
        world = judged()
        world.cluster.run_for(2 * SECOND)
    assert world.invariants == {"S12"}


def test_a_peer_that_says_that_it_works_and_is_given_up_is_seen() -> None:
    with mutated("pending_is_silence"):
        world = judged()
        shared = share(world.cluster)
        world.cluster.call(0, FailpointSet("xpc.serve.before_handler", "1*delay(2s)"))
        shared.importer.begin(calls.Load(shared.importer.pid, shared.there, 8))
        world.cluster.run_for(3 * SECOND)
    assert "S12" in world.invariants


def slow_answer(world: World, lost: int) -> None:
    """An exporter takes its time over a fault, and `lost` of the later attempts do not arrive."""
    shared = share(world.cluster)
    world.cluster.call(0, FailpointSet("xpmem.fault.before_reply", "1*delay(2s)"))
    shared.importer.begin(calls.Load(shared.importer.pid, shared.there, 8))
    world.cluster.run_for(MILLISECOND)
    world.faults.add(f"link p1->p0 drop --match type=FAULT --times {lost}")
    world.cluster.run_for(3 * SECOND)


def test_a_request_that_the_peer_is_at_work_on_needs_no_loss_of_its_own() -> None:
    """Chaos-pauses, seed 39: only a later attempt is told PENDING, and those were lost."""
    world = judged()
    slow_answer(world, 100)
    assert world.invariants == set(), world.said()


def test_a_request_at_work_explains_one_silent_attempt_and_no_more() -> None:
    with mutated("pending_is_silence"):
        world = judged()
        slow_answer(world, 1)
    assert "S12" in world.invariants


def test_one_lost_heartbeat_of_several_explains_nothing() -> None:
    with mutated("heart_stops"):
        world = judged()
        world.faults.add("link p1->p0 drop --match type=HEARTBEAT --times 1")
        world.cluster.run_for(2 * SECOND)
    assert world.invariants == {"S12"}


def test_what_was_done_to_a_peer_explains_that_it_is_given_up() -> None:
    for fault in (
        "link p1->p0 cut",
        "link p0->p1 drop --match type=INVALIDATE",
        "stall p1",
        "clock p1 freeze",
    ):
        world = judged()
        exporter, importer, address, *_, there = share(world.cluster)
        importer.store(there, b"x" * 8)
        world.faults.add(fault)
        exporter.begin(calls.Munmap(exporter.pid, address, 4 * PAGE_SIZE))
        world.cluster.run_for(5 * SECOND)
        states = [
            event.state
            for record in world.cluster.trace
            if getattr(event := record.event, "peer", -1) == 1
            and record.partid == 0
            and hasattr(event, "state")
        ]
        assert "DEACTIVATING" in states, fault
        assert world.invariants == set(), f"{fault}: {world.said()}"


def test_a_crash_and_a_hang_explain_that_a_peer_is_given_up() -> None:
    for what in ("crash", "hang"):
        world = judged(3)
        share(world.cluster)
        getattr(world.cluster, what)(1)
        world.cluster.run_for(5 * SECOND)
        assert world.invariants == set(), f"{what}: {world.said()}"


def test_a_panic_is_excused_by_the_failpoint_that_panicked_and_by_who_asked() -> None:
    world = judged()
    world.cluster.call(0, FailpointSet("mm.fault.begin", "panic"))
    task = world.cluster.spawn(0)
    task.begin(calls.Store(task.pid, task.mmap(PAGE_SIZE)), b"x")
    world.cluster.submit(1, CrashKernel("because"))
    assert [world.cluster.panicked(partid) for partid in (0, 1)] == [True, True]
    assert world.invariants == set(), world.said()


def panic(reason: str, place: str) -> Record:
    return Record(1, 0, 0, "kernel", KernelPanic(reason=reason, place=place))


def test_a_page_that_went_bad_is_no_excuse_for_a_panic() -> None:
    world = judged()
    world.faults.add("poison p0 0x11")
    reason = "KernelBug: machine check in kernel mode: frame 0x11 is poisoned"
    world.watch.take(panic(reason, "migrate/1: mm/frames.py"))
    assert world.invariants == {"S11"}


def test_a_kernel_that_stops_and_leaves_calls_unanswered_is_seen() -> None:
    for mutant, expected in (("", set()), ("stop_answers_nobody", {"L3"})):
        world = judged()
        task = world.cluster.spawn(0)
        address = task.mmap(PAGE_SIZE)
        world.cluster.call(0, FailpointSet("mm.fault.begin", "pause"))
        task.begin(calls.Store(task.pid, address), b"x")
        with mutated(mutant):
            world.cluster.submit(0, CrashKernel("because"))
        assert world.invariants == expected, world.said()
