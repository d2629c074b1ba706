"""Work of a session that is over, still asleep in a kernel thread when the next session begins.

Nothing bounds how long a thread sleeps. Whatever it was asked to do belongs to its own session:
it is not done to the next one, and what the next one has stays as it is.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.xpmem.world import AT, PAGE, PAGES, World, outcome_of
from xpmem_emu.kernel import calls
from xpmem_emu.kernel.breaking import FailpointClear, FailpointResume, FailpointSet
from xpmem_emu.kernel.calls import Call
from xpmem_emu.sim.cluster import SimCluster
from xpmem_emu.units import MILLISECOND
from xpmem_emu.xpc.messages import Evict, Message
from xpmem_emu.xpc.reasons import Reason

SIZE = PAGES * PAGE


@dataclass
class Old:
    """The first session: a permit that is attached and has its pages, and one that is not."""

    world: World
    apid: int
    at: int
    spare: int
    local: int
    """A permit for memory of the importer's own partition."""


def old(cluster: SimCluster) -> Old:
    world = World(cluster)
    apid = world.permit()
    at = world.importer.xpmem_attach(apid, 0, SIZE, AT)
    world.importer.load(at, SIZE)
    base = world.importer.mmap(PAGE)
    local = world.importer.xpmem_get(world.importer.xpmem_make(base, PAGE, 0o666))
    return Old(world, apid, at, world.permit(), local)


ASKED: dict[str, tuple[str, Callable[[Old], Call]]] = {
    "GET": ("", lambda o: calls.XpmemGet(o.world.importer.pid, o.world.segid)),
    "ATTACH": ("", lambda o: calls.XpmemAttach(o.world.importer.pid, o.spare, 0, PAGE)),
    "DETACH": ("", lambda o: calls.XpmemDetach(o.world.importer.pid, o.at)),
    "RELEASE": ("", lambda o: calls.XpmemRelease(o.world.importer.pid, o.spare)),
    "COPY": ("", lambda o: calls.XpmemCopy(o.world.importer.pid, o.local, 0, o.spare, 0, PAGE)),
    "COPY, looked at": (
        "xpmem.serve.before_access",
        lambda o: calls.XpmemCopy(o.world.importer.pid, o.local, 0, o.spare, 0, PAGE),
    ),
}
"""By request: the failpoint at which the exporter's thread sleeps (empty: before it is looked
at), and a call of the first session that makes it."""


def renew(cluster: SimCluster) -> None:
    """The importer gives the exporter up, and a new session begins."""
    cluster.kernels[1].xpc.deactivate(0, Reason.NO_HEARTBEAT, "test")
    cluster.poke(1)
    cluster.run_for(MILLISECOND)
    cluster.run_until_active()


def resume(cluster: SimCluster, partid: int, point: str) -> None:
    assert cluster.call(partid, FailpointResume(point)).value == 1
    cluster.call(partid, FailpointClear())
    cluster.run_for(MILLISECOND)


def account(world: World) -> object:
    """What the exporter knows of the importer."""
    exporter = world.cluster.kernels[0].xpmem.exporter
    table = exporter.segments[world.segid].table
    grants = {key: (grant.live, dict(grant.attachments)) for key, grant in exporter.grants.items()}
    return grants, table.held_by(1, 0, PAGES), world.exporter.load(world.base, SIZE)


def attach_anew(world: World) -> int:
    """A task of the importer's partition has all pages in the new session."""
    user = world.spawn(1)
    at = user.xpmem_attach(user.xpmem_get(world.segid), 0, SIZE)
    user.load(at, SIZE)
    return at


@pytest.mark.parametrize("kind", ASKED)
def test_late_work_changes_nothing_in_the_next_session(cluster: SimCluster, kind: str) -> None:
    point, asking = ASKED[kind]
    point = point or "xpc.serve.before_handler"
    session = old(cluster)
    cluster.call(0, FailpointSet(point, "1*pause"))
    session.world.importer.begin(asking(session))
    cluster.run_for(MILLISECOND)
    renew(cluster)
    attach_anew(session.world)
    before = account(session.world)
    resume(cluster, 0, point)
    assert account(session.world) == before


def send(cluster: SimCluster, request: Message) -> None:
    """The importer's kernel makes this request, from a thread of its own."""
    kernel = cluster.kernels[1]
    session = kernel.xpc.incarnation(0)
    assert session is not None
    kernel.xpmem.homes.tell(0, session, request)
    cluster.poke(1)
    cluster.run_for(MILLISECOND)


def test_a_late_evict_does_not_make_the_exporter_forget_a_holder(cluster: SimCluster) -> None:
    """The page would be freed under whoever has it mapped, and be a stranger's the next moment."""
    world = old(cluster).world
    cluster.call(0, FailpointSet("xpc.serve.before_handler", "1*pause"))
    send(cluster, Evict(world.segid, [(0, PAGES)]))
    renew(cluster)
    attach_anew(world)
    before = account(world)
    resume(cluster, 0, "xpc.serve.before_handler")
    assert account(world) == before


@pytest.mark.parametrize(
    "point", ["xpc.serve.before_handler", "xpmem.fault.before_pin", "xpmem.fault.before_reply"]
)
def test_a_late_fault_notes_no_holder_and_takes_no_page_away(
    cluster: SimCluster, point: str
) -> None:
    world = World(cluster)
    at = world.attached()
    cluster.call(0, FailpointSet(point, "1*pause"))
    world.importer.begin(calls.Load(world.importer.pid, at, 8))
    cluster.run_for(MILLISECOND)
    renew(cluster)
    attach_anew(world)
    before = account(world)
    resume(cluster, 0, point)
    assert account(world) == before


def test_a_fault_that_pins_while_its_session_ends_keeps_no_pin(cluster: SimCluster) -> None:
    world = World(cluster)
    at = world.attached()
    out = calls.Reclaim(PAGES, world.exporter.pid, world.base, SIZE)
    assert world.do(world.exporter, out) == PAGES
    cluster.call(0, FailpointSet("mm.frames.allocate", "1*pause"))
    world.importer.begin(calls.Load(world.importer.pid, at, 8))
    cluster.run_for(MILLISECOND)
    renew(cluster)
    resume(cluster, 0, "mm.frames.allocate")
    assert cluster.audit(0)["pins"] == cluster.audit(0)["grants"] == 0


def test_a_late_invalidate_is_not_carried_out_in_the_next_session(cluster: SimCluster) -> None:
    """It says of the segment that it dies; the entry of the new session must not believe it."""
    world = old(cluster).world
    cluster.call(1, FailpointSet("xpmem.invalidate.before_zap", "1*pause"))
    unmapping = world.exporter.begin(calls.Munmap(world.exporter.pid, world.base, PAGE))
    cluster.run_for(MILLISECOND)
    renew(cluster)
    cluster.run_until(lambda: unmapping.ended)
    user = world.spawn(1)
    at = user.xpmem_attach(user.xpmem_get(world.segid), 0, SIZE)
    user.load(at + PAGE, SIZE - PAGE)
    before = len(cluster.trace)
    resume(cluster, 1, "xpmem.invalidate.before_zap")
    assert [r for r in cluster.trace[before:] if r.name == "xpmem:invalidate"] == []
    assert outcome_of(lambda: user.load(at + PAGE, 8)) == "ok"
