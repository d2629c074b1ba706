"""How a world that was healed comes to its end, and what must hold on the way.

Every partition becomes ACTIVE with every other one, every call ends, tables agree while all is
quiet, words are read once more, and nothing is left of any task. Runs of campaigns and explored
schedules end so; of a story's world, which nobody else plays on, `check_left` is all.
"""

from collections.abc import Set

from xpmem_emu.errors import KernelError
from xpmem_emu.judge.checkers.quiet import check_quiet
from xpmem_emu.judge.checkers.teardown import check_teardown
from xpmem_emu.judge.invariants import Invariant
from xpmem_emu.judge.monitor import Monitor
from xpmem_emu.sim.cluster import SimCluster
from xpmem_emu.sim.operations.executor import Executor
from xpmem_emu.sim.operations.registry import TaskKey
from xpmem_emu.sim.plan import Op, Operation
from xpmem_emu.sim.ticket import Stuck


class RunEnding:
    """The end of one world. What does not hold is a violation of its scene."""

    def __init__(self, cluster: SimCluster, watch: Monitor, stage: Executor) -> None:
        self._cluster = cluster
        self._watch = watch
        self._stage = stage
        self._limit_ns = 8 * cluster.image.deadlines.fault_wait_max
        """How long anything that waits for an answer may take."""

    def report(self, invariant: Invariant, text: str) -> None:
        """Something does not hold, now, and no partition is to blame."""
        self._watch.scene.now_ns = self._cluster.now_ns
        self._watch.scene.report(invariant, -1, text)

    def converges(self, limit_ns: int) -> bool:
        """L4: every partition becomes ACTIVE with every other one."""
        active, everybody = self._watch.scene.sessions.active, self._cluster.kernels

        def apart() -> list[str]:
            return [f"p{a}-p{b}" for a in everybody for b in everybody if not active(a, b)]

        def connected() -> bool:
            """No channel is being opened any more either: what is not yet answered of that would
            look like something left over."""
            kernels = self._cluster.kernels.values()
            return not apart() and not any(each.xpc.audit()["admin"] for each in kernels)

        try:
            self._cluster.run_until(connected, limit_ns)
        except Stuck:
            self.report(
                Invariant.L4, f"not active {limit_ns / 1e6:.0f} ms after healing: {apart()}"
            )
            return False
        return True

    def calls_end(self) -> bool:
        """L3: no call hangs."""
        cluster = self._cluster
        try:
            cluster.run_until(lambda: not cluster.outstanding, self._limit_ns)
        except Stuck:
            threads = [
                f"p{partid}:{thread.name}"
                for partid, kernel in cluster.kernels.items()
                for thread in kernel.scheduler.threads
                if "/" in thread.name
            ]
            stuck = len(cluster.outstanding)
            self.report(Invariant.L3, f"{stuck} calls have not ended: {' '.join(threads[:8])}")
            return False
        return True

    def quiet(self) -> None:
        """Nothing is under way, and tasks still have what they have: tables agree."""
        self._watch.endings.settled()
        self.settle()
        self._watch.agreement.settled()
        check_quiet(self._watch.scene)
        self._watch.permits.quiet()

    def read_again(self, most: int | None = None) -> None:
        """Load words through the exporter, so that the history says what became of them."""
        stage = self._stage
        words = {access.word for access in stage.history.accesses}
        for word in sorted(words, key=lambda w: (w.region, w.page, w.word))[:most]:
            stage.perform(
                Operation(
                    self._cluster.now_ns,
                    Op.LOAD,
                    task=stage.cast.regions[word.region].task,
                    region=word.region,
                    page=word.page,
                    word=word.word,
                )
            )
        self.calls_end()

    def end_importers(self) -> None:
        """S3: every task ends that exports nothing, and no page is pinned any more."""
        self._end_tasks({region.actor for region in self._stage.cast.regions.values()})
        self.settle()
        self._watch.pins.unused()
        self._watch.permits.settled()

    def end_all(self) -> None:
        """S10: nothing is left when every task has ended, and every file is gone."""
        self._end_tasks(frozenset())
        self.settle()
        for partid, kernel in self._cluster.kernels.items():
            for name in list(kernel.memory.files.by_name):
                self._stage.unlink(partid, name)
        self.settle()
        check_left(self._cluster, self._watch)

    def settle(self) -> None:
        """Let everything that is under way come to its end."""
        times = self._cluster.image.deadlines
        self._cluster.run_for(times.recall_attempt * times.recall_tries)
        if self.calls_end():
            self._requests_end()

    def _requests_end(self) -> None:
        """L3 of what no call waits for: goodbyes of tasks that have ended, or that came too late.
        A failpoint may hold them up, and until they are heard one side notes what the other has
        forgotten."""
        try:
            self._cluster.run_until(lambda: not self._requests(), self._limit_ns)
        except Stuck:
            self.report(Invariant.L3, f"{self._requests()} requests of partitions have not ended")

    def _requests(self) -> int:
        """How many messages wait for their answers, or for a place, or are being served."""
        held = [
            kernel.xpc.audit() for kernel in self._cluster.kernels.values() if not kernel.stopped
        ]
        return sum(each["slots"] + each["waiting"] + each["threads"] for each in held)

    def _end_tasks(self, spared: Set[TaskKey]) -> None:
        for partid, kernel in self._cluster.kernels.items():
            boot = self._cluster.boot_of(partid)
            for task in list(kernel.tasks):
                if TaskKey(partid, boot, task.pid) not in spared:
                    kernel.tasks.end(task, None, "the run is over")
            self._cluster.poke(partid)


def check_left(cluster: SimCluster, watch: Monitor) -> None:
    """S10: what is left on the partitions that run, when their tasks have ended."""
    for partid, kernel in cluster.kernels.items():
        if kernel.stopped is not None:
            continue
        try:
            audit = cluster.audit(partid)
        except (KernelError, Stuck) as error:
            watch.scene.report(Invariant.S10, partid, f"the audit fails: {error}")
        else:
            check_teardown(watch.scene, partid, kernel, audit)
