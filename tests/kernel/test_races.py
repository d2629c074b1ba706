"""Calls of one task that race each other, its exec, its exit and its death.

Whatever runs together: no kernel panics, every call is answered, nothing is left afterwards. The
order is drawn: which calls, who runs first, where threads yield and are delayed, and where a kill
falls: at a time, or between two threads of one step.
"""

from collections.abc import Callable, Iterator
from random import Random

import pytest

from tests.clusters import SMALL, cluster_of, leftovers
from tests.xpmem.world import PAGE
from xpmem_emu.errors import KernelError, Signal, SignalInfo
from xpmem_emu.image import Image
from xpmem_emu.kernel import breaking, calls
from xpmem_emu.kernel.calls import Call
from xpmem_emu.kernel.interface import Raised
from xpmem_emu.sim.cluster import SimCluster
from xpmem_emu.sim.task import SimTask
from xpmem_emu.sim.ticket import Ticket

PAGES = 4
SIZE = PAGES * PAGE
IMAGE = Image(memory=SMALL.memory)
POINTS = (
    "mm.fork.copy",
    "mm.exit.before_unmap",
    "mm.gather.before_free",
    "mm.fault.begin",
    "xpmem.get.before_adopt",
    "xpmem.attach.before_map",
    "xpmem.fault.before_send",
    "xpmem.recall.before_send",
    "xpmem.recall.before_unpin",
    "xpmem.evict.before_tell",
    "xpmem.invalidate.before_ack",
    "kernel.task.before_reap",
)
"""Awaits at which threads may yield or be delayed."""
ENDERS = ("exec", "close", "fork", "exit", "release", "detach", "remove")
"""One of them is always in the race."""
TRIALS = 20


class Actor:
    """A task that exports to and imports from a partner on p1, who holds all pages of both."""

    def __init__(self, cluster: SimCluster) -> None:
        self.task, self.partner = cluster.spawn(0), cluster.spawn(1)
        partner = self.partner
        self.base = self.task.mmap(SIZE)
        self.segid = self.task.xpmem_make(self.base, SIZE, 0o666)
        self.theirs = partner.mmap(SIZE)
        self.foreign = partner.xpmem_make(self.theirs, SIZE, 0o666)
        self.apid = self.task.xpmem_get(self.foreign)
        self.at = self.task.xpmem_attach(self.apid, 0, SIZE)
        self.task.store(self.at, b"a" * SIZE)
        partner.store(partner.xpmem_attach(partner.xpmem_get(self.segid), 0, SIZE), b"b" * SIZE)

    def calls(self) -> dict[str, Callable[[Random], tuple[Call, bytes]]]:
        """What it may do, by name."""
        pid, base, at = self.task.pid, self.base, self.at
        return {
            "exec": lambda r: (calls.Exec(pid), b""),
            "fork": lambda r: (calls.Fork(pid), b""),
            "exit": lambda r: (calls.Exit(pid), b""),
            "close": lambda r: (calls.XpmemClose(pid), b""),
            "open": lambda r: (calls.XpmemOpen(pid), b""),
            "munmap": lambda r: (calls.Munmap(pid, base, r.randrange(1, PAGES) * PAGE), b""),
            "mprotect": lambda r: (calls.Mprotect(pid, base + PAGE, PAGE, r.randrange(4)), b""),
            "make": lambda r: (calls.XpmemMake(pid, base, SIZE), b""),
            "remove": lambda r: (calls.XpmemRemove(pid, self.segid), b""),
            "get": lambda r: (calls.XpmemGet(pid, r.choice([self.foreign, self.segid])), b""),
            "attach": lambda r: (calls.XpmemAttach(pid, self.apid, 0, SIZE), b""),
            "detach": lambda r: (calls.XpmemDetach(pid, at), b""),
            "release": lambda r: (calls.XpmemRelease(pid, self.apid), b""),
            "load": lambda r: (calls.Load(pid, r.choice([base, at]), SIZE), b""),
            "store": lambda r: (calls.Store(pid, r.choice([base, at])), b"c" * SIZE),
            "fork_begin": lambda r: (calls.XpmemForkBegin(pid), b""),
            "reclaim": lambda r: (calls.Reclaim(PAGES, pid, base, SIZE), b""),
        }

    def call(self, name: str) -> Call:
        """One of them."""
        return self.calls()[name](Random(0))[0]


class Chance:
    """The scheduler's choices, and a kill between two of them when its number comes up."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._left = 0
        self._strike: Callable[[], None] = lambda: None

    def arm(self, left: int, strike: Callable[[], None]) -> None:
        self._left, self._strike = left, strike

    def pick(self, runnable: int) -> int:
        self._left -= 1
        if self._left == 0:
            self._strike()
        return self._random.randrange(runnable)


def trial(seed: int) -> tuple[SimCluster, list[str], list[Ticket]]:
    """One race to its end: what ran, and what became of it."""
    random = Random(seed)
    chance = Chance(random)
    cluster = SimCluster(2, IMAGE, pick_of=lambda partid: chance.pick, audits=True)
    cluster.run_until_active()
    actor = Actor(cluster)
    for point in random.sample(POINTS, 4):
        terms = random.choice(["50%yield", "50%delay(40us)", "20%delay(300us)"])
        cluster.call(random.randrange(2), breaking.FailpointSet(point, terms, seed))
    kinds = actor.calls()
    names = [random.choice(ENDERS), *random.choices(list(kinds), k=random.choice([1, 1, 2]))]
    random.shuffle(names)
    tickets: list[Ticket] = []
    if random.random() < 0.4:
        names.append("kill")
        chance.arm(
            random.randrange(1, 25),
            lambda: cluster.kernels[0].kill(actor.task.pid, SignalInfo(Signal.SIGKILL, "the race")),
        )
    elif random.random() < 0.5:
        names.append("kill later")
        cluster.at(
            cluster.now_ns + random.randrange(400_000),
            lambda: tickets.append(cluster.submit(0, calls.Kill(actor.task.pid))),
        )
    for name in names[:3]:
        if name in kinds:
            tickets.append(actor.task.begin(*kinds[name](random)))
            cluster.run_for(random.choice([0, 0, 10_000, 45_000, 90_000]))
    cluster.run_for(1_000_000)
    cluster.run_until(lambda: all(ticket.ended for ticket in tickets))
    return cluster, names, tickets


@pytest.mark.parametrize("block", range(5))
def test_calls_of_one_task_race_its_exec_exit_and_death(block: int) -> None:
    for seed in range(block * TRIALS, (block + 1) * TRIALS):
        cluster, names, tickets = trial(seed)
        what = f"seed {seed}: {', '.join(names)}: {[str(t.outcome)[:60] for t in tickets]}"
        assert {p: k.stopped for p, k in cluster.kernels.items() if k.stopped} == {}, what
        cluster.call(0, breaking.FailpointClear())
        cluster.call(1, breaking.FailpointClear())
        assert leftovers(cluster) == {}, what


# -- each rule by itself ----------------------------------------------------------------------


@pytest.fixture
def actor(cluster: SimCluster) -> Iterator[Actor]:
    yield Actor(cluster)
    for partid in (0, 1):
        cluster.call(partid, breaking.FailpointClear())


def pause(task: SimTask, partid: int, point: str) -> None:
    task.cluster.call(partid, breaking.FailpointSet(point, "pause"))


def settle(task: SimTask) -> None:
    cluster_of(task).run_for(300_000)


@pytest.mark.parametrize("second", ["close", "exec", "exit"])
@pytest.mark.parametrize("first", ["close", "remove"])
def test_who_ends_a_group_waits_for_what_others_had_begun_to_end(
    actor: Actor, first: str, second: str
) -> None:
    task = actor.task
    pause(task, 1, "xpmem.invalidate.before_ack")
    begun = task.begin(actor.call(first))
    settle(task)
    later = task.begin(actor.call(second))
    settle(task)
    assert not (begun.ended)
    assert not (later.ended)
    task.cluster.call(1, breaking.FailpointClear())
    cluster = cluster_of(task)
    cluster.run_until(lambda: begun.ended and later.ended)
    assert cluster.audit(0)["segments"] == cluster.audit(0)["groups"] == 0
    assert later.answer().value is None


@pytest.mark.parametrize("end", ["release", "close", "exec", "exit"])
def test_an_attach_whose_permit_ends_while_it_sleeps_leaves_nothing(actor: Actor, end: str) -> None:
    task, cluster = actor.task, cluster_of(actor.task)
    pause(task, 1, "xpmem.invalidate.before_ack")
    attach = task.begin(calls.XpmemAttach(task.pid, actor.apid, 0, SIZE, actor.base))
    settle(task)
    ending = task.begin(actor.call(end))
    settle(task)
    assert [attach.ended, ending.ended] == [False, False]
    cluster.call(1, breaking.FailpointClear())
    cluster.run_until(lambda: attach.ended and ending.ended)
    assert ending.answer().value is None
    if end in ("release", "close"):  # the others wait for the call before they begin
        with pytest.raises(KernelError, match="released"):
            attach.answer()
    counts = cluster.audit(0)
    assert (counts["attachments"], counts["permits"]) == (0, 0)
    assert counts["mm_areas"] == 0


@pytest.mark.parametrize("first", ["close", "remove", "release", "detach", "munmap"])
@pytest.mark.parametrize("second", ["exec", "exit", "close"])
def test_two_calls_end_the_same_things_at_once(actor: Actor, first: str, second: str) -> None:
    tickets = [actor.task.begin(actor.call(name)) for name in (first, second)]
    cluster = cluster_of(actor.task)
    cluster.run_until(lambda: all(ticket.ended for ticket in tickets))
    assert cluster.kernels[0].stopped is None


def test_exec_ends_the_other_calls_of_its_task_and_not_the_task(actor: Actor) -> None:
    task = actor.task
    actor.partner.madvise(actor.theirs, SIZE, calls.MADV_DONTNEED)
    pause(task, 1, "xpmem.fault.before_pin")
    load = task.begin(calls.Load(task.pid, actor.at, 8))
    settle(task)
    task.cluster.call(0, calls.Exec(task.pid))
    assert isinstance(load.outcome, Raised)
    assert "exec" in load.outcome.info.reason
    assert task.mmap(PAGE)
    assert [row["last_signal"] for row in task.cluster.call(0, calls.Look("tasks")).value] == [""]


def test_a_call_that_comes_during_an_exec_is_refused(actor: Actor) -> None:
    task = actor.task
    pause(task, 0, "mm.exit.before_unmap")
    first = task.begin(calls.Exec(task.pid))
    settle(task)
    for call in (calls.Mmap(task.pid, PAGE), calls.Exec(task.pid), calls.XpmemOpen(task.pid)):
        refused = task.begin(call)
        assert refused.ended
        assert "exec" in str(refused.outcome)
    task.cluster.call(0, breaking.FailpointClear())
    cluster_of(task).run_until(lambda: first.ended)
    assert task.mmap(PAGE)


def test_a_killed_task_forks_no_child(actor: Actor) -> None:
    task = actor.task
    pause(task, 0, "mm.fork.copy")
    fork = task.begin(calls.Fork(task.pid))
    task.kill()
    assert isinstance(fork.outcome, Raised)
    assert not list(cluster_of(task).kernels[0].tasks)


def test_a_fork_under_way_has_its_place_in_the_table(
    make_cluster: Callable[..., SimCluster],
) -> None:
    limits = type(IMAGE.limits)(tasks=2)
    cluster = make_cluster(2, Image(memory=SMALL.memory, limits=limits))
    task = cluster.spawn(0)
    pause(task, 0, "mm.fork.copy")
    forks = [task.begin(calls.Fork(task.pid)) for _ in range(3)]
    cluster.call(0, breaking.FailpointClear())
    cluster.run_until(lambda: all(fork.ended for fork in forks))
    assert len(cluster.kernels[0].tasks) == 2
