"""Two calls of a task at a time, tasks killed inside calls, second boots over stopped processes.

Three partitions; clients whose tasks do everything at random, two calls at a time, and are killed
or made to exec while another call of theirs is under way. Each round calls are made slow, or a
partition is stopped, perhaps with a second boot attempted over it, or killed. Whatever happens to
tasks, no partition may be given up for it: each session that ends is explained by what was done to
one of its two sides in that round. A boot over a stopped process is refused. Memory that nobody but
its keeper stores to keeps its bytes. At the end every count is back at zero and the event streams
are valid.

    python -m tests.live.crowd_loop --rounds 100 --seed 1
"""

import errno
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import click

from tests.live.load import Client, Market
from tests.live.loops import (
    Row,
    active,
    let_pass,
    patiently,
    require,
    require_balance,
    running,
    streams,
    verdict,
)
from tests.live.victim import ACK_S, SLOW_ACK, Victim
from xpmem_emu import connect
from xpmem_emu.backend import processes
from xpmem_emu.client.blocking import Partition, Task
from xpmem_emu.client.failures import TaskSignalled, XpmemError
from xpmem_emu.cluster.state import read_state
from xpmem_emu.cluster.topology import load_image
from xpmem_emu.errors import KernelError
from xpmem_emu.judge.streams import StreamJudgement, StreamsEnd
from xpmem_emu.live.partition import EXIT_REFUSED

NAME = "crowd"
IMAGE = str(Path(__file__).with_name("steady.toml"))
NAMES = ("p0", "p1", "p2")
CLIENTS = 2
"""For each partition."""
HANDS = 2
KINDS = ("calls", "slow calls", "kill inside", "stop", "boot over stopped", "kill")
"""What a round can be about."""
PAGE = 4096
KEPT = 16 * PAGE
VICTIMS = 5
"""Of a round in which tasks are killed inside calls."""
SLOW = (
    "xpmem.fault.before_reply=30%delay(40ms)",
    "xpmem.invalidate.before_ack=30%delay(100ms)",
    "xpmem.recall.before_unpin=30%delay(60ms)",
    "kernel.call.before_answer=20%delay(20ms)",
    "mm.gup.pin=10%delay(30ms)",
)
"""What makes a call long enough to be killed inside. Shorter than every deadline: no excuse."""


class Keeper:
    """Memory of a task of `home` that nobody stores to but one task of `away`."""

    def __init__(self, home: Partition, away: Partition, rng: Random) -> None:
        self.ends = {home.name, away.name}
        self._rng, self._away = rng, away
        self._owner = home.spawn("keeper")
        self._base = self._owner.mmap(KEPT)
        self._data = bytearray(rng.randbytes(KEPT))
        self._owner.store(self._base, self._data)
        self._segid = self._owner.xpmem_make(self._base, KEPT, 0o666)
        self._visitor, self._view = self._attached()

    def check(self) -> None:
        """Every byte is as it was left; then some are changed from afar. Raises Broken."""
        self._require_same("the owner", self._owner.load(self._base, KEPT))
        start = self._rng.randrange(KEPT - 64)
        piece = self._rng.randbytes(64)
        try:
            self._change(start, piece)
        except (TaskSignalled, XpmemError):
            # Its session with the owner had ended since; a new attachment is of the new one.
            self._visitor, self._view = self._attached()
            self._change(start, piece)
        self._require_same("the owner", self._owner.load(self._base, KEPT))

    def _change(self, start: int, piece: bytes) -> None:
        self._require_same("the importer", self._visitor.load(self._view, KEPT))
        self._visitor.store(self._view + start, piece)
        self._data[start : start + len(piece)] = piece

    def _attached(self) -> tuple[Task, int]:
        visitor = self._away.spawn("visitor")
        return visitor, visitor.xpmem_attach(visitor.xpmem_get(self._segid), 0, KEPT)

    def _require_same(self, whose: str, found: bytes) -> None:
        wrong = [at for at in range(KEPT) if found[at] != self._data[at]]
        require(not wrong, f"{whose} of {self.ends} finds {len(wrong)} bytes changed: {wrong[:4]}")


@dataclass(slots=True)
class Round:
    """What was done, to whom, and when, on the monotonic clock that events carry too."""

    kind: str
    begun_ns: int
    broken: str = ""
    ended_ns: int = 0


@dataclass(frozen=True, slots=True)
class Tally:
    """What the loop did and saw. `killed`: calls inside which their task was killed; `sessions`:
    how many ended."""

    kinds: Counter[str]
    outcomes: Counter[str]
    killed: int
    refused: int
    sessions: int
    judgement: StreamJudgement


@dataclass
class CrowdLoop:
    """The rounds, over a cluster that runs."""

    seed: int
    say: Callable[[str], None]
    kinds: Sequence[str]
    rounds: list[Round] = field(default_factory=list)
    refused: int = 0
    """Boots over a stopped process."""
    killed: int = 0
    """Calls of victims that were killed inside."""

    def __post_init__(self) -> None:
        self._rng = Random(f"{self.seed}")
        self._clients = {name: connect(name, NAME) for name in NAMES}
        self._keepers: list[Keeper] = []
        self._acts = dict(
            zip(
                KINDS,
                (
                    self._calls,
                    self._slow,
                    self._kill_inside,
                    self._stop,
                    self._boot_over,
                    self._kill,
                ),
                strict=True,
            )
        )
        self._keep()

    def round(self, number: int) -> None:
        """Break something, heal it, see everybody come back and every byte in place."""
        self._rng = Random(f"{self.seed}/{number}")
        one = Round(self._rng.choice(self.kinds), time.monotonic_ns())
        self.rounds.append(one)
        self._acts[one.kind](one)
        self.say(f"{number}: {one.kind} {one.broken}")
        patiently(lambda: active(NAME), f"round {number}, {one.kind}: all active again")
        for keeper in self._keepers:
            keeper.check()
        one.ended_ns = time.monotonic_ns()

    def close(self) -> None:
        """Leave."""
        for client in self._clients.values():
            client.close()

    def _keep(self) -> None:
        """A keeper for every two partitions that have none."""
        for home in NAMES:
            for away in NAMES:
                if home < away and not any(each.ends == {home, away} for each in self._keepers):
                    self._keepers.append(
                        Keeper(self._clients[home], self._clients[away], self._rng)
                    )

    def _pass(self, least_s: float, most_s: float) -> None:
        let_pass(self._rng.uniform(least_s, most_s))

    def _calls(self, one: Round) -> None:
        self._pass(0.3, 1)

    def _slow(self, one: Round) -> None:
        points = self._rng.sample(SLOW, 3)
        for client in self._clients.values():
            for text in points:
                point, _, terms = text.partition("=")
                client.failpoint_set(point, terms, self.seed)
        self._pass(0.5, 1.5)
        for client in self._clients.values():
            client.failpoint_clear()

    def _kill_inside(self, one: Round) -> None:
        for _ in range(VICTIMS):
            home, away = (self._clients[name] for name in self._rng.sample(NAMES, 2))
            away.failpoint_set(SLOW_ACK, f"delay({ACK_S * 1000:.0f}ms)", self.seed)
            with suppress(XpmemError):  # one was given up for another: judged at the end
                victim = Victim(home, away, self._rng)
                self.killed += victim.kill_after(self._rng.uniform(0, ACK_S))
            away.failpoint_clear(SLOW_ACK)

    def _stop(self, one: Round) -> None:
        one.broken = self._rng.choice(NAMES)
        processes.hang(NAME, one.broken)
        try:
            self._pass(0, 4)
        finally:
            processes.resume(NAME, one.broken)

    def _boot_over(self, one: Round) -> None:
        one.broken = self._rng.choice(NAMES)
        processes.hang(NAME, one.broken)
        try:
            self._pass(0, 2)
            self._require_refused(one.broken)
        finally:
            processes.resume(NAME, one.broken)

    def _require_refused(self, name: str) -> None:
        """By the launcher, and by a partition process that nobody asked the launcher for."""
        before = read_state(NAME)
        try:
            processes.boot(NAME, name)
        except KernelError as error:
            require(error.errno == errno.EEXIST, f"refused otherwise: {error}")
        else:
            require(False, f"{name} booted over its stopped process")
        command = [
            sys.executable,
            "-m",
            "xpmem_emu.live.partition",
            "--config",
            before.partition(name).config,
        ]
        second = subprocess.run(command, capture_output=True, text=True, check=False)
        good = second.returncode == EXIT_REFUSED and "EEXIST" in second.stderr
        require(good, f"a second {name}: exit {second.returncode}\n{second.stderr}")
        require(read_state(NAME) == before, "the state changed")
        self.refused += 2

    def _kill(self, one: Round) -> None:
        one.broken = self._rng.choice(NAMES)
        processes.crash(NAME, one.broken)
        self._pass(0, 1)
        processes.boot(NAME, one.broken)
        self._clients[one.broken].close()
        self._clients[one.broken] = connect(one.broken, NAME)
        patiently(lambda: active(NAME), f"{one.broken} is back")
        self._keepers = [each for each in self._keepers if one.broken not in each.ends]
        self._keep()


# -- who was given up, and why ----------------------------------------------------------------


def ended_sessions(files: list[Path]) -> Iterator[Row]:
    """Each end of a session that was at work, as one side tells it."""
    for path in files:
        up: dict[object, bool] = {}
        for line in path.read_text().splitlines():
            if '"xpc:partition"' not in line and '"kernel:boot"' not in line:
                continue
            row = json.loads(line)
            if row["event"] == "kernel:boot":
                up = {}
                continue
            if up.get(row["peer"]) and row["state"] != "ACTIVE":
                yield row
            up[row["peer"]] = row["state"] == "ACTIVE"


def unexplained(rows: list[Row], rounds: list[Round], stood_still: list[Row]) -> list[str]:
    """Ends of sessions of two partitions to which nothing was done in that round."""
    found = []
    for row in rows:
        at_ns = int(str(row["time_ns"]))
        sides = {f"p{row['partid']}", f"p{row['peer']}"}
        if any(one.broken in sides and one.begun_ns <= at_ns <= one.ended_ns for one in rounds):
            continue
        if any(f"p{one['partid']}" in sides and _covers(one, at_ns) for one in stood_still):
            continue
        found.append(f"p{row['partid']} gave p{row['peer']} up: {row['reason']} ({row['place']})")
    return found


def _covers(still: Row, at_ns: int) -> bool:
    """Whether a process had no processor for so long, just then, that it is no healthy one."""
    late_ns, end_ns = int(str(still["late_ns"])), int(str(still["time_ns"]))
    image = load_image(IMAGE)
    long = late_ns > min(image.xpc.heartbeat_check, image.deadlines.recall_attempt) // 2
    return long and end_ns - late_ns <= at_ns <= end_ns + image.xpc.heartbeat_check


def stood_still(files: list[Path]) -> list[Row]:
    """When processes came late to a step."""
    return [
        json.loads(line)
        for path in files
        for line in path.read_text().splitlines()
        if '"fabric:still"' in line
    ]


def crowd_loop(
    rounds: int,
    seed: int,
    say: Callable[[str], None] = lambda text: None,
    kinds: Sequence[str] = KINDS,
    command: tuple[str, ...] = (),
) -> Tally:
    """All rounds, of these kinds, then the balance. Raises Broken. `command` runs another partition
    than ours."""
    with running(NAME, len(NAMES), command, IMAGE):
        stop, market = threading.Event(), Market()
        clients = [
            Client(NAME, name, market, f"{seed}/{name}/{number}", stop, HANDS)
            for name in NAMES
            for number in range(CLIENTS)
        ]
        for client in clients:
            client.start()
        loop = CrowdLoop(seed, say, kinds)
        try:
            for number in range(rounds):
                loop.round(number)
        finally:
            stop.set()
            for client in clients:
                client.join(60)
            loop.close()
        wrong = [text for client in clients for text in client.wrong]
        wrong += [f"{client.name} hangs" for client in clients if client.is_alive()]
        require(not wrong, "\n".join(wrong[:10]))
        require_balance(NAME)
        judgement = verdict(NAME, StreamsEnd.AT_REST, IMAGE)
        ends = list(ended_sessions(streams(NAME)))
        healthy = unexplained(ends, loop.rounds, stood_still(streams(NAME)))
    require(not judgement.violations, "\n".join(map(str, judgement.violations)))
    require(not healthy, "healthy partitions were given up:\n" + "\n".join(healthy[:10]))
    outcomes = sum((client.outcomes for client in clients), Counter[str]())
    done = Counter(one.kind for one in loop.rounds)
    killed = loop.killed + sum(n for name, n in outcomes.items() if name.endswith(" SIGKILL"))
    return Tally(done, outcomes, killed, loop.refused, len(ends), judgement)


@click.command()
@click.option("--rounds", default=100, show_default=True)
@click.option("--seed", default=1, show_default=True)
@click.option("--verbose", is_flag=True, help="Say what each round does.")
def main(rounds: int, seed: int, verbose: bool) -> None:
    """Crowd the tasks of three partitions, so many times."""
    again = f"python -m tests.live.crowd_loop --rounds {rounds} --seed {seed}"
    try:
        tally = crowd_loop(rounds, seed, click.echo if verbose else lambda text: None)
    except Exception:
        click.echo(f"again: {again}", err=True)
        raise
    done = sum(tally.outcomes.values())
    good = sum(count for outcome, count in tally.outcomes.items() if outcome.endswith(" ok"))
    click.echo(
        f"{rounds} rounds, seed {seed}, image {load_image(IMAGE).name}: "
        + ", ".join(f"{kind} {count}" for kind, count in sorted(tally.kinds.items()))
    )
    click.echo(
        f"{done} calls ended, two of a task at a time, {good} of them well, {tally.killed} "
        f"killed inside; {tally.refused} boots over a stopped process refused; every byte "
        "in place"
    )
    click.echo(
        f"{tally.sessions} sessions ended, each explained by what was done to one of its "
        f"sides; {tally.judgement.events} events of {tally.judgement.boots} boots judged, "
        "no violation of " + " ".join(tally.judgement.judged)
    )


if __name__ == "__main__":
    main()
