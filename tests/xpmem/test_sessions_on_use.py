"""`sessions = "domain"`: beyond the coherence domain one begins when somebody needs it."""

import errno
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from tests.clusters import SMALL
from tests.xpmem.world import AT, PAGE, PAGES, World
from xpmem_emu.errors import KernelError, Signalled
from xpmem_emu.image import Image, XpcSection
from xpmem_emu.kernel.calls import XpmemGet
from xpmem_emu.kernel.interface import Done
from xpmem_emu.sim.cluster import SimCluster
from xpmem_emu.units import MILLISECOND, SECOND
from xpmem_emu.xpc.activation import ActState
from xpmem_emu.xpc.peers import Neighbourhood

BY_DOMAIN = replace(SMALL, xpc=XpcSection(sessions="domain"))
SIZE = PAGES * PAGE


@pytest.fixture
def pairs(make_cluster: Callable[..., SimCluster]) -> SimCluster:
    """p0 and p2 in one domain, p1 and p3 in another."""
    return make_cluster(image=BY_DOMAIN, domains="ABAB")


def met(cluster: SimCluster, partid: int) -> list[int]:
    return sorted(cluster.kernels[partid].xpc.partitions)


def state(cluster: SimCluster, here: int, there: int) -> ActState:
    return cluster.kernels[here].xpc.partitions[there].state


def test_nothing_is_sent_between_domains_before_somebody_needs_it(pairs: SimCluster) -> None:
    between: list[tuple[int, int]] = []
    pairs.tap = lambda src, send: between.append((src, send.partid))
    pairs.run_for(10 * SECOND)
    assert between, "heartbeats within the domains"
    assert [pair for pair in between if sum(pair) % 2] == []
    assert [met(pairs, partid) for partid in range(4)] == [[2], [3], [0], [1]]


def test_the_first_use_of_a_segment_makes_the_session(pairs: SimCluster) -> None:
    world = World(pairs)
    at = world.attached()
    assert world.importer.load(at, 8) == b"exporter"
    world.importer.store(at, b"from p1.")
    assert world.exporter.load(world.base, 8) == b"from p1."
    assert [met(pairs, partid) for partid in range(4)] == [[1, 2], [0, 3], [0], [1]]
    pairs.run_for(10 * SECOND)
    assert state(pairs, 0, 1) is state(pairs, 1, 0) is ActState.ACTIVE, "kept by heartbeats"


def test_two_who_need_it_at_once_both_get_it(pairs: SimCluster) -> None:
    world = World(pairs)
    tasks = [world.spawn(1), world.spawn(1), world.spawn(3)]
    tickets = [task.begin(XpmemGet(task.pid, world.segid)) for task in tasks]
    pairs.run_until(lambda: all(ticket.ended for ticket in tickets), SECOND)
    assert all(isinstance(ticket.outcome, Done) for ticket in tickets)


def test_who_is_not_there_is_looked_for_no_longer_than_a_first_contact(pairs: SimCluster) -> None:
    world = World(pairs)
    pairs.crash(0)
    begin_ns = pairs.now_ns
    with pytest.raises(KernelError) as refused:
        world.permit()
    xpc = BY_DOMAIN.xpc
    assert refused.value.errno == errno.EHOSTUNREACH
    assert pairs.now_ns - begin_ns == xpc.control_attempt * xpc.control_tries
    seekers: list[int] = []
    pairs.tap = lambda src, send: seekers.append(src) if send.partid == 0 else None
    pairs.run_for(10 * SECOND)
    assert set(seekers) == {2}, "its own domain goes on"
    pairs.boot(0)
    pairs.run_until_active()


def test_a_killed_task_does_not_wait_for_it(pairs: SimCluster) -> None:
    world = World(pairs)
    pairs.hang(0)
    ticket = world.importer.begin(XpmemGet(world.importer.pid, world.segid))
    pairs.run_for(20 * MILLISECOND)
    world.importer.kill()
    assert ticket.ended
    pairs.resume(0)
    pairs.run_until_active()


def test_after_a_loss_the_next_use_makes_it_anew(pairs: SimCluster) -> None:
    world = World(pairs)
    at = world.attached()
    pairs.crash(0)
    pairs.boot(0)
    with pytest.raises(Signalled):
        world.importer.load(at, 8)
    assert state(pairs, 1, 0) is not ActState.ACTIVE
    pairs.run_until_active()
    world.importer.exit()
    again = World(pairs)
    assert again.importer.load(again.attached(), 8) == b"exporter"


def test_a_recall_and_a_remove_reach_who_came_on_use(pairs: SimCluster) -> None:
    world = World(pairs)
    at = world.attached(AT)
    near = world.spawn(2)
    there = near.xpmem_attach(near.xpmem_get(world.segid), 0, SIZE, AT)
    assert near.load(there, 8) == world.importer.load(at, 8) == b"exporter"
    world.exporter.xpmem_remove(world.segid)
    for task, address in ((near, there), (world.importer, at)):
        with pytest.raises(Signalled, match="removed the segment"):
            task.load(address, 8)


def test_everybody_reckons_with_the_largest_circle_of_the_machine() -> None:
    def image(domain: str, sessions: str) -> Image:
        return replace(SMALL, domain=domain, xpc=replace(XpcSection(), sessions=sessions))

    by_domain = [image(domain, "domain") for domain in "AAAAB"]
    machine = Neighbourhood(dict(enumerate(by_domain)))
    assert [list(machine.peers_of(p).standing) for p in (0, 4)] == [[1, 2, 3], []]
    assert machine.peers_of(4).crowd == machine.peers_of(0).crowd == 3
    mixed = Neighbourhood(dict(enumerate([*by_domain[:4], image("B", "all")])))
    assert [list(mixed.peers_of(p).standing) for p in (0, 4)] == [[1, 2, 3], [0, 1, 2, 3]]
    assert mixed.peers_of(0).crowd == 4
