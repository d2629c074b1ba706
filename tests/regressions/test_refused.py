"""Found by seeded campaigns with failpoints: requests that found no thread."""

import pytest

from xpmem_emu.judge.monitor import Monitor
from xpmem_emu.kernel import calls
from xpmem_emu.kernel.breaking import FailpointSet
from xpmem_emu.sim.cluster import SimCluster
from xpmem_emu.sim.plan import Knobs
from xpmem_emu.xpc.events import Refused


@pytest.mark.parametrize("refusals", [1, 2])
def test_a_request_that_found_no_thread_may_come_again(refusals: int) -> None:
    """Seed 258: no event told that the first copy had been dropped, so the second one looked like
    a request that is carried out twice."""
    image = Knobs().image()
    watch = Monitor(image)
    cluster = SimCluster(2, image, observer=watch)
    watch.follow(cluster)
    cluster.run_until_active()
    exporter, importer = cluster.spawn(0), cluster.spawn(1)
    segid = exporter.xpmem_make(exporter.mmap(4096), 4096, 0o666)
    terms = f"{refusals}*return"
    cluster.call(0, FailpointSet(point="xpc.serve.thread", terms=terms))
    assert importer.xpmem_get(segid)
    refused = [r.event.kind for r in cluster.trace if isinstance(r.event, Refused)]
    assert refused == ["GET"] * refusals
    assert watch.scene.violations == []
    assert cluster.call(0, calls.Audit()).value
