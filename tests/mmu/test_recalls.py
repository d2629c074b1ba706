"""Devices of an importer: a recall is over when nothing of them is left (sources T12, T13, T14)."""

import pytest

from tests.clusters import events_of
from tests.xpmem.world import AT, PAGE, PAGES, World
from xpmem_emu.errors import KernelError
from xpmem_emu.failpoints.points import INVALIDATE_ACK
from xpmem_emu.judge.checkers.translations import translations_of
from xpmem_emu.kernel import breaking, calls, device_calls
from xpmem_emu.mmu.events import MmuInvalidate
from xpmem_emu.sim.cluster import SimCluster
from xpmem_emu.sim.mutations.table import mutated
from xpmem_emu.xpmem.events import Invalidated

SIZE = PAGES * PAGE
KINDS = ("gru", "guest", "mirror")


def equipped(cluster: SimCluster) -> tuple[World, int]:
    """An importer with a device of each kind, all of which have all pages."""
    world = World(cluster)
    at, importer = world.attached(), world.importer
    importer.gru_attach()
    importer.guest_attach(references=True)
    importer.guest_slot(at, SIZE, at)
    importer.mirror_attach(at, SIZE)
    for kind in KINDS:
        assert importer.device_load(kind, at, SIZE) == b"exporter" * (SIZE // 8)
    assert len(held(cluster)) == 3 * PAGES
    return world, at


def held(cluster: SimCluster) -> list[object]:
    """What the devices of the importer's partition have."""
    return list(translations_of(cluster.kernels[1]))


def test_an_importer_acknowledges_when_its_devices_have_let_go(cluster: SimCluster) -> None:
    world, at = equipped(cluster)
    cluster.call(1, breaking.FailpointSet(INVALIDATE_ACK.name, "1*pause", 1))
    munmap = world.exporter.begin(calls.Munmap(world.exporter.pid, world.base, PAGE))
    cluster.run_for(1_000_000)
    assert munmap.outcome is None
    assert len(held(cluster)) == 3 * (PAGES - 1)
    cluster.call(1, breaking.FailpointResume(INVALIDATE_ACK.name))
    cluster.run_until(lambda: munmap.outcome is not None)
    for kind in KINDS:
        with pytest.raises(KernelError, match="EFAULT"):
            world.importer.device_load(kind, at, 1)
        assert world.importer.device_load(kind, at + PAGE, 8) == b"exporter"
    told = [each for each in events_of(cluster.trace, MmuInvalidate) if not each.settles]
    assert {(each.device, each.dropped) for each in told} == {(kind, 1) for kind in KINDS}


def test_without_the_importers_chain_a_device_reaches_what_was_taken_away(
    cluster: SimCluster,
) -> None:
    with mutated("ack_before_chain"):
        world, _ = equipped(cluster)
        cluster.call(1, breaking.FailpointSet(INVALIDATE_ACK.name, "1*pause", 1))
        world.exporter.begin(calls.Munmap(world.exporter.pid, world.base, PAGE))
        cluster.run_until(lambda: bool(events_of(cluster.trace, Invalidated)))
        assert len(held(cluster)) == 3 * PAGES
        cluster.call(1, breaking.FailpointResume(INVALIDATE_ACK.name))
        cluster.run_for(1_000_000)


def test_devices_lose_a_home_that_is_lost(cluster: SimCluster) -> None:
    world, at = equipped(cluster)
    cluster.crash(0)
    cluster.run_until(lambda: cluster.kernels[1].xpc.incarnation(0) is None)
    assert held(cluster) == []
    for kind in KINDS:
        with pytest.raises(KernelError, match="EFAULT"):
            world.importer.device_load(kind, at, 1)


def test_a_detach_takes_the_translations_before_the_pages_go_home(cluster: SimCluster) -> None:
    world, _ = equipped(cluster)
    detach = world.importer.begin(calls.XpmemDetach(world.importer.pid, AT))
    assert detach.outcome is None or held(cluster) == []
    cluster.run_for(10_000_000)
    assert (held(cluster), cluster.audit(0)["pins"]) == ([], 0)


def test_exec_and_exit_end_the_devices(cluster: SimCluster) -> None:
    world, _ = equipped(cluster)
    assert len(world.do(world.importer, calls.Look("devices"))) == 3  # type: ignore[arg-type]
    world.importer.execve()
    assert world.do(world.importer, calls.Look("devices")) == []
    with pytest.raises(KernelError, match="ENODEV"):
        world.importer.device_load("gru", AT, 1)
    world.importer.gru_attach()
    world.importer.exit()
    assert cluster.audit(1)["devices"] == 0


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (device_calls.DeviceLoad(1, "bte", AT, 1), "EINVAL"),
        (device_calls.DeviceDetach(1, "gru"), "ENODEV"),
        (device_calls.GuestSlot(1, 0, PAGE, AT), "ENODEV"),
        (device_calls.GruAttach(99), "ESRCH"),
        (device_calls.MirrorAttach(1, AT + 1, PAGE), "EINVAL"),
    ],
)
def test_what_cannot_be_is_refused_with_a_remedy(
    cluster: SimCluster, call: calls.Call, error: str
) -> None:
    World(cluster)
    with pytest.raises(KernelError, match=error) as refused:
        cluster.call(1, call)
    assert refused.value.cause
    assert cluster.audit(1)["devices"] == 0


def test_a_swapped_page_comes_back_for_a_device(cluster: SimCluster) -> None:
    world, at = equipped(cluster)
    reclaim = calls.Reclaim(PAGES, world.exporter.pid, world.base, SIZE)
    assert cluster.call(0, reclaim).value == PAGES
    assert held(cluster) == []
    assert world.importer.device_load("mirror", at, 8) == b"exporter"
