"""S7 by proof, S15, S16 and L5: tables and orders of both sides, and who broke them."""

from collections.abc import Callable

import pytest

from xpmem_emu.image import Image, LimitsSection, XpcSection
from xpmem_emu.kernel import calls
from xpmem_emu.kernel.breaking import FailpointSet, Strain
from xpmem_emu.sim.mutations.table import mutated
from xpmem_emu.units import MILLISECOND, PAGE_SIZE, SECOND
from xpmem_emu.xpc.messages import Attach, AttachReply, Get
from xpmem_emu.xpmem.firewall import Firewall
from xpmem_emu.xpmem.ids import IdParts

from .judged import World, judged, share

Story = Callable[[World], None]


def boot_over_a_stopped_process(world: World) -> None:
    shared = share(world.cluster, 1)
    shared.importer.store(shared.there, b"x")
    world.cluster.hang(1)
    world.cluster.run_for(3 * SECOND)
    world.cluster.supersede(1)
    world.cluster.run_for(3 * SECOND)


def lost_importer(world: World) -> None:
    share(world.cluster)
    world.cluster.hang(1)
    world.cluster.run_for(3 * SECOND)


def released(world: World) -> None:
    shared = share(world.cluster)
    shared.importer.xpmem_release(shared.apid)
    world.cluster.run_for(SECOND)


def few_pins(world: World) -> None:
    shared = share(world.cluster, 8)
    world.cluster.call(0, Strain("pin_limit", 2))
    shared.importer.load(shared.there, 8)


def recall_behind_faults(world: World) -> None:
    cluster = world.cluster
    shared = share(cluster)
    shared.importer.store(shared.there, b"x")
    exporter = cluster.spawn(1)
    segid = exporter.xpmem_make(exporter.mmap(8 * PAGE_SIZE), 8 * PAGE_SIZE, 0o666)
    cluster.call(1, FailpointSet("xpc.serve.before_handler", "4*delay(100ms)"))
    for _ in range(4):
        importer = cluster.spawn(0)
        importer.begin(calls.XpmemGet(importer.pid, segid))
    cluster.run_for(MILLISECOND)
    shared.exporter.begin(calls.Munmap(shared.exporter.pid, shared.address, PAGE_SIZE))
    cluster.run_for(SECOND)


def more_faults_than_slots(world: World) -> None:
    cluster = world.cluster
    several = [share(cluster, 1) for _ in range(4)]
    cluster.call(0, FailpointSet("xpc.serve.before_handler", "delay(5ms)"))
    for shared in several:
        shared.importer.begin(calls.Load(shared.importer.pid, shared.there, 8))
    cluster.run_for(SECOND)


STORIES: list[tuple[str, Story, str]] = [
    ("boot_is_proof", boot_over_a_stopped_process, "S7"),
    ("quarantine_without_proof", boot_over_a_stopped_process, "S7"),
    ("grants_outlive", lost_importer, "S15"),
    ("release_forgets_to_tell", released, "S15"),
    ("pins_unlimited", few_pins, "S16"),
    ("recalls_queue_with_faults", recall_behind_faults, "L5"),
    ("slot_not_passed_on", more_faults_than_slots, "L5"),
]
FEW = Image(xpc=XpcSection(slots=2))


@pytest.mark.parametrize(("mutant", "story", "invariant"), STORIES)
def test_the_judge_sees(mutant: str, story: Story, invariant: str) -> None:
    with mutated(mutant):
        world = judged(image=FEW)
        story(world)
        world.watch.permits.settled()
    assert invariant in world.invariants


@pytest.mark.parametrize(
    "story", dict.fromkeys(story for _, story, _ in STORIES), ids=lambda s: s.__name__
)
def test_the_judge_invents_nothing(story: Story) -> None:
    world = judged(image=FEW)
    story(world)
    world.watch.permits.settled()
    assert world.invariants == set(), world.said()


def test_more_than_a_peers_task_may_have_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Firewall, "_require_room", lambda *_: None)
    monkeypatch.setattr(Firewall, "attach", _attach_any)
    world = judged(image=Image(limits=LimitsSection(permits_per_task=2, attachments_per_task=2)))
    shared = share(world.cluster)
    kernel = world.cluster.kernels[1]

    async def flood() -> None:
        session = kernel.xpmem.homes.session(0)
        for number in (1, 2, 3):
            apid = IdParts(1, 1, 70, number).pack()
            await kernel.xpmem.homes.ask(0, Get(shared.segid, apid, 2, 0, [], True), session)
            await kernel.xpmem.homes.ask(0, Attach(apid, number, 0, PAGE_SIZE), session)

    kernel.scheduler.spawn("flood", flood())
    world.cluster.poke(1)
    world.cluster.run_for(SECOND)
    assert "S16" in world.invariants
    assert "3 permits of task 70 of p1, of 2" in world.said()
    assert "3 attachments of task 70 of p1, of 2" in world.said()


def _attach_any(self: Firewall, importer: int, request: Attach) -> AttachReply:
    self.grants[importer, request.apid].attachments[request.attachment] = (0, 1)
    return AttachReply(0, "")
