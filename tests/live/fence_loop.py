"""The fence against a real process that is stopped in the middle of a store, many times over.

Each round: the importer's process stores without end through its mapping of the exporter's
memory and is stopped (SIGSTOP) at random moments until one is inside of a store; the exporter
unmaps a part, the recall's deadline passes, the importer is given up and the rest is moved away
from it; other data fills every free frame; the importer goes on (SIGCONT) and finishes its store.
No page that a task of the exporter can reach, and no page of its files, may change; the importer's
task gets SIGBUS with the reason; the partition rejoins by itself in a new session, and the
quarantine is empty.

    python -m tests.live.fence_loop --rounds 100 --seed 1
"""

import hashlib
import statistics
import threading
from dataclasses import dataclass
from pathlib import Path
from random import Random

import click

from tests.live.loops import (
    BOUND_S,
    Broken,
    Listener,
    let_pass,
    patiently,
    require,
    running,
    verdict,
)
from xpmem_emu import connect
from xpmem_emu.backend import processes
from xpmem_emu.client.blocking import Partition, Task
from xpmem_emu.client.failures import SigBus, TaskSignalled, XpmemError
from xpmem_emu.client.operations import CHUNK
from xpmem_emu.judge.streams import StreamsEnd

NAME = "fence"
IMAGE = str(Path(__file__).with_name("fence.toml"))
PAGE = 4096
PAGES = 512
SIZE = PAGES * PAGE
FILE = 16 * PAGE
IMPORTERS = 2
"""Tasks that store at the same time, so that their process is never idle."""
STOPS_MAX = 50
SPARE = 256
"""Free frames that the other data leaves: fences and page tables want some."""


@dataclass(frozen=True, slots=True)
class Round:
    """What one round showed."""

    inside: bool
    """The process was stopped inside of a store: some of its bytes were in memory, not all."""
    quarantined: int
    rejoined_s: float


class Hammer(threading.Thread):
    """A client of the importer that stores over everything, each time another byte."""

    def __init__(self, task: Task, segid: int) -> None:
        super().__init__(daemon=True)
        self.task, self.address = task, task.xpmem_attach(task.xpmem_get(segid), 0, SIZE)
        self.stores = 0
        self.end: Exception | None = None

    def busy(self) -> bool:
        """Whether every page is mapped by now and stored to, or the end has come."""
        return self.stores > 1 or self.end is not None

    def run(self) -> None:
        """Until the task is hit or refused."""
        data = [bytes([byte]) * SIZE for byte in (1, 2)]
        try:
            while True:
                self.task.store(self.address, data[self.stores % 2])
                self.stores += 1
        except (TaskSignalled, XpmemError) as error:
            self.end = error


class Exported:
    """The exporter's side of one round, and a digest of all that its tasks and files hold."""

    def __init__(self, partition: Partition, rng: Random) -> None:
        self.partition = partition
        self.task = partition.spawn()
        self.base = self.task.mmap(SIZE)
        order = list(range(PAGES))
        rng.shuffle(order)  # scattered frames: a store takes many copies
        for page in order:
            self.task.store(self.base + page * PAGE, b"\0")
        self.segid = self.task.xpmem_make(self.base, SIZE)
        partition.creat("kept", FILE)
        partition.pwrite("kept", rng.randbytes(FILE))
        self.ranges = [(self.task, self.base, SIZE)]

    def torn(self) -> bool:
        """Whether a piece of memory that one store overwrites has bytes of two."""
        now = self.task.load(self.base, SIZE)
        pieces = [now[at : at + CHUNK] for at in range(0, SIZE, CHUNK)]
        return any(piece != piece[:1] * len(piece) for piece in pieces)

    def unmap_some(self, rng: Random) -> None:
        """The exporter's call that needs the importer's acknowledgement."""
        first = rng.randrange(PAGES - 1)
        count = rng.randint(1, PAGES - 1 - first)
        self.task.munmap(self.base + first * PAGE, count * PAGE)
        kept = [(0, first), (first + count, PAGES - first - count)]
        self.ranges = [
            (self.task, self.base + at * PAGE, pages * PAGE) for at, pages in kept if pages
        ]

    def fill(self, rng: Random) -> None:
        """Other data in every frame that is free."""
        counts = self.partition.audit()
        pages = counts["mm_frames_total"] - counts["mm_frames_in_use"] - SPARE
        task = self.partition.spawn()
        address = task.mmap(pages * PAGE)
        task.store(address, rng.randbytes(pages * PAGE))
        self.ranges.append((task, address, pages * PAGE))

    def digest(self) -> str:
        """Of every page that tasks can reach, and of the page cache."""
        found = hashlib.blake2b(self.partition.pread("kept", FILE))
        for task, address, size in self.ranges:
            found.update(task.load(address, size))
        return found.hexdigest()

    def end(self) -> None:
        """Nothing of the round stays."""
        for task in {task.pid: task for task, _, _ in self.ranges} | {self.task.pid: self.task}:
            self.partition.task(task).exit()
        self.partition.unlink("kept")


class FenceLoop:
    """A running cluster of two: p0 exports, p1 imports."""

    def __init__(self, home: Partition, away: Partition, seed: int) -> None:
        self.home, self.away, self.seed = home, away, seed
        self.heard = Listener(home)

    def round(self, number: int) -> Round:
        """One round. Raises Broken."""
        rng = Random(f"{self.seed}/{number}")
        exported = Exported(self.home, rng)
        before = self._incarnation()
        hammers = [Hammer(self.away.spawn(), exported.segid) for _ in range(IMPORTERS)]
        for hammer in hammers:
            hammer.start()
            patiently(hammer.busy, "the importer stores")
        try:
            inside = self._stop_inside(exported, rng)
            exported.unmap_some(rng)
            self.heard.expect("xpmem:fence_end", importer=1)
            quarantined = int(self.home.audit()["quarantined"])
            exported.fill(rng)
            live = exported.digest()
        finally:
            processes.resume(NAME, "p1")
        for hammer in hammers:
            self._told(hammer)
        rejoined_s = patiently(lambda: self._incarnation() > before, "p1 rejoins")
        patiently(lambda: self.home.audit()["quarantined"] == 0, "the quarantine empties")
        require(exported.digest() == live, f"round {number}: live memory changed")
        require(quarantined > 0, f"round {number}: nothing was quarantined")
        exported.end()
        return Round(inside, quarantined, rejoined_s)

    def _stop_inside(self, exported: Exported, rng: Random) -> bool:
        """Stop the importer's process at random moments until one is inside of a store."""
        for _ in range(STOPS_MAX):
            processes.resume(NAME, "p1")
            let_pass(rng.uniform(0, 0.02))
            processes.hang(NAME, "p1")
            if exported.torn():
                return True
        return False

    def _told(self, hammer: Hammer) -> None:
        """The importer's task learns by SIGBUS, with the reason."""
        hammer.join(BOUND_S)
        end = hammer.end
        if not isinstance(end, SigBus):
            raise Broken(f"the importer's store ended with {end!r}")
        require("p0 is lost" in end.info.reason, f"no reason: {end.info}")

    def _incarnation(self) -> int:
        """Of p1 in its session with p0; 0: there is none."""
        (peer,) = self.home.look("partitions")
        return int(peer["incarnation"]) if peer["state"] == "ACTIVE" else 0


def fence_loop(rounds: int, seed: int, command: tuple[str, ...] = ()) -> list[Round]:
    """All rounds, and the judge over the event streams. Raises Broken. `command` runs another
    partition than ours."""
    with running(NAME, 2, command, IMAGE), connect("p0", NAME) as home, connect("p1", NAME) as away:
        loop = FenceLoop(home, away, seed)
        done = [loop.round(number) for number in range(rounds)]
        judgement = verdict(NAME, StreamsEnd.AT_REST, IMAGE)
    require(not judgement.violations, "; ".join(map(str, judgement.violations)))
    return done


@click.command()
@click.option("--rounds", default=100, show_default=True)
@click.option("--seed", default=1, show_default=True)
def main(rounds: int, seed: int) -> None:
    """Fence a stopped process so many times."""
    again = f"python -m tests.live.fence_loop --rounds {rounds} --seed {seed}"
    try:
        done = fence_loop(rounds, seed)
    except Exception:
        click.echo(f"again: {again}", err=True)
        raise
    inside = sum(each.inside for each in done)
    click.echo(
        f"{rounds} rounds, seed {seed}: stopped {inside} times inside of a store, "
        f"{sum(each.quarantined for each in done)} frames quarantined and returned, live memory "
        f"unchanged, rejoined after {statistics.median(r.rejoined_s for r in done):.2f} s (median)"
    )


if __name__ == "__main__":
    main()
