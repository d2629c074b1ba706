"""A cluster under attack, and what its victim notices: `make hostile`.

    python -m tests.hostile.siege --seed 1

Three partitions over tcp with keys. The victim is a client of p0 that loads what p1 exported; p2's
key is the attacker's. Of each attack is told what was tried, what became of it, how long the
victim's loads take (quiet and under attack), by how much p0 and p1 grew, how many open files they
have before and after, and how many sessions p0 and p1 lost with each other. Those are counted by
incarnations, of which each session has one of its own: events can be lost by who is slow to read.

Passes when no partition is lost, none grows by more than 20 MiB and no p99 is more than five times
the quiet one. Other work on the machine hits whom it likes, so a slow attack is made again.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import click
import msgspec
import psutil

from tests.hostile.attacks import ATTACKS, Attack
from tests.hostile.ground import LOOKER, MEBIBYTE, OPERATOR, PAGE, USER
from tests.live.keyed import free_ports
from tests.live.loops import Broken, folders, let_pass
from xpmem_emu import connect
from xpmem_emu.backend import processes
from xpmem_emu.client.blocking import Partition
from xpmem_emu.cluster.keys import Capability, Client, KeyFolder, Peer
from xpmem_emu.cluster.paths import KEY_VARIABLE
from xpmem_emu.cluster.state import ClusterState
from xpmem_emu.cluster.topology import ClusterSpec, PartitionSpec

NAME = "siege"
IMAGE = "patient"
VICTIM = "victim"
HONEST = ("p0", "p1")
MEMORY = 64 * MEBIBYTE
LEASE_S = 5.0
P99_RATIO_MAX = 5.0
GROWTH_MAX = 20 * MEBIBYTE
FILES_MORE_MAX = 8
"""Open files that may be more after an attack: who connects again has two for a moment."""
ATTEMPTS = 5
SAMPLES_MIN = 100
QUIET_S = 1.0
RECOVERY_S = 15.0
"""How long a partition may take to give back what an attack took: a lease, and more."""


class Told(msgspec.Struct, frozen=True):
    """What the attacker says of an attack."""

    tried: int
    answered: int
    refused: int
    cut: int
    said: str


@dataclass(slots=True)
class State:
    """Of the honest partitions, at one moment. `sessions`: incarnations of each as the other sees
    it; `own`: bytes that are nobody else's."""

    files: dict[str, int]
    own: dict[str, int]
    sessions: dict[str, object]


@dataclass(frozen=True, slots=True)
class Row:
    """One attack, as it went."""

    attack: Attack
    told: Told
    quiet_s: float
    attacked_s: float
    longest_s: float
    before: State
    after: State

    @property
    def ratio(self) -> float:
        """The victim's p99 under attack by its quiet one."""
        return self.attacked_s / self.quiet_s


def growth(before: State, after: State) -> int:
    """Bytes by which an honest partition grew, the most of them."""
    return max(after.own[name] - before.own[name] for name in HONEST)


def lost(before: State, after: State) -> int:
    """Sessions that honest partitions lost with each other."""
    return sum(after.sessions[name] != before.sessions[name] for name in HONEST)


def failures(before: State, after: State) -> list[str]:
    """What may not be after an attack."""
    found = [f"{lost(before, after)} sessions lost"] if lost(before, after) else []
    if (more := growth(before, after)) > GROWTH_MAX:
        found.append(f"grew by {more >> 20} MiB")
    files = max(after.files[name] - before.files[name] for name in HONEST)
    if files > FILES_MORE_MAX:
        found.append(f"{files} files more are open")
    return found


@dataclass
class Siege:
    """A cluster that runs, its victim, its attacker."""

    state: ClusterState
    keys: Path
    seed: int
    stack: ExitStack
    quiet: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._processes = {n: psutil.Process(self.state.partition(n).pid) for n in HONEST}
        self._watchers = {name: self._connect(name, OPERATOR) for name in HONEST}
        home, away = self._connect("p1", VICTIM), self._connect("p0", VICTIM)
        exporter, self._task = home.spawn(), away.spawn()
        base = exporter.mmap(MEBIBYTE)
        exporter.store(base, b"p1" * (MEBIBYTE // 2))
        segid = exporter.xpmem_make(base, MEBIBYTE, 0o666)
        self._at = self._task.xpmem_attach(self._task.xpmem_get(segid), 0, MEBIBYTE)
        self._attacker = self.stack.enter_context(_attacker(self.keys))

    def attack(self, attack: Attack, seconds: float) -> Row:
        """Make one attack at full size, see what it does and what it leaves."""
        quiet, _ = self._waits(self._rests(QUIET_S))
        self.quiet.append(quiet)
        before = self.look()
        told: list[Told] = []
        under = self._under(attack, attack.count, seconds, told, SAMPLES_MIN)
        attacked, longest = self._waits(under)
        self.recover(before)
        # Of the last few: what else the machine does changes while we are at it.
        usual = statistics.median(self.quiet[-5:])
        return Row(attack, told[0], usual, attacked, longest, before, self.look())

    def attack_a_little(self, attack: Attack, count: int, seconds: float) -> Told:
        """Make some rounds of an attack; the victim finds what it is to find."""
        told: list[Told] = []
        self._waits(self._under(attack, count, seconds, told))
        return told[0]

    def send_attacker_elsewhere(self) -> None:
        """The attacker runs when nobody else wants to: it would be on another machine, so what it
        computes is nothing that a partition does to its clients."""
        for thread in psutil.Process(self._attacker.pid).threads():
            os.sched_setscheduler(thread.id, os.SCHED_IDLE, os.sched_param(0))

    def look(self) -> State:
        """How the honest partitions are. Raises Broken when one is dead."""
        own = {}
        for name, process in self._processes.items():
            if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
                raise Broken(f"{name} died: {Path(self.state.partition(name).log).read_text()}")
            memory = process.memory_info()
            own[name] = memory.rss - memory.shared
        files = {name: process.num_fds() for name, process in self._processes.items()}
        return State(files, own, {name: self._session(name) for name in HONEST})

    def _session(self, name: str) -> tuple[object, ...]:
        other = HONEST[1 - HONEST.index(name)]
        rows = {row["peer"]: row for row in self._watchers[name].look("partitions")}
        row = rows[int(other[1:])]
        return row["state"], row["incarnation"]

    def _connect(self, name: str, key: str) -> Partition:
        os.environ[KEY_VARIABLE] = key
        return self.stack.enter_context(connect(name, NAME, timeout=60))

    def _waits(self, going_on: Iterator[None]) -> tuple[float, float]:
        """The 99th percentile and the most of how long a load of the victim takes meanwhile."""
        taken: list[float] = []
        for _ in going_on:
            begun = time.perf_counter()
            found = self._task.load(self._at + len(taken) % 256 * PAGE, 2)
            taken.append(time.perf_counter() - begun)
            assert found == b"p1"
        return statistics.quantiles(taken, n=100, method="inclusive")[98], max(taken)

    def _rests(self, seconds: float) -> Iterator[None]:
        until_s = time.monotonic() + seconds
        for _ in range(SAMPLES_MIN):
            yield
        while time.monotonic() < until_s:
            yield

    def _under(
        self, attack: Attack, count: int, seconds: float, told: list[Told], least: int = 2
    ) -> Iterator[None]:
        """Until the attack is over, and so many times at least."""
        assert self._attacker.stdin is not None
        assert self._attacker.stdout is not None
        line = f"{attack.name}\t{count}\t{seconds}\t{self.seed}\n"
        self._attacker.stdin.write(line.encode())
        self._attacker.stdin.flush()
        reader = _Reader(self._attacker)
        number = 0
        while (said := reader.line()) is None or number < least:
            number += 1
            yield
        told.append(msgspec.json.decode(said, type=Told))

    def recover(self, before: State) -> None:
        """Let the partitions give back what the attack took; what they keep is told."""
        until_s = time.monotonic() + RECOVERY_S
        while failures(before, self.look()) and time.monotonic() < until_s:
            let_pass(0.1)


class _Reader:
    """The next line of a process, without waiting for it."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdout is not None
        self._process = process
        self._out = process.stdout
        self._said = b""
        os.set_blocking(self._out.fileno(), False)

    def line(self) -> bytes | None:
        """What it said; None: nothing yet. Raises Broken when it ended."""
        if not self._said.endswith(b"\n"):
            self._said += self._out.read() or b""
            if self._process.poll() is not None:
                raise Broken(f"the attacker ended: {self._process.returncode}")
        return self._said if self._said.endswith(b"\n") else None


@contextmanager
def _attacker(keys: Path) -> Iterator["subprocess.Popen[bytes]"]:
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.hostile.attacks", NAME, str(keys)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        yield child
    finally:
        child.kill()
        child.communicate()


@contextmanager
def besieged(seed: int = 1) -> Iterator[Siege]:
    """A cluster for attacks, in folders of its own; gone at the end."""
    before = os.environ.get(KEY_VARIABLE)
    with folders(), tempfile.TemporaryDirectory(prefix="xe") as keys, ExitStack() as stack:
        folder = KeyFolder(Path(keys) / "keys")
        folder.make(
            {f"p{number}": Peer(number) for number in range(3)}
            | {
                OPERATOR: Client(0, [], Capability.OPERATE),
                VICTIM: Client(1000, [], Capability.USE),
                USER: Client(1001, [], Capability.USE),
                LOOKER: Client(1002, [], Capability.LOOK),
            }
        )
        ports = free_ports(6)
        specs = tuple(
            PartitionSpec(
                f"p{n}",
                n,
                endpoint=f"tcp://127.0.0.1:{ports[n]}",
                console=f"tcp://127.0.0.1:{ports[3 + n]}",
            )
            for n in range(3)
        )
        os.environ[KEY_VARIABLE] = OPERATOR
        state = processes.up(
            ClusterSpec(NAME, specs, IMAGE, MEMORY, lease_s=LEASE_S, keys=str(folder.path)),
            timeout_s=60,
        )
        stack.callback(processes.down, NAME)
        try:
            yield Siege(state, folder.path, seed, stack)
        finally:
            os.environ.pop(KEY_VARIABLE, None)
            if before is not None:
                os.environ[KEY_VARIABLE] = before


HEAD = (
    f"{'attack':28} {'tried':>7} {'answered':>8} {'refused':>8} {'cut':>6}"
    f" {'p99 quiet':>9} {'attacked':>9} {'ratio':>5} {'longest':>8} {'grew':>9} {'lost':>4} files"
)


def told(row: Row) -> str:
    """One line of the table."""
    files = ", ".join(f"{row.before.files[n]}->{row.after.files[n]}" for n in HONEST)
    return (
        f"{row.attack.name:28} {row.told.tried:7} {row.told.answered:8} {row.told.refused:8}"
        f" {row.told.cut:6} {row.quiet_s * 1e3:6.2f} ms {row.attacked_s * 1e3:6.2f} ms"
        f" {row.ratio:5.1f} {row.longest_s * 1e3:5.0f} ms"
        f" {growth(row.before, row.after) / MEBIBYTE:5.1f} MiB"
        f" {lost(row.before, row.after):4} {files}"
    )


def attack_all(
    siege: Siege, attacks: list[Attack], seconds: float, say: Callable[[str], None]
) -> list[str]:
    """All attacks at full size. Result: what failed."""
    failed = []
    say(HEAD)
    for attack in attacks:
        for attempt in range(ATTEMPTS):
            row = siege.attack(attack, seconds)
            say(told(row) + (f"  {row.told.said}" if row.told.said else ""))
            if found := failures(row.before, row.after):
                failed += [f"{attack.name}: {one}" for one in found]
                break
            if row.ratio <= P99_RATIO_MAX:
                break
            if attempt == ATTEMPTS - 1:
                failed.append(f"{attack.name}: the victim waits {row.ratio:.1f} times as long")
    return failed


@click.command()
@click.option("--seed", default=1, show_default=True)
@click.option("--seconds", default=6.0, show_default=True, help="The most that an attack lasts.")
@click.option("--only", default="", help="Attacks with this in their name.")
def main(seed: int, seconds: float, only: str) -> None:
    """Attack a cluster in every way there is."""
    attacks = [attack for attack in ATTACKS if only in attack.name]
    with besieged(seed) as siege:
        siege.send_attacker_elsewhere()
        attack_all(siege, attacks[:2], 1, lambda _: None)  # what grows once and for all has grown
        first = siege.look()
        failed = attack_all(siege, attacks, seconds, click.echo)
        last = siege.look()
    click.echo(
        f"{len(attacks)} attacks; own memory of "
        + ", ".join(
            f"{name} {first.own[name] >> 20} -> {last.own[name] >> 20} MiB" for name in HONEST
        )
    )
    for attack in attacks:
        click.echo(f"  {attack.name}: {attack.tries}")
    click.echo("\n".join(failed) or "no partition lost, none grew, nobody waited")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
