"""Access across coherence domains when messages, partitions or permits get lost on the way."""

import random
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from tests.clusters import SMALL
from tests.xpmem.world import AT, PAGE, PAGES, World, outcome_of
from xpmem_emu.codec import Buffer
from xpmem_emu.errors import SignalInfo, Signalled
from xpmem_emu.image import Bytes, DeadlineSection, XpcSection
from xpmem_emu.inject.rules import Fate, Match, Rule
from xpmem_emu.kernel import breaking, calls
from xpmem_emu.kernel.interface import Send
from xpmem_emu.sim.cluster import SimCluster
from xpmem_emu.sim.ticket import Ticket
from xpmem_emu.units import MILLISECOND, SECOND
from xpmem_emu.xpc.messages import Copy, CopyReply
from xpmem_emu.xpc.reasons import Reason
from xpmem_emu.xpmem.access_server import AccessServer

SIZE = PAGES * PAGE
UNCACHED = calls.MAP_SHARED | calls.MAP_ANONYMOUS | calls.MAP_UNCACHED
SERVE = "xpmem.serve.before_access"


@pytest.fixture
def world(make_cluster: Callable[..., SimCluster]) -> World:
    return World(make_cluster(domains="AB"))


def signal_of(ticket: Ticket) -> SignalInfo:
    with pytest.raises(Signalled) as caught:
        ticket.answer()
    return caught.value.info


def begin_load(world: World, at: int, size: int = 8) -> Ticket:
    return world.importer.begin(calls.Load(world.importer.pid, at, size))


def begin_store(world: World, at: int, data: bytes) -> Ticket:
    return world.importer.begin(calls.Store(world.importer.pid, at), data)


def pause(world: World, point: str = SERVE, partid: int = 0) -> None:
    world.cluster.call(partid, breaking.FailpointSet(point, "1*pause", 0))


def resume(world: World, point: str = SERVE, partid: int = 0) -> None:
    world.cluster.call(partid, breaking.FailpointResume(point))
    world.cluster.call(partid, breaking.FailpointClear(point))


def lost(cluster: SimCluster, at: int, who: int) -> Callable[[], bool]:
    return lambda: cluster.kernels[at].xpc.incarnation(who) is None


# -- partitions -------------------------------------------------------------------------------


def test_a_load_from_a_dead_home_is_sigbus_within_the_deadline_of_a_fault(world: World) -> None:
    at = world.attached()
    world.cluster.crash(0)
    before = world.cluster.now_ns
    ticket = begin_load(world, at)
    world.cluster.run_until(lambda: ticket.ended)
    info = signal_of(ticket)
    times = world.cluster.image.deadlines
    assert world.cluster.now_ns - before <= times.fault_attempt * times.fault_tries
    assert (info.signal.name, info.forced, info.segid) == ("SIGBUS", False, world.segid)
    assert "p0 is lost" in info.reason
    assert outcome_of(lambda: world.importer.load(at, 8)) == "SIGBUS"
    world.importer.xpmem_detach(at)
    assert outcome_of(lambda: world.importer.load(at, 8)) == "SIGSEGV"


@pytest.mark.parametrize("what", ["store", "amo"])
def test_a_store_that_is_never_answered_is_a_machine_check(world: World, what: str) -> None:
    word = world.exporter.mmap(PAGE, flags=UNCACHED)
    apid = world.importer.xpmem_get(world.exporter.xpmem_make(word, PAGE, 0o666))
    at = world.importer.xpmem_attach(apid, 0, PAGE)
    world.cluster.interconnect.add(Rule("mute", Fate.DROP, Match(src=0)))
    if what == "store":
        ticket = begin_store(world, at, b"whatever")
    else:
        ticket = world.importer.begin(calls.AtomicOp(world.importer.pid, at, "add", 1))
    world.cluster.run_until(lambda: ticket.ended)
    info = signal_of(ticket)
    assert (info.signal.name, info.forced) == ("SIGBUS", True)
    assert "may or may not have been carried out" in info.reason
    assert outcome_of(lambda: world.importer.load(at, 8)) in ("SIGBUS", "ESRCH")
    assert any(name in info.reason for name in ("TIMEOUT", "NO_HEARTBEAT"))


def test_a_store_that_was_not_sent_is_an_ordinary_sigbus(world: World) -> None:
    at = world.attached()
    world.cluster.crash(0)
    world.cluster.run_until(lost(world.cluster, 1, 0))
    ticket = begin_store(world, at, b"x")
    world.cluster.run_until(lambda: ticket.ended)
    assert not signal_of(ticket).forced


def test_a_killed_task_waits_for_no_home(world: World) -> None:
    at = world.attached()
    world.cluster.crash(0)
    before = world.cluster.now_ns
    ticket = begin_load(world, at)
    world.importer.kill()
    assert outcome_of(ticket.answer) == "SIGKILL"
    assert world.cluster.now_ns - before < MILLISECOND


def test_a_task_killed_in_the_middle_of_a_bulk_access_is_gone_at_once(
    make_cluster: Callable[..., SimCluster],
) -> None:
    image = replace(SMALL, xpc=XpcSection(payload=Bytes(4096)))
    world = World(make_cluster(image=image, domains="AB"))
    at = world.attached()
    world.cluster.interconnect.add(Rule("slow", Fate.HOLD, Match(kind="COPY_REPLY")))
    ticket = begin_load(world, at, SIZE)
    world.cluster.run_for(MILLISECOND)
    before = world.cluster.now_ns
    world.importer.kill()
    assert outcome_of(ticket.answer) == "SIGKILL"
    assert world.cluster.now_ns - before < MILLISECOND
    world.cluster.heal()


def test_after_a_new_session_old_attachments_are_dead_and_new_ones_work(world: World) -> None:
    at = world.attached()
    world.importer.load(at, 8)
    world.cluster.crash(0)
    world.cluster.boot(0)
    world.cluster.run_until_active()
    assert outcome_of(lambda: world.importer.load(at, 8)) == "SIGBUS"
    fresh = world.spawn(0)
    base = fresh.mmap(SIZE)
    fresh.store(base, b"next boot")
    segid = fresh.xpmem_make(base, SIZE, 0o666)
    there = world.importer.xpmem_attach(world.importer.xpmem_get(segid), 0, SIZE)
    assert world.importer.load(there, 9) == b"next boot"


def test_a_lost_importer_needs_no_fence_and_its_grants_end(world: World) -> None:
    world.importer.load(world.attached(), SIZE)
    world.cluster.crash(1)
    world.cluster.run_until(lost(world.cluster, 0, 1))
    audit = world.cluster.audit(0)
    assert (audit["quarantined"], audit["pins"], audit["grants"]) == (0, 0, 0)


def test_a_store_of_an_expelled_session_that_arrives_late_changes_nothing(world: World) -> None:
    at = world.attached()
    kept: list[list[Buffer]] = []

    def tap(src: int, message: Send) -> None:
        if message.kind == "COPY":
            kept.append([bytes(frame) for frame in message.frames])

    world.cluster.tap = tap
    world.cluster.interconnect.add(Rule("late", Fate.DROP, Match(kind="COPY")))
    begin_store(world, at, b"too late")
    world.cluster.run_for(MILLISECOND)
    assert len(kept) == 1
    world.cluster.crash(1)
    world.cluster.boot(1)
    world.cluster.heal()
    world.cluster.run_until_active()
    stale = world.cluster.kernels[0].xpc.counters["stale_frames"]
    world.cluster.arrive(0, kept[0])
    world.cluster.run_for(SECOND)
    assert world.cluster.kernels[0].xpc.counters["stale_frames"] == stale + 1
    assert world.exporter.load(world.base, 8) == b"exporter"


# -- what ends while the home sleeps ----------------------------------------------------------


def end_session(world: World) -> None:
    world.cluster.kernels[0].xpc.deactivate(1, Reason.TIMEOUT, "test")
    world.cluster.poke(0)


ENDS: dict[str, tuple[Callable[[World, int], object], str]] = {
    "release": (lambda w, apid: w.importer.xpmem_release(apid), "the permit was released"),
    "remove": (lambda w, apid: w.exporter.xpmem_remove(w.segid), "removed the segment"),
    "munmap": (lambda w, apid: w.exporter.munmap(w.base, SIZE), "nothing is mapped"),
    "session": (lambda w, apid: end_session(w), "p0 is lost"),
}


@pytest.mark.parametrize("what", ENDS)
def test_a_store_that_the_home_works_on_while_its_right_ends_is_refused(
    world: World, what: str
) -> None:
    act, reason = ENDS[what]
    apid = world.permit()
    at = world.importer.xpmem_attach(apid, 0, SIZE, AT)
    pause(world)
    ticket = begin_store(world, at, b"too late")
    world.cluster.run_for(MILLISECOND)
    if what == "release":  # the importer's own kernel waits for nobody: the task is on its way
        other = world.importer.begin(calls.XpmemRelease(world.importer.pid, apid))
        world.cluster.run_until(lambda: other.ended)
    else:
        act(world, apid)
    world.cluster.run_for(MILLISECOND)
    resume(world)
    world.cluster.run_until(lambda: ticket.ended)
    assert reason in signal_of(ticket).reason
    if what != "munmap":
        assert world.exporter.load(world.base, 8) == b"exporter"


def test_an_area_that_is_replaced_while_the_home_sleeps_is_looked_at_again(world: World) -> None:
    at = world.attached()
    out = calls.Reclaim(PAGES, world.exporter.pid, world.base, SIZE)
    world.do(world.exporter, out)
    world.cluster.call(0, breaking.FailpointSet("mm.frames.allocate", "1*pause", 0))
    ticket = begin_load(world, at)
    world.cluster.run_for(MILLISECOND)
    other = world.exporter.begin(calls.Mprotect(world.exporter.pid, world.base, SIZE, 0))
    world.cluster.run_for(MILLISECOND)
    resume(world, "mm.frames.allocate")
    world.cluster.run_until(lambda: ticket.ended and other.ended)
    assert outcome_of(ticket.answer) in ("ok", "SIGBUS")
    assert outcome_of(lambda: world.importer.load(at, 8)) == "SIGBUS"


# -- messages ---------------------------------------------------------------------------------


def test_lost_and_repeated_messages_give_every_access_its_effect_once(
    make_cluster: Callable[..., SimCluster],
) -> None:
    seed = 20
    print(f"seed {seed}")
    draws = random.Random(seed)
    world = World(
        make_cluster(image=replace(SMALL, deadlines=DeadlineSection(fault_tries=20)), domains="AB")
    )
    word = world.exporter.mmap(PAGE, flags=UNCACHED)
    segid = world.exporter.xpmem_make(word, PAGE, 0o666)
    count_at = world.importer.xpmem_attach(world.importer.xpmem_get(segid), 0, PAGE)
    at = world.attached()
    for kind in ("COPY", "COPY_REPLY", "AMO", "AMO_REPLY"):
        for verdict in (Fate.DROP, Fate.DUPLICATE):
            rule = Rule(f"{verdict.value}-{kind}", verdict, Match(kind=kind), probability=0.2)
            world.cluster.interconnect.add(rule)
    model = bytearray(b"exporter" * (SIZE // 8))
    for step in range(60):
        place = draws.randrange(SIZE - 64)
        data = draws.randbytes(draws.randrange(1, 64))
        world.importer.store(at + place, data)
        model[place : place + len(data)] = data
        assert world.importer.load(at + place, len(data)) == data
        amo = calls.AtomicOp(world.importer.pid, count_at, "add", 1)
        assert world.cluster.call(1, amo).value == step
    world.cluster.heal()
    assert world.exporter.load(world.base, SIZE) == bytes(model)


def test_a_home_that_answers_nonsense_is_given_up_and_nothing_panics(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = world.attached()
    honest = AccessServer.copy

    async def lie(
        self: AccessServer, importer: int, request: Copy, data: Buffer
    ) -> tuple[CopyReply, Buffer]:
        reply, found = await honest(self, importer, request, data)
        return reply, bytes(found) + b"more"

    monkeypatch.setattr(AccessServer, "copy", lie)
    assert outcome_of(lambda: world.importer.load(at, 8)) == "SIGBUS"
    assert [kernel.stopped for kernel in world.cluster.kernels.values()] == [None, None]
    world.cluster.run_for(SECOND)
    world.cluster.run_until_active()
