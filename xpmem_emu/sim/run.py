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
from xpmem_emu.judge.checkers.quiet import check_quiet
from xpmem_emu.judge.checkers.teardown import check_teardown
from xpmem_emu.judge.invariants import Invariant
from xpmem_emu.judge.monitor import Monitor
from xpmem_emu.judge.sometimes import AIMED
from xpmem_emu.judge.verdict import Verdict, Violation
from xpmem_emu.sim.cluster import SimCluster
from xpmem_emu.sim.draw.forging import references
from xpmem_emu.sim.draw.world import latency_of, pick_of
from xpmem_emu.sim.injection.fatal import Fatal
from xpmem_emu.sim.injection.injector import Injector
from xpmem_emu.sim.operations.executor import Executor
from xpmem_emu.sim.plan import Op, Operation, Plan
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
        for operation in plan.operations:
            self.cluster.at(operation.at_ns, partial(self.stage.perform, operation))

    def result(self) -> Result:
        """Run to the end and judge."""
        self.cluster.run_for(self.plan.load_ns)
        self.troubles.heal(self.watch.scene.injuries.forgers.discard)
        if self._leave() and self._converges() and self._calls_end():
            self.watch.shadow.settled()
            self.watch.endings.settled()
            self._settle()
            self.watch.agreement.settled()
            check_quiet(self.watch.scene)
            self.watch.permits.quiet()
            self._read_again()
            self._end_tasks()
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
            self._report(
                Invariant.L3, f"partitions {stuck} do not get to the end of their shutdown"
            )
            return False
        self.troubles.revive()
        return True

    def _once_ns(self) -> int:
        """How long it takes at most to give a peer up and to let go of it."""
        xpc = self.plan.knobs.image().xpc
        return xpc.control_attempt * xpc.control_tries + xpc.disengage_limit + xpc.heartbeat_check

    def _converges(self) -> bool:
        """L4: every partition becomes ACTIVE with every other one."""
        once = self._once_ns()
        try:
            self.cluster.run_until(self._all_connected, 8 * once)
        except Stuck:
            pairs = [
                f"p{a}-p{b}"
                for a in self.cluster.kernels
                for b in self.cluster.kernels
                if not self.watch.scene.sessions.active(a, b)
            ]
            self._report(Invariant.L4, f"not active {8 * once / 1e6:.0f} ms after healing: {pairs}")
            return False
        return True

    def _all_active(self) -> bool:
        sessions = self.watch.scene.sessions
        everybody = self.cluster.kernels
        return all(sessions.active(a, b) for a in everybody for b in everybody)

    def _all_connected(self) -> bool:
        """Everybody is ACTIVE, and no channel is being opened any more: what is not yet answered
        of that would look like something left over."""
        kernels = self.cluster.kernels.values()
        return self._all_active() and not any(each.xpc.audit()["admin"] for each in kernels)

    def _calls_end(self) -> bool:
        """L3: no call hangs."""
        limit_ns = 8 * self.plan.knobs.image().deadlines.fault_wait_max
        try:
            self.cluster.run_until(lambda: not self.cluster.outstanding, limit_ns)
        except Stuck:
            stuck = len(self.cluster.outstanding)
            threads = [
                f"p{partid}:{thread.name}"
                for partid, kernel in self.cluster.kernels.items()
                for thread in kernel.scheduler.threads
                if "/" in thread.name
            ]
            self._report(Invariant.L3, f"{stuck} calls have not ended: {' '.join(threads[:8])}")
            return False
        return True

    def _read_again(self) -> None:
        """Load words through the exporter, so that the history says what became of them."""
        words = {access.word for access in self.stage.history.accesses}
        for word in sorted(words, key=lambda w: (w.region, w.page, w.word))[:FINAL_LOADS]:
            region = self.stage.cast.regions[word.region]
            self.stage.perform(
                Operation(
                    self.cluster.now_ns,
                    Op.LOAD,
                    task=region.task,
                    region=word.region,
                    page=word.page,
                    word=word.word,
                )
            )
        self._calls_end()

    def _end_tasks(self) -> None:
        """S3 when the importers have ended, S10: nothing is left when every task has."""
        exporters = {region.actor for region in self.stage.cast.regions.values()}
        for partid in self.cluster.kernels:
            boot = self.cluster.boot_of(partid)
            self._end(
                partid,
                {each.pid for each in exporters if (each.partid, each.boot) == (partid, boot)},
            )
        self._settle()
        self.watch.pins.unused()
        self.watch.permits.settled()
        for partid in self.cluster.kernels:
            self._end(partid, set())
        self._settle()
        for partid, kernel in self.cluster.kernels.items():
            for name in list(kernel.memory.files.by_name):
                self.stage.unlink(partid, name)
        self._settle()
        self._check_teardown()

    def _end(self, partid: int, spared: set[int]) -> None:
        """End the tasks of a partition, some pids spared."""
        table = self.cluster.kernels[partid].tasks
        for task in list(table):
            if task.pid not in spared:
                table.end(task, None, "the run is over")
        self.cluster.poke(partid)

    def _settle(self) -> None:
        """Let everything that is under way come to its end."""
        times = self.plan.knobs.image().deadlines
        self.cluster.run_for(times.recall_attempt * times.recall_tries)
        if self._calls_end():
            self._requests_end()

    def _requests_end(self) -> None:
        """L3 of what no call waits for: goodbyes of tasks that have ended, or that came too late.
        A failpoint may hold them up, and until they are heard one side notes what the other has
        forgotten."""
        limit_ns = 8 * self.plan.knobs.image().deadlines.fault_wait_max
        try:
            self.cluster.run_until(lambda: not self._requests(), limit_ns)
        except Stuck:
            self._report(Invariant.L3, f"{self._requests()} requests of partitions have not ended")

    def _requests(self) -> int:
        """How many messages wait for their answers, or for a place, or are being served."""
        held = [
            kernel.xpc.audit() for kernel in self.cluster.kernels.values() if not kernel.stopped
        ]
        return sum(each["slots"] + each["waiting"] + each["threads"] for each in held)

    def _check_teardown(self) -> None:
        for partid, kernel in self.cluster.kernels.items():
            if kernel.stopped is not None:
                continue
            try:
                audit = self.cluster.audit(partid)
            except (KernelError, Stuck) as error:
                self._report(Invariant.S10, f"the audit of p{partid} fails: {error}")
            else:
                check_teardown(self.watch.scene, partid, kernel, audit)

    def _use_again(self) -> None:
        """L4: every new operation succeeds, around the ring of partitions."""
        everybody = sorted(self.cluster.kernels)
        for partid in everybody:
            peer = everybody[(everybody.index(partid) + 1) % len(everybody)]
            try:
                self._share(partid, peer)
            except (KernelError, Signalled, Stuck) as error:
                self._report(Invariant.L4, f"sharing p{partid} with p{peer} after healing: {error}")

    def _share(self, home: int, away: int) -> None:
        exporter, importer = self.cluster.spawn(home), self.cluster.spawn(away)
        address = exporter.mmap(2 * PAGE_SIZE)
        exporter.store(address, b"exported")
        apid = importer.xpmem_get(exporter.xpmem_make(address, 2 * PAGE_SIZE, 0o666))
        there = importer.xpmem_attach(apid, 0, 2 * PAGE_SIZE)
        if importer.load(there, 8) != b"exported":
            self._report(Invariant.S8, f"p{away} does not see what p{home} stored")
        importer.store(there + PAGE_SIZE, b"imported")
        if exporter.load(address + PAGE_SIZE, 8) != b"imported":
            self._report(Invariant.S8, f"p{home} does not see what p{away} stored")
        exporter.exit()
        importer.exit()

    def _report(self, invariant: Invariant, text: str) -> None:
        self.watch.scene.now_ns = self.cluster.now_ns
        self.watch.scene.report(invariant, -1, text)


def _sorted(counter: Counter[str]) -> dict[str, int]:
    return dict(sorted(counter.items()))
