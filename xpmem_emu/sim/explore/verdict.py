"""What a schedule comes to: everything is healed, everybody must recover, then the judges speak.

The end of a campaign's run, for a small world: what was held back arrives, stopped processes
wake, dead ones boot; every partition must become ACTIVE with every other, every call must end,
the world's own conditions must hold, and nothing may be left of any task.
"""

from xpmem_emu.errors import KernelError
from xpmem_emu.judge.checkers.memory import check_memory
from xpmem_emu.judge.checkers.quiet import check_quiet
from xpmem_emu.judge.checkers.teardown import check_teardown
from xpmem_emu.judge.invariants import Invariant
from xpmem_emu.judge.verdict import Violation
from xpmem_emu.sim.explore.explored import ExploredWorld
from xpmem_emu.sim.plan import Op, Operation
from xpmem_emu.sim.ticket import Stuck
from xpmem_emu.units import SECOND

_RECOVER_NS = 120 * SECOND
_CALLS_NS = 10 * SECOND


def judge_world(ground: ExploredWorld) -> list[Violation]:
    """Let everything come to its end; what did not hold."""
    scene = ground.watch.scene
    if not scene.violations and _recover(ground):
        _calls(ground)
        _quiet(ground)
        _read_again(ground)
        ground.watch.shadow.settled()
        for invariant, text in ground.world.check(ground):
            _report(ground, invariant, text)
        _end_tasks(ground)
        ground.watch.pins.settled()
        ground.watch.bounds.settled()
        check_memory(scene, ground.stage.history)
    return scene.violations


def _report(ground: ExploredWorld, invariant: Invariant, text: str) -> None:
    ground.watch.scene.now_ns = ground.cluster.now_ns
    ground.watch.scene.report(invariant, -1, text)


def _recover(ground: ExploredWorld) -> bool:
    """L4: everybody is there, and ACTIVE with everybody."""
    cluster, sessions = ground.cluster, ground.watch.scene.sessions
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
    everybody = cluster.partids
    try:
        cluster.run_until(
            lambda: all(sessions.active(a, b) for a in everybody for b in everybody), _RECOVER_NS
        )
    except Stuck:
        pairs = [f"p{a}-p{b}" for a in everybody for b in everybody if not sessions.active(a, b)]
        _report(ground, Invariant.L4, f"not active again: {pairs}")
        return False
    return True


def _calls(ground: ExploredWorld) -> None:
    """L3: no call hangs."""
    cluster = ground.cluster
    try:
        cluster.run_until(lambda: not cluster.outstanding, _CALLS_NS)
    except Stuck:
        _report(ground, Invariant.L3, f"{len(cluster.outstanding)} calls have not ended")


def _quiet(ground: ExploredWorld) -> None:
    """Nothing is under way, and tasks still have what they have: tables agree."""
    watch = ground.watch
    watch.endings.settled()
    _settle(ground)
    watch.agreement.settled()
    check_quiet(watch.scene)
    watch.permits.quiet()


def _settle(ground: ExploredWorld) -> None:
    """Let everything that is under way come to its end."""
    times = ground.world.image_of(0).deadlines
    ground.cluster.run_for(times.recall_attempt * times.recall_tries)
    _calls(ground)


def _no_grants(ground: ExploredWorld) -> None:
    """No importer has a task any more, so no permit may be left where it was granted."""
    for partid, kernel in ground.cluster.kernels.items():
        left = [f"{apid:#x} of p{importer}" for importer, apid in kernel.xpmem.exporter.grants]
        if left:
            _report(ground, Invariant.S10, f"p{partid} still grants {', '.join(left)}")


def _read_again(ground: ExploredWorld) -> None:
    """Load every word through its exporter, so that a lost store shows."""
    stage = ground.stage
    words = {access.word for access in stage.history.accesses}
    for word in sorted(words, key=lambda w: (w.region, w.page, w.word)):
        stage.perform(
            Operation(
                0,
                Op.LOAD,
                task=stage.cast.regions[word.region].task,
                region=word.region,
                page=word.page,
                word=word.word,
            )
        )
    _calls(ground)


def _end_tasks(ground: ExploredWorld) -> None:
    """S3 when the importers have ended, S10 when every task has."""
    cluster = ground.cluster
    exporters = {region.actor for region in ground.stage.cast.regions.values()}
    for spared in (exporters, set()):
        for partid, kernel in cluster.kernels.items():
            keep = {
                each.pid
                for each in spared
                if (each.partid, each.boot) == (partid, cluster.boot_of(partid))
            }
            for task in list(kernel.tasks):
                if task.pid not in keep:
                    kernel.tasks.end(task, None, "the schedule is over")
            cluster.poke(partid)
        _settle(ground)
        if spared:
            ground.watch.pins.unused()
            ground.watch.permits.settled()
            _no_grants(ground)
    for partid, kernel in cluster.kernels.items():
        if kernel.stopped is None:
            try:
                check_teardown(ground.watch.scene, partid, kernel, cluster.audit(partid))
            except (KernelError, Stuck) as error:
                _report(ground, Invariant.S10, f"the audit of p{partid} fails: {error}")
