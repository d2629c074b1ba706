"""A small world that the judges of the campaign watch."""

from typing import NamedTuple

from xpmem_emu.image import Image
from xpmem_emu.judge.monitor import Monitor
from xpmem_emu.sim.cluster import SimCluster
from xpmem_emu.sim.injection.injections import SimInjections
from xpmem_emu.sim.task import SimTask
from xpmem_emu.units import PAGE_SIZE


class World(NamedTuple):
    """A cluster, its faults and who watches."""

    cluster: SimCluster
    faults: SimInjections
    watch: Monitor

    @property
    def invariants(self) -> set[str]:
        """Those that did not hold so far."""
        return {violation.invariant for violation in self.watch.scene.violations}

    def said(self) -> str:
        """All violations, to be shown."""
        return "\n".join(map(str, self.watch.scene.violations))


class Shared(NamedTuple):
    """A segment of p0 that a task of p1 has attached."""

    exporter: SimTask
    importer: SimTask
    address: int
    segid: int
    apid: int
    there: int


def judged(partitions: int = 2, image: Image | None = None) -> World:
    """Partitions that are all ACTIVE with each other."""
    image = image or Image()
    watch = Monitor(image)
    cluster = SimCluster(partitions, image, observer=watch)
    watch.follow(cluster)
    world = World(cluster, SimInjections(cluster, 0, watch.take), watch)
    cluster.run_until_active()
    cluster.run_for(50_000_000)
    return world


def share(cluster: SimCluster, pages: int = 4) -> Shared:
    """Map, make, get and attach; no page is touched."""
    exporter, importer = cluster.spawn(0), cluster.spawn(1)
    address = exporter.mmap(pages * PAGE_SIZE)
    segid = exporter.xpmem_make(address, pages * PAGE_SIZE, 0o666)
    apid = importer.xpmem_get(segid)
    there = importer.xpmem_attach(apid, 0, pages * PAGE_SIZE)
    return Shared(exporter, importer, address, segid, apid, there)
