"""Two hundred clients, a thousand segments, ten thousand attachments, and things that die: what is
left of it afterwards.

Three partitions. The stock is segments and attachments of tasks of this process; beside it clients
do everything at random, each in a session of its own: eight processes with twenty-five threads
each, because two hundred interpreters would be a test of the machine's memory. Every few seconds
one of those processes is killed with all its sessions, now and then a partition, which boots again;
its part of the stock is lost. Twice, after a first part in which grows what grows once, and at the
end, all clients go and the partitions are compared: nothing is in use, and they have no more open
files, memory or files than before. Each part begins with the whole stock, and its first half passes
before a partition is killed.

    python -m tests.live.many_clients --seconds 300 --seed 1
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import click
import psutil

from tests.live.load import PAGE, PAGES, Client, Market
from tests.live.loops import (
    BOUND_S,
    Broken,
    active,
    let_pass,
    patiently,
    require,
    require_balance,
    running,
)
from xpmem_emu import connect
from xpmem_emu.backend import processes
from xpmem_emu.client.blocking import Partition
from xpmem_emu.cluster.state import read_state

NAME = "many"
NAMES = ("p0", "p1", "p2")
IMAGE = str(Path(__file__).with_name("many.toml"))
LEASE_S = 5.0
SIZE = PAGE * PAGES
OWN_MORE_MAX = 20 << 20
FILES_MORE_MAX, THREADS_MORE_MAX = 4, 2
"""What comes and goes: a connection that is made anew, a thread that does a single thing."""
KILL_CLIENTS_S, KILL_PARTITION_S = 3.0, 25.0
"""How often, in the mean."""


@dataclass(frozen=True, slots=True)
class Amount:
    """How much of everything."""

    processes: int = 8
    threads: int = 25
    segments: int = 1000
    attachments: int = 10_000


@dataclass(frozen=True, slots=True)
class Figures:
    """What partitions have, by name. `own`: bytes of memory that are nobody else's. `places`: how
    many entries the folders of the cluster have."""

    files: dict[str, int]
    own: dict[str, int]
    threads: dict[str, int]
    tables: dict[str, int]
    places: int

    def __str__(self) -> str:
        each = [
            f"{name} {self.files[name]} files, {self.own[name] / (1 << 20):.1f} MiB, "
            f"{self.threads[name]} threads"
            for name in NAMES
        ]
        tables = ", ".join(f"{count} {kind}" for kind, count in self.tables.items())
        return "; ".join([*each, tables, f"{self.places} entries in the folders"])


def figures() -> Figures:
    """Now."""
    state, tables = read_state(NAME), Counter[str]()
    processes = {name: psutil.Process(state.partition(name).pid) for name in NAMES}
    memory = {name: one.memory_info() for name, one in processes.items()}
    for name in NAMES:
        with connect(name, NAME) as partition:
            for kind in ("tasks", "segments", "attachments"):
                tables[kind] += len(partition.look(kind))
    return Figures(
        {name: one.num_fds() for name, one in processes.items()},
        {name: one.rss - one.shared for name, one in memory.items()},
        {name: one.num_threads() for name, one in processes.items()},
        dict(tables),
        sum(
            len(list(Path(os.environ[root]).rglob("*")))
            for root in ("XDG_RUNTIME_DIR", "XPMEM_EMU_ARENAS")
        ),
    )


@dataclass
class Stock:
    """Segments of each partition and attachments to those of the next one."""

    amount: Amount
    stack: ExitStack = field(default_factory=ExitStack)
    partitions: dict[str, Partition] = field(default_factory=dict)
    segids: dict[str, list[int]] = field(default_factory=dict)

    def fill(self) -> None:
        """Make all of it."""
        for name in NAMES:
            self.partitions[name] = connect(name, NAME, timeout=BOUND_S)
            self.segids[name] = self._made(name, self.amount.segments // len(NAMES) + 1)
        for name, home in zip(NAMES, NAMES[1:] + NAMES[:1], strict=True):
            self._attach(name, home, self.amount.attachments // len(NAMES) + 1)

    def lose(self, name: str) -> None:
        """That partition is gone."""
        if name in self.partitions:
            self.partitions.pop(name).close()

    def close(self) -> None:
        """Give everything back."""
        for one in self.partitions.values():
            one.close()
        self.partitions.clear()

    def _made(self, name: str, count: int) -> list[int]:
        task = self.partitions[name].spawn("stock")
        base = task.mmap(SIZE)
        task.store(base, name.encode() * (SIZE // 2))
        return [task.xpmem_make(base, SIZE, 0o666) for _ in range(count)]

    def _attach(self, name: str, home: str, count: int) -> None:
        """One page through each permit is touched, so that recalls have something to do."""
        task, done = self.partitions[name].spawn("visitor"), 0
        while done < count:
            for segid in self.segids[home]:
                apid = task.xpmem_get(segid)
                for _ in range(min(10, count - done)):
                    at = task.xpmem_attach(apid, 0, SIZE)
                    done += 1
                require(task.load(at, 2) == home.encode(), f"{name} reads something else")
                if done >= count:
                    return
            # A task may have so many attachments and no more.
            task = self.partitions[name].spawn("visitor")


# -- clients in processes of their own ----------------------------------------------------------


def be_clients(threads: int, seed: str) -> None:
    """Visit partitions until stdin ends; then tell what was wrong, if anything was."""
    stop, market = threading.Event(), Market()
    clients = [
        Client(NAME, NAMES[number % len(NAMES)], market, f"{seed}/{number}", stop)
        for number in range(threads)
    ]
    for client in clients:
        client.start()
    sys.stdin.read()
    stop.set()
    for client in clients:
        client.join(BOUND_S)
    wrong = [text for client in clients for text in client.wrong]
    wrong += [f"{client.name} hangs" for client in clients if client.is_alive()]
    done = sum(sum(client.outcomes.values()) for client in clients)
    print(done, *wrong[:10], sep="\n", flush=True)


class Crowd:
    """The processes of the clients."""

    def __init__(self, amount: Amount, seed: int) -> None:
        self.killed = self.calls = 0
        self._amount, self._seed, self._number = amount, seed, 0
        self._children: list[subprocess.Popen[str]] = []

    def come(self) -> None:
        """All of them."""
        while len(self._children) < self._amount.processes:
            self._number += 1
            self._children.append(
                subprocess.Popen(
                    [
                        sys.executable,
                        "-m",
                        "tests.live.many_clients",
                        "--be",
                        str(self._amount.threads),
                        "--seed",
                        f"{self._seed}{self._number}",
                    ],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    cwd=Path(__file__).parents[2],
                )
            )

    def kill(self, rng: Random) -> None:
        """One process with all its clients; another comes."""
        child = self._children.pop(rng.randrange(len(self._children)))
        child.send_signal(signal.SIGKILL)
        child.communicate()
        self.killed += 1
        self.come()

    def go(self) -> None:
        """All leave in order. Raises Broken."""
        children, self._children = self._children, []
        said = [child.communicate("", timeout=2 * BOUND_S)[0].splitlines() for child in children]
        self.calls += sum(int(lines[0]) for lines in said if lines)
        wrong = [line for lines in said for line in lines[1:]]
        require(not wrong, "\n".join(wrong[:10]))
        require(all(said), "a process of clients ended without a word")

    def end(self) -> None:
        """Whatever still runs."""
        for child in self._children:
            child.kill()
            child.communicate()


# -- the loop -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tally:
    """What was done and what is left: `idle` before anybody came, `warm` after the first part,
    `full` with all the stock, `left` at the end."""

    idle: Figures
    full: Figures
    warm: Figures
    left: Figures
    calls: int
    killed_clients: int
    killed_partitions: int


def disturb(
    stock: Stock, crowd: Crowd, seconds: float, rng: Random, say: Callable[[str], None]
) -> int:
    """Let clients work, kill some, kill partitions. Result: how many partitions."""
    crowd.come()
    killed, until_s = 0, time.monotonic() + seconds
    partition_s = until_s - seconds / 2
    while time.monotonic() < until_s:
        let_pass(rng.uniform(0, 2 * KILL_CLIENTS_S))
        crowd.kill(rng)
        if time.monotonic() < partition_s:
            continue
        name = rng.choice(NAMES)
        say(f"kill {name}")
        processes.crash(NAME, name)
        let_pass(rng.uniform(0, 1))
        processes.boot(NAME, name)
        patiently(lambda: active(NAME), f"{name} is back")
        stock.lose(name)
        killed += 1
        partition_s = time.monotonic() + rng.uniform(0, 2 * KILL_PARTITION_S)
    crowd.go()
    return killed


@contextmanager
def _clients(amount: Amount, seed: int) -> Iterator[tuple[Stock, Crowd]]:
    stock, crowd = Stock(amount), Crowd(amount, seed)
    try:
        yield stock, crowd
    finally:
        crowd.end()
        stock.close()


def many_clients(
    seconds: float,
    seed: int,
    amount: Amount = Amount(),
    say: Callable[[str], None] = lambda text: None,
) -> Tally:
    """All of it. Raises Broken."""
    rng = Random(seed)
    with running(NAME, len(NAMES), image=IMAGE, lease_s=LEASE_S, event_log=False):
        patiently(lambda: active(NAME), "all active")
        idle = figures()
        say(f"idle: {idle}")
        with _clients(amount, seed) as (stock, crowd):
            killed = 0
            stock.fill()
            full = figures()
            say(f"full: {full}")
            killed += disturb(stock, crowd, seconds / 3, rng, say)
            stock.close()
            require_balance(NAME)
            warm = figures()
            say(f"warm: {warm}")
            stock.fill()
            killed += disturb(stock, crowd, seconds * 2 / 3, rng, say)
        require_balance(NAME)
        left = figures()
        with suppress(Broken):
            patiently(lambda: not grown(idle, figures(), files=True), "files are closed")
            left = figures()
        say(f"left: {left}")
    require(not (more := grown(idle, left, files=True) + grown(warm, left)), "; ".join(more))
    return Tally(idle, full, warm, left, crowd.calls, crowd.killed, killed)


def grown(before: Figures, after: Figures, files: bool = False) -> list[str]:
    """What is more than it was: open files, threads, tables, and entries of folders, or memory, of
    which a partition may have as much as any had before: it may have been booted anew."""
    found = []
    for name in NAMES:
        if not files and after.own[name] > max(before.own.values()) + OWN_MORE_MAX:
            found.append(f"{name} grew to {after.own[name] >> 20} MiB from {before}")
        if files and after.files[name] > before.files[name] + FILES_MORE_MAX:
            found.append(f"{name} has {after.files[name]} files open, had {before.files[name]}")
        if files and after.threads[name] > before.threads[name] + THREADS_MORE_MAX:
            found.append(f"{name} has {after.threads[name]} threads")
    if files and (any(after.tables.values()) or after.places > before.places):
        found.append(f"left: {after}")
    return found


@click.command()
@click.option("--seconds", default=300.0, show_default=True)
@click.option("--seed", default="1", show_default=True)
@click.option("--be", "threads", type=int, hidden=True)
def main(seconds: float, seed: str, threads: int | None) -> None:
    """Let two hundred clients come, and kill some of them, and partitions, for so long."""
    if threads is not None:
        be_clients(threads, seed)
        return
    try:
        tally = many_clients(seconds, int(seed), say=click.echo)
    except Exception:
        click.echo(
            f"again: python -m tests.live.many_clients --seconds {seconds:g} --seed {seed}",
            err=True,
        )
        raise
    click.echo(
        f"{tally.calls} calls of clients that left in order; killed: {tally.killed_clients} "
        f"processes of 25 clients, {tally.killed_partitions} partitions; nothing is left"
    )


if __name__ == "__main__":
    main()
