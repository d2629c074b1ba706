"""The exporter's firewall: requests made by hand, each refused for a reason of its own."""

import errno
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from tests.clusters import SMALL
from tests.xpmem.world import PAGE, PAGES, World
from xpmem_emu.image import Bytes, Image, XpcSection
from xpmem_emu.sim.cluster import SimCluster
from xpmem_emu.units import MILLISECOND
from xpmem_emu.xpc.frame import Header, encode_frame
from xpmem_emu.xpc.messages import Amo, AmoReply, Copy, CopyReply, Fault, FaultReply, Message
from xpmem_emu.xpc.slots import RequestOutcome
from xpmem_emu.xpmem.firewall import GRANT_GRAVES
from xpmem_emu.xpmem.ids import IdParts, unpack_id

SIZE = PAGES * PAGE


@pytest.fixture
def world(make_cluster: Callable[..., SimCluster]) -> World:
    return World(make_cluster(domains="ABB"))


def ask(world: World, request: Message, bulk: bytes = b"", src: int = 1) -> Message:
    """The home's answer to a request that a partition puts on the wire behind its own back."""
    xpc = world.cluster.kernels[src].xpc
    patience = world.cluster.kernels[src].xpmem.far._services.fault_patience
    outcomes: list[RequestOutcome] = []
    xpc.post(0, 0, request, outcomes.append, patience=patience, bulk=bulk)
    world.cluster.poke(src)
    world.cluster.run_until(lambda: bool(outcomes))
    outcome = outcomes[0]
    assert isinstance(outcome, tuple)
    return outcome[0]


def refusal(world: World, request: Message, bulk: bytes = b"", src: int = 1) -> tuple[int, str]:
    reply = ask(world, request, bulk, src)
    assert isinstance(reply, CopyReply | AmoReply | FaultReply)
    return reply.errno, reply.cause


def write(apid: int, offset: int = 0, size: int = 8) -> Copy:
    return Copy(apid, offset, size, True)


def test_a_permit_of_another_partition_opens_nothing(world: World) -> None:
    apid = world.permit()
    cause = f"permit {apid:#x} is of p1, not of p2"
    assert refusal(world, write(apid), b"attacker", src=2) == (errno.EACCES, cause)
    assert refusal(world, Copy(apid, 0, 8, False), src=2) == (errno.EACCES, cause)
    assert refusal(world, Amo(apid, 0, 1, 1, 0), src=2) == (errno.EACCES, cause)


def test_a_permit_that_was_never_granted_opens_nothing(world: World) -> None:
    ident = unpack_id(world.permit())
    made_up = IdParts(ident.partid, ident.boot, ident.tgid + 1, 7).pack()
    number, cause = refusal(world, write(made_up), b"attacker")
    assert (number, "never granted" in cause) == (errno.ENOENT, True)


def test_a_permit_of_an_earlier_boot_opens_nothing(world: World) -> None:
    apid = world.permit()
    world.cluster.crash(1)
    world.cluster.boot(1)
    world.cluster.run_until_active()
    world.cluster.run_for(MILLISECOND)
    number, cause = refusal(world, write(apid), b"attacker")
    assert (number, cause) == (errno.ENOENT, "p1 was given up, and its permits with it")


def test_a_released_permit_and_one_of_a_removed_segment_say_so(world: World) -> None:
    apid = world.permit()
    world.importer.xpmem_release(apid)
    assert refusal(world, write(apid), b"attacker") == (errno.ENOENT, "the permit was released")
    apid = world.permit()
    world.exporter.xpmem_remove(world.segid)
    reason = "the exporter removed the segment"
    assert refusal(world, Amo(apid, 0, 1, 1, 0)) == (errno.ENOENT, reason)


@pytest.mark.parametrize(
    ("offset", "size"), [(SIZE, 8), (SIZE - 4, 8), (1 << 62, 8), (0, SIZE + 8)]
)
def test_nothing_beyond_the_segment_is_reached(world: World, offset: int, size: int) -> None:
    apid = world.permit()
    for request in (Copy(apid, offset, size, False), write(apid, offset, size)):
        number, cause = refusal(world, request, bytes(size) if request.write else b"")
        assert (number, "outside of the segment" in cause) == (errno.EINVAL, True)


def test_a_read_only_permit_is_not_written(world: World) -> None:
    apid = world.permit(1)
    for request in (write(apid), Amo(apid, 0, 1, 1, 0)):
        bulk = b"attacker" if isinstance(request, Copy) else b""
        assert refusal(world, request, bulk) == (errno.EACCES, f"permit {apid:#x} is read-only")
    assert isinstance(ask(world, Copy(apid, 0, 8, False)), CopyReply)
    assert world.exporter.load(world.base, 8) == b"exporter"


@pytest.mark.parametrize("bulk", [b"", b"short", b"nine byte"])
def test_a_store_that_brings_another_number_of_bytes_stores_none(world: World, bulk: bytes) -> None:
    number, cause = refusal(world, write(world.permit()), bulk)
    assert (number, f"{len(bulk)} bytes came" in cause) == (errno.EINVAL, True)
    assert world.exporter.load(world.base, 8) == b"exporter"


def test_more_than_a_message_carries_is_refused_and_panics_nobody(
    make_cluster: Callable[..., SimCluster],
) -> None:
    world = World(
        make_cluster(image=replace(SMALL, xpc=XpcSection(payload=Bytes(PAGE))), domains="AB")
    )
    number, cause = refusal(world, Copy(world.permit(), 0, 2 * PAGE, False))
    assert (number, cause) == (errno.EMSGSIZE, "8192 bytes are more than a message of 4096")
    assert world.cluster.kernels[0].stopped is None


def test_frames_are_not_given_beyond_the_coherence_domain(world: World) -> None:
    number, cause = refusal(world, Fault(world.permit(), 0, 0, 1))
    assert (number, "gets no frames" in cause) == (errno.EXDEV, True)
    assert world.cluster.audit(0)["pins"] == 0


@pytest.mark.parametrize("which", ["src", "dst"])
def test_a_store_from_or_for_another_incarnation_is_dropped(world: World, which: str) -> None:
    apid = world.permit()
    home = world.cluster.kernels[0].xpc
    mine, seen = home.partitions[1].mine, home.partitions[1].remote.seen
    header = Header(1, seen - (which == "src"), mine - (which == "dst"), 0, 0)
    before = home.counters["stale_frames"]
    world.cluster.arrive(0, [encode_frame(header, write(apid)), b"attacker"])
    world.cluster.run_for(MILLISECOND)
    assert home.counters["stale_frames"] == before + 1
    assert [r for r in world.cluster.trace if r.name == "xpc:stale"]
    assert world.exporter.load(world.base, 8) == b"exporter"


def test_only_so_many_ended_permits_are_remembered(world: World) -> None:
    first = world.permit()
    world.importer.xpmem_release(first)
    for _ in range(GRANT_GRAVES):
        world.importer.xpmem_release(world.permit())
    assert "long ago" in refusal(world, write(first), b"attacker")[1]


def test_an_image_without_other_domains_is_not_concerned(
    make_cluster: Callable[..., SimCluster],
) -> None:
    world = World(make_cluster(2, Image(memory=Image().memory)))
    at = world.attached()
    world.importer.store(at, b"directly")
    assert not [r for r in world.cluster.trace if r.name == "xpmem:copy_serve"]
