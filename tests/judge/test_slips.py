"""L7, L8, S7, S13, S15, S17, S18, S20: each judge refuses a kernel in which one line is wrong."""

from collections.abc import Callable

import pytest

from xpmem_emu.image import FaultSection, Image
from xpmem_emu.judge.checkers.quiet import check_quiet
from xpmem_emu.kernel import calls
from xpmem_emu.kernel.breaking import FailpointSet
from xpmem_emu.sim.mutations.table import mutated
from xpmem_emu.sim.task import SimTask
from xpmem_emu.units import MILLISECOND, PAGE_SIZE, SECOND

from .judged import Shared, World, judged, share

Story = Callable[[World], None]
FEW = Image(faults=FaultSection(collisions=1))


def pause(world: World, partid: int, point: str, terms: str) -> None:
    world.cluster.call(partid, FailpointSet(point, terms))


def load(world: World, task: SimTask, address: int) -> None:
    """Begin a load and let it get on its way."""
    task.begin(calls.Load(task.pid, address, 8))
    world.cluster.run_for(MILLISECOND)


def attached(task: SimTask, shared: Shared, first: int = 0, pages: int = 4) -> int:
    apid = task.xpmem_get(shared.segid)
    return task.xpmem_attach(apid, first * PAGE_SIZE, pages * PAGE_SIZE)


def two_partitions_want_one_page(world: World) -> None:
    shared = share(world.cluster)
    other = world.cluster.spawn(2)
    there = attached(other, shared)
    pause(world, 0, "mm.gup.pin", "1*delay(5ms)")
    load(world, shared.importer, shared.there)
    load(world, other, there)
    world.cluster.run_for(SECOND)


def closed_twice(world: World) -> None:
    """Both wait for a removal; when that ends the second one happens to look first."""
    first = share(world.cluster)
    exporter, other = first.exporter, world.cluster.spawn(2)
    first.importer.store(first.there, b"held")
    segid = exporter.xpmem_make(exporter.mmap(PAGE_SIZE), PAGE_SIZE, 0o666)
    other.store(other.xpmem_attach(other.xpmem_get(segid), 0, PAGE_SIZE), b"held")
    world.faults.add("link p1->p0 delay 20ms --match type=INVALIDATE_ACK")
    world.faults.add("link p2->p0 delay 60ms --match type=INVALIDATE_ACK")
    for call in (calls.XpmemRemove(exporter.pid, segid), *(calls.XpmemClose(exporter.pid),) * 2):
        exporter.begin(call)
        world.cluster.run_for(MILLISECOND)
    world.cluster.kernels[0].scheduler.pick = lambda runnable: runnable - 1
    world.cluster.run_for(SECOND)


def touched_in_transit(world: World) -> None:
    """What is in transit arrives, and frames are not given back yet."""
    task = world.cluster.spawn(0)
    address = task.mmap(PAGE_SIZE)
    task.store(address, b"x")
    pause(world, 0, "mm.transit.before_sync", "1*delay(5ms)")
    pause(world, 0, "mm.gather.before_free", "1*delay(5ms)")
    task.begin(calls.Migrate(task.pid, address, PAGE_SIZE))
    load(world, task, address + 8)
    task.begin(calls.Store(task.pid, address), b"y")
    world.cluster.run_for(SECOND)


def readers_behind_a_writer(world: World) -> None:
    """Two accesses wait for a munmap, and then each for a frame."""
    shared = share(world.cluster)
    exporter = shared.exporter
    shared.importer.store(shared.there, b"held")
    more = exporter.mmap(2 * PAGE_SIZE)
    world.faults.add("link p1->p0 delay 20ms --match type=INVALIDATE_ACK")
    exporter.begin(calls.Munmap(exporter.pid, shared.address, PAGE_SIZE))
    world.cluster.run_for(MILLISECOND)
    pause(world, 0, "mm.frames.allocate", "delay(5ms)")
    load(world, exporter, more)
    load(world, exporter, more + PAGE_SIZE)
    world.cluster.run_for(SECOND)


def closed_under_a_thread(world: World) -> None:
    shared = share(world.cluster)
    pause(world, 0, "xpc.serve.before_reply", "1*delay(1s)")
    load(world, shared.importer, shared.there)
    world.cluster.hang(1)
    world.cluster.run_for(2 * SECOND)
    world.cluster.resume(1)
    world.cluster.run_for(30 * SECOND)


def released_while_detached(world: World) -> None:
    """The detach finds its area after one munmap of something else, and waits for the mmap_lock to
    unmap it, which another munmap was before it."""
    shared = share(world.cluster)
    task = shared.importer
    task.store(shared.there, b"x")
    address = task.mmap(2 * PAGE_SIZE)
    holder = world.cluster.spawn(0)
    there = holder.xpmem_attach(
        holder.xpmem_get(task.xpmem_make(address, 2 * PAGE_SIZE, 0o666)), 0, 2 * PAGE_SIZE
    )
    holder.store(there, b"x" * 2 * PAGE_SIZE)
    world.faults.add("link p0->p1 delay 20ms --match type=INVALIDATE_ACK")
    task.begin(calls.Munmap(task.pid, address, PAGE_SIZE))
    world.cluster.run_for(MILLISECOND)
    task.begin(calls.XpmemDetach(task.pid, shared.there))
    task.begin(calls.Munmap(task.pid, address + PAGE_SIZE, PAGE_SIZE))
    world.cluster.run_for(30 * MILLISECOND)
    task.begin(calls.XpmemRelease(task.pid, shared.apid))
    world.cluster.run_for(SECOND)


def slow_call(world: World) -> SimTask:
    """A task in a call that no signal ends: it moves a page that another task exports, and whose
    holder is slow."""
    cluster = world.cluster
    exporter, importer, task = cluster.spawn(0), cluster.spawn(1), cluster.spawn(0)
    cluster.call(0, calls.Creat("f", PAGE_SIZE))
    address, here = (
        each.mmap(PAGE_SIZE, flags=calls.MAP_SHARED, file="f") for each in (exporter, task)
    )
    segid = exporter.xpmem_make(address, PAGE_SIZE, 0o666)
    importer.store(importer.xpmem_attach(importer.xpmem_get(segid), 0, PAGE_SIZE), b"x")
    task.load(here, 8)
    world.faults.add("link p1->p0 delay 20ms --match type=INVALIDATE_ACK")
    task.begin(calls.Migrate(task.pid, here, PAGE_SIZE))
    cluster.run_for(MILLISECOND)
    return task


def ended_in_a_slow_call(world: World) -> None:
    task = slow_call(world)
    task.begin(calls.Kill(task.pid, 9))
    world.cluster.run_for(SECOND)


def killed_in_exec(world: World) -> None:
    task = slow_call(world)
    task.begin(calls.Exec(task.pid))
    world.cluster.run_for(MILLISECOND)
    task.begin(calls.Kill(task.pid, 9))
    world.cluster.run_for(SECOND)


def exec_beside_a_slow_call(world: World) -> None:
    task = slow_call(world)
    task.begin(calls.Exec(task.pid))
    world.cluster.run_for(SECOND)


def exited_with_a_lost_importer(world: World) -> None:
    """What it exported is a page of a file, which stays in the page cache."""
    cluster = world.cluster
    exporter, importer = cluster.spawn(0), cluster.spawn(1)
    cluster.call(0, calls.Creat("f", PAGE_SIZE))
    address = exporter.mmap(PAGE_SIZE, flags=calls.MAP_SHARED, file="f")
    segid = exporter.xpmem_make(address, PAGE_SIZE, 0o666)
    importer.store(importer.xpmem_attach(importer.xpmem_get(segid), 0, PAGE_SIZE), b"x")
    pause(world, 0, "xpmem.fence.before_migrate", "1*delay(5ms)")
    cluster.hang(1)
    exporter.exit()


def fenced_in_two_attempts(world: World) -> None:
    """At the first one there is no memory, so its user is killed, which takes a while."""
    shared = share(world.cluster)
    shared.importer.store(shared.there, b"x")
    other = world.cluster.spawn(2)
    other.load(attached(other, shared), 4 * PAGE_SIZE)
    world.faults.add("link p2->p0 delay 100ms --match type=INVALIDATE_ACK")
    pause(world, 0, "mm.migrate.before_move", "1*return(ENOMEM)")
    world.cluster.hang(1)
    shared.exporter.begin(
        calls.Mprotect(shared.exporter.pid, shared.address, PAGE_SIZE, calls.PROT_READ)
    )
    world.cluster.run_for(5 * SECOND)


def forked_in_transit(world: World) -> None:
    shared = share(world.cluster)
    shared.importer.store(shared.there, b"x")
    task = shared.exporter
    world.faults.add("link p1->p0 delay 20ms --match type=INVALIDATE_ACK")
    task.begin(calls.Migrate(task.pid, shared.address, PAGE_SIZE))
    world.cluster.run_for(MILLISECOND)
    task.begin(calls.Fork(task.pid))
    world.cluster.run_for(SECOND)


def written_back_and_asked_for(world: World) -> None:
    """A writeback keeps the page where it is: another fault finds it while it is recalled."""
    cluster = world.cluster
    exporter, importer, other = cluster.spawn(0), cluster.spawn(1), cluster.spawn(2)
    cluster.call(0, calls.Creat("f", PAGE_SIZE))
    address = exporter.mmap(PAGE_SIZE, flags=calls.MAP_SHARED, file="f")
    segid = exporter.xpmem_make(address, PAGE_SIZE, 0o666)
    first, second = (
        task.xpmem_attach(task.xpmem_get(segid), 0, PAGE_SIZE) for task in (importer, other)
    )
    importer.store(first, b"x")
    world.faults.add("link p1->p0 delay 20ms --match type=INVALIDATE_ACK")
    cluster.submit(0, calls.Writeback("f"))
    cluster.run_for(MILLISECOND)
    load(world, other, second)
    cluster.run_for(SECOND)


def detached_before_its_page_comes(world: World) -> None:
    shared = share(world.cluster)
    pause(world, 1, "xpmem.fault.before_install", "1*delay(5ms)")
    load(world, shared.importer, shared.there)
    shared.importer.xpmem_detach(shared.there)
    world.cluster.run_for(SECOND)


def lost_before_its_page_comes(world: World) -> None:
    shared = share(world.cluster)
    pause(world, 1, "xpmem.fault.before_install", "1*delay(9s)")
    load(world, shared.importer, shared.there)
    world.cluster.hang(0)
    world.cluster.run_for(30 * SECOND)
    world.cluster.resume(0)
    world.cluster.run_for(30 * SECOND)


def two_loads_of_a_new_page(world: World) -> None:
    task = world.cluster.spawn(0)
    address = task.mmap(PAGE_SIZE)
    pause(world, 0, "mm.frames.allocate", "2*delay(5ms)")
    load(world, task, address)
    load(world, task, address)
    world.cluster.run_for(SECOND)


def one_collision(world: World) -> None:
    """One is allowed."""
    shared = share(world.cluster)
    pause(world, 1, "xpmem.fault.before_install", "1*delay(5ms)")
    load(world, shared.importer, shared.there)
    shared.exporter.madvise(shared.address, PAGE_SIZE, calls.MADV_DONTNEED)
    world.cluster.run_for(SECOND)


def one_change_while_pinned(world: World) -> None:
    shared = share(world.cluster)
    pause(world, 0, "mm.gup.pin", "1*delay(5ms)")
    load(world, shared.importer, shared.there)
    shared.exporter.madvise(shared.address, PAGE_SIZE, calls.MADV_DONTNEED)
    world.cluster.run_for(SECOND)


def rights_that_come_back(world: World) -> None:
    shared = share(world.cluster, 2)
    shared.exporter.mprotect(shared.address, 2 * PAGE_SIZE, calls.PROT_READ)
    shared.importer.load(shared.there, 2 * PAGE_SIZE)
    both = calls.PROT_READ | calls.PROT_WRITE
    shared.exporter.mprotect(shared.address, PAGE_SIZE, both)
    shared.importer.begin(calls.Store(shared.importer.pid, shared.there), b"x")
    world.cluster.run_for(SECOND)


def wanted_beside_what_is_given_back(world: World) -> None:
    """The last two pages are on their way home when somebody touches the first."""
    shared = share(world.cluster)
    task, apid = shared.importer, shared.apid
    task.xpmem_detach(shared.there)
    end = task.xpmem_attach(apid, 2 * PAGE_SIZE, 2 * PAGE_SIZE)
    task.load(end, 8)
    world.faults.add("link p1->p0 delay 20ms --match type=DETACH")
    task.begin(calls.XpmemDetach(task.pid, end))
    world.cluster.run_for(MILLISECOND)
    load(world, task, task.xpmem_attach(apid, 0, 4 * PAGE_SIZE))
    world.cluster.run_for(SECOND)


def released_at_once(world: World) -> None:
    shared = share(world.cluster)
    shared.importer.store(shared.there, b"x")
    world.faults.add("link p1->p0 delay 20ms --match type=DETACH")
    shared.importer.begin(calls.XpmemRelease(shared.importer.pid, shared.apid))
    world.cluster.run_for(MILLISECOND)
    shared.importer.mmap(PAGE_SIZE)
    world.cluster.run_for(SECOND)


def attached_for_nobody(world: World) -> None:
    """The answer comes when the caller's patience is over."""
    shared = share(world.cluster)
    pause(world, 0, "xpc.serve.before_reply", "1*delay(12s)")
    task = shared.importer
    task.begin(calls.XpmemAttach(task.pid, shared.apid, 0, PAGE_SIZE))
    world.cluster.run_for(20 * SECOND)


def attached_over_another(world: World) -> None:
    shared = share(world.cluster)
    task = shared.importer
    task.begin(calls.XpmemAttach(task.pid, shared.apid, 0, PAGE_SIZE, shared.there))
    world.cluster.run_for(SECOND)


def copied_after_release(world: World) -> None:
    """The copy waits for a frame when its permit goes."""
    shared = share(world.cluster)
    task, apid = shared.importer, shared.apid
    pause(world, 0, "mm.frames.allocate", "1*delay(5ms)")
    task.begin(calls.XpmemCopy(task.pid, apid, 0, apid, 8, 8))
    world.cluster.run_for(MILLISECOND)
    task.begin(calls.XpmemRelease(task.pid, apid))
    world.cluster.run_for(SECOND)


def protected_across_a_hole(world: World) -> None:
    task = world.cluster.spawn(0)
    address = task.mmap(3 * PAGE_SIZE)
    task.munmap(address + PAGE_SIZE, PAGE_SIZE)
    task.begin(calls.Mprotect(task.pid, address, 3 * PAGE_SIZE, calls.PROT_READ))
    world.cluster.run_for(SECOND)


STORIES: list[tuple[str, Story, str]] = [
    ("request_end_wakes_nobody", two_partitions_want_one_page, "L7"),
    ("reservation_never_returned", two_partitions_want_one_page, "S18"),
    ("teardown_wakes_nobody", closed_twice, "L7"),
    ("transit_wakes_nobody", touched_in_transit, "L7"),
    ("readers_not_woken", readers_behind_a_writer, "L7"),
    ("drained_untold", closed_under_a_thread, "L7"),
    ("release_waits_for_nobody", released_while_detached, "S15"),
    ("exit_waits_for_no_call", ended_in_a_slow_call, "S17"),
    ("exec_keeps_killed", killed_in_exec, "S17"),
    ("exec_kills_nobody", exec_beside_a_slow_call, "L7"),
    ("exit_does_not_wait_for_fence", exited_with_a_lost_importer, "S7"),
    ("fence_tries_once", fenced_in_two_attempts, "S7"),
    ("fork_meets_transit", forked_in_transit, "S18"),
    ("fault_ignores_recall", written_back_and_asked_for, "L8"),
    ("gone_attachment_used", detached_before_its_page_comes, "S18"),
    ("lost_faults_installed", lost_before_its_page_comes, "S18"),
    ("entry_changed_meanwhile", two_loads_of_a_new_page, "S18"),
    ("one_collision_too_few", one_collision, "L8"),
    ("one_try_too_few", one_change_while_pinned, "L8"),
    ("rights_remembered", rights_that_come_back, "S18"),
    ("read_ahead_meets_evictions", wanted_beside_what_is_given_back, "S20"),
    ("reaped_under_eviction", released_at_once, "S20"),
    ("late_attach_kept", attached_for_nobody, "S15"),
    ("failed_attach_untold", attached_over_another, "S15"),
    ("access_after_release", copied_after_release, "S15"),
    ("protect_of_some", protected_across_a_hole, "S13"),
]


def _looked(world: World) -> World:
    world.watch.agreement.settled()
    world.watch.permits.quiet()
    return world


@pytest.mark.parametrize(("mutant", "story", "invariant"), STORIES)
def test_the_judge_sees(mutant: str, story: Story, invariant: str) -> None:
    with mutated(mutant):
        world = judged(3, FEW)
        story(world)
        _looked(world)
    assert invariant in world.invariants, world.said()


@pytest.mark.parametrize(
    "story", dict.fromkeys(story for _, story, _ in STORIES), ids=lambda s: s.__name__
)
def test_the_judge_invents_nothing(story: Story) -> None:
    world = judged(3, FEW)
    story(world)
    _looked(world)
    assert world.invariants == set(), world.said()


def test_what_is_counted_when_nothing_is_under_way_is_seen() -> None:
    world = judged()
    share(world.cluster)
    check_quiet(world.watch.scene)
    assert world.invariants == set(), world.said()
    world.cluster.kernels[0].memory.loans += 1
    check_quiet(world.watch.scene)
    assert world.invariants == {"S18"}
