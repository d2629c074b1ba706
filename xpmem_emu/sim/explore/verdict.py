"""What a schedule comes to: everything is healed, everybody must recover, then the judges speak.

The end of a campaign's run, for a small world: what was held back arrives, stopped processes
wake, dead ones boot; every partition must become ACTIVE with every other, every call must end,
the world's own conditions must hold, and nothing may be left of any task.
"""

from xpmem_emu.judge.checkers.memory import check_memory
from xpmem_emu.judge.invariants import Invariant
from xpmem_emu.judge.verdict import Violation
from xpmem_emu.sim.ending import RunEnding
from xpmem_emu.sim.explore.explored import ExploredWorld
from xpmem_emu.units import SECOND

_RECOVER_NS = 120 * SECOND


def judge_world(ground: ExploredWorld) -> list[Violation]:
    """Let everything come to its end; what did not hold."""
    watch = ground.watch
    if not watch.scene.violations:
        ending = RunEnding(ground.cluster, watch, ground.stage)
        _recover(ground)
        if ending.converges(_RECOVER_NS):
            ending.calls_end()
            ending.quiet()
            ending.read_again()
            watch.shadow.settled()
            for invariant, text in ground.world.check(ground):
                ending.report(invariant, text)
            ending.end_importers()
            _no_grants(ground, ending)
            ending.end_all()
            watch.pins.settled()
            watch.bounds.settled()
            check_memory(watch.scene, ground.stage.history)
    return watch.scene.violations


def _recover(ground: ExploredWorld) -> None:
    """Everybody is there again."""
    cluster = ground.cluster
    for partid in cluster.partids:
        kernel = cluster.kernels.get(partid)
        if kernel is not None and kernel.stopped is not None:
            cluster.crash(partid)
            kernel = None
        if kernel is None:
            cluster.prove_gone(partid)
            cluster.boot(partid)
    for partid, boot in list(cluster.superseded):
        ground.land(partid, boot)
        cluster.end_superseded(partid, boot)
        cluster.prove_gone(partid, boot)
    ground.unpoison()


def _no_grants(ground: ExploredWorld, ending: RunEnding) -> None:
    """No importer has a task any more, so no permit may be left where it was granted."""
    for partid, kernel in ground.cluster.kernels.items():
        left = [f"{apid:#x} of p{importer}" for importer, apid in kernel.xpmem.exporter.grants]
        if left:
            ending.report(Invariant.S10, f"p{partid} still grants {', '.join(left)}")
