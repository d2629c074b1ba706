"""One run of one plan: safety, then heal and liveness, then the verdict.

Safety: operations and faults side by side; anything may fail, no invariant may. Then all faults
are healed, and within a bound of virtual time every partition must be ACTIVE with every other
one, every call must have ended, nothing may be left of the tasks, and new operations must
succeed. Each checker has spoken when `run_plan` returns.
"""

from collections import Counter
from functools import partial

import msgspec

from xpmem_emu.errors import KernelError, Signalled
from xpmem_emu.judge.checkers.memory import check_memory
from xpmem_emu.judge.invariants import Invariant
from xpmem_emu.judge.monitor import Monitor
from xpmem_emu.judge.sometimes import AIMED
from xpmem_emu.judge.verdict import Verdict, Violation
from xpmem_emu.sim.cluster import SimCluster
from xpmem_emu.sim.draw.forging import references
from xpmem_emu.sim.draw.world import latency_of, pick_of
from xpmem_emu.sim.ending import RunEnding
from xpmem_emu.sim.injection.fatal import Fatal
from xpmem_emu.sim.injection.injector import Injector
from xpmem_emu.sim.operations.executor import Executor
from xpmem_emu.sim.plan import Plan
from xpmem_emu.sim.ticket import Stuck
from xpmem_emu.units import PAGE_SIZE

FINAL_LOADS = 48
"""At most so many words are read again at the end, so that a lost store shows."""


class Result(msgspec.Struct):
    """What came of a run."""

    seed: int
    verdict: Verdict
    violations: list[Violation]
    digest: str
    steps: int
    events: int
    virtual_ns: int
    injected: dict[str, int]
    reached: dict[str, int]
    outcomes: dict[str, int]

    @property
    def invariants(self) -> list[str]:
        """The invariants that did not hold, each once."""
        return sorted({violation.invariant for violation in self.violations})


def run_plan(plan: Plan) -> Result:
    """Carry a plan out and judge it."""
    run = Run(plan)
    try:
        return run.result()
    finally:
        run.cluster.down()


class Run:
    """A run under way; tests and bundles look into it."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        image = plan.knobs.image()
        self.watch = Monitor(image)
        self.cluster = SimCluster(
            plan.knobs.partitions, image, plan.seed, self.watch, pick_of(plan), plan.knobs.image_of
        )
        self.watch.follow(self.cluster)
        self.cluster.latency_ns = latency_of(plan)
        self.watch.scene.injuries.forgers |= plan.malicious
        reach = self.watch.sometimes.reach
        fatal = Fatal(self.cluster, lambda partid, thread: reach("killed_in_call"))
        self.stage = Executor(self.cluster, fatal.arm, reach)
        self.stage.accesses.caught = self.watch.shadow.caught
        self.troubles = Injector(self.cluster, self.stage, plan, self.watch.take)
        self.undecided = 0
        self._ending = RunEnding(self.cluster, self.watch, self.stage)
        for operation in plan.operations:
            self.cluster.at(operation.at_ns, partial(self.stage.perform, operation))

    def result(self) -> Result:
        """Run to the end and judge."""
        self.cluster.run_for(self.plan.load_ns)
        self.troubles.heal(self.watch.scene.injuries.forgers.discard)
        ending = self._ending
        if self._leave() and ending.converges(8 * self._once_ns()) and ending.calls_end():
            self.watch.shadow.settled()
            ending.quiet()
            ending.read_again(FINAL_LOADS)
            ending.end_importers()
            ending.end_all()
            self._use_again()
            self.watch.pins.settled()
            self.watch.bounds.settled()
        self._tell_situations()
        self.stage.history.forget(self._open_to_forgers())
        self.undecided = check_memory(self.watch.scene, self.stage.history)
        return self._result()

    def _result(self) -> Result:
        violations = self.watch.scene.violations
        verdict = Verdict.INVALID if violations else Verdict.VALID
        if self.undecided and not violations:
            verdict = Verdict.UNKNOWN
        return Result(
            seed=self.plan.seed,
            verdict=verdict,
            violations=violations,
            digest=self.watch.digest,
            steps=self.cluster.steps,
            events=self.watch.events,
            virtual_ns=self.cluster.now_ns,
            injected=_sorted(self.troubles.injected),
            reached=_sorted(self.watch.sometimes.reached),
            outcomes=_sorted(self.stage.outcomes),
        )

    def _tell_situations(self) -> None:
        sessions = self.watch.scene.sessions
        for store, moment in self.troubles.landed:
            if sessions.gave_up(store.home, store.view.actor.partid, store.begin, moment):
                self.watch.sometimes.reach("fenced_importer_woke_in_store")
        for name in self.troubles.injected.keys() & AIMED.keys():
            self.watch.sometimes.reach(name)

    def _open_to_forgers(self) -> set[int]:
        """Regions of malicious partitions, and those that one of them asked a permit for: it may
        write there as it likes. Whatever else is in memory must be right."""
        evil, cast = self.plan.malicious, self.stage.cast
        regions = {each.number for each in cast.regions.values() if each.actor.partid in evil}
        regions |= {
            each.segment.region for each in cast.permits.values() if each.actor.partid in evil
        }
        for forgery in self.plan.forgeries:
            for what, number in references(forgery):
                if what == "segment" and number in cast.segments:
                    regions.add(cast.segments[number].region)
        return regions

    # -- liveness --------------------------------------------------------------------------

    def _leave(self) -> bool:
        """L3: whoever was about to shut down when all was healed does so; then it boots again."""
        kernels = self.cluster.kernels
        leaving = [each for each in kernels.values() if each.stopping and each.stopped is None]
        try:
            limit_ns = 8 * self._once_ns()
            self.cluster.run_until(lambda: all(each.stopped for each in leaving), limit_ns)
        except Stuck:
            stuck = [each.partid for each in leaving if each.stopped is None]
            self._ending.report(
                Invariant.L3, f"partitions {stuck} do not get to the end of their shutdown"
            )
            return False
        self.troubles.revive()
        return True

    def _once_ns(self) -> int:
        """How long it takes at most to give a peer up and to let go of it."""
        xpc = self.plan.knobs.image().xpc
        return xpc.control_attempt * xpc.control_tries + xpc.disengage_limit + xpc.heartbeat_check

    def _use_again(self) -> None:
        """L4: every new operation succeeds, around the ring of partitions."""
        everybody = sorted(self.cluster.kernels)
        for partid in everybody:
            peer = everybody[(everybody.index(partid) + 1) % len(everybody)]
            try:
                self._share(partid, peer)
            except (KernelError, Signalled, Stuck) as error:
                self._ending.report(
                    Invariant.L4, f"sharing p{partid} with p{peer} after healing: {error}"
                )

    def _share(self, home: int, away: int) -> None:
        exporter, importer = self.cluster.spawn(home), self.cluster.spawn(away)
        address = exporter.mmap(2 * PAGE_SIZE)
        exporter.store(address, b"exported")
        apid = importer.xpmem_get(exporter.xpmem_make(address, 2 * PAGE_SIZE, 0o666))
        there = importer.xpmem_attach(apid, 0, 2 * PAGE_SIZE)
        if importer.load(there, 8) != b"exported":
            self._ending.report(Invariant.S8, f"p{away} does not see what p{home} stored")
        importer.store(there + PAGE_SIZE, b"imported")
        if exporter.load(address + PAGE_SIZE, 8) != b"imported":
            self._ending.report(Invariant.S8, f"p{home} does not see what p{away} stored")
        exporter.exit()
        importer.exit()


def _sorted(counter: Counter[str]) -> dict[str, int]:
    return dict(sorted(counter.items()))
