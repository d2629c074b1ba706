"""The table of attacks, and the process that makes them.

    python -m tests.hostile.attacks CLUSTER KEYS

Each line on stdin is an attack: name, count, seconds and seed, with tabs between them. When
it is over, and everything that it opened is closed, a line of JSON says what became of it. The
process leaves the processors to others: an attacker is elsewhere.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

import msgspec

from tests.hostile import by_clients, by_peers, by_strangers
from tests.hostile.ground import Ground
from tests.hostile.test_toml import FILES, READERS
from xpmem_emu.client.failures import XpmemError
from xpmem_emu.errors import KernelError


@dataclass(frozen=True, slots=True)
class Attack:
    """`count`: rounds at full size."""

    name: str
    count: int
    act: Callable[[Ground, int], None]

    @property
    def tries(self) -> str:
        """What it tries, in words."""
        return " ".join((self.act.__doc__ or "").split())


def files(ground: Ground, count: int) -> None:
    """Topologies, images, scenarios and swarms that would keep a parser busy, or end it."""
    with tempfile.TemporaryDirectory(prefix="xe") as folder:
        path = Path(folder) / "file.toml"
        for number in ground.times(count):
            text = list(FILES.values())[number % len(FILES)]
            path.write_bytes(text.encode(errors="surrogateescape"))
            for read in READERS.values():
                ground.counts.tried += 1
                try:
                    read(path)
                except KernelError:
                    ground.counts.refused += 1


ATTACKS = (
    Attack("client: nested heads", 200, by_clients.nested_heads),
    Attack("client: promises", 20_000, by_clients.promises),
    Attack("client: malformed requests", 10_000, by_clients.malformed),
    Attack("client: long bulk", 200, by_clients.long_bulk),
    Attack("client: huge frames", 100, by_clients.huge_frames),
    Attack("client: flood", 40_000, by_clients.flood),
    Attack("client: crowded flood", 40_000, by_clients.crowded_flood),
    Attack("client: never reads", 40_000, by_clients.never_reads),
    Attack("client: deaf subscribers", 5_000, by_clients.deaf_subscribers),
    Attack("client: connection storm", 300, by_clients.storm),
    Attack("client: sessions", 80, by_clients.sessions),
    Attack("client: tasks", 1_100, by_clients.tasks),
    Attack("client: segments", 4_100, by_clients.segments),
    Attack("client: attachments", 1_500, by_clients.attachments),
    Attack("client: areas", 20_000, by_clients.areas),
    Attack("client: memory", 400, by_clients.memory),
    Attack("client: names", 1_000, by_clients.names),
    Attack("client: extremes", 4_000, by_clients.extremes),
    Attack("client: huge ranges", 100, by_clients.huge_ranges),
    Attack("client: sleepers", 8_000, by_clients.sleepers),
    Attack("client: things of others", 2_000, by_clients.of_others),
    Attack("client: beyond its rights", 5_000, by_clients.beyond_rights),
    Attack("client: expensive looks", 500, by_clients.expensive_looks),
    Attack("stranger: silent", 2_000, by_strangers.silent),
    Attack("stranger: silent at peers", 1_000, by_strangers.silent_at_peers),
    Attack("stranger: slow greeting", 200, by_strangers.slow_greeting),
    Attack("stranger: garbage", 2_000, by_strangers.garbage),
    Attack("stranger: huge frames", 1_000, by_strangers.huge_frames),
    Attack("stranger: resets", 2_000, by_strangers.resets),
    Attack("stranger: unknown keys", 500, by_strangers.unknown_keys),
    Attack("stranger: wrong doors", 500, by_strangers.wrong_doors),
    Attack("peer: mutated frames", 50_000, by_peers.mutated_frames),
    Attack("peer: forged", 5_000, by_peers.forged),
    Attack("peer: wrong sessions", 10_000, by_peers.wrong_sessions),
    Attack("peer: replayed", 10_000, by_peers.replayed),
    Attack("peer: wrapped numbers", 10_000, by_peers.wrapped_numbers),
    Attack("peer: of nobody", 5_000, by_peers.of_nobody),
    Attack("peer: of others", 5_000, by_peers.of_others),
    Attack("peer: answers to nothing", 5_000, by_peers.answers_to_nothing),
    Attack("peer: long lists", 100, by_peers.long_lists),
    Attack("peer: long bulk", 100, by_peers.long_bulk),
    Attack("peer: control storm", 5_000, by_peers.control_storm),
    Attack("peer: false pages", 5_000, by_peers.false_pages),
    Attack("peer: false clocks", 10_000, by_peers.false_clocks),
    Attack("file: costly texts", 50, files),
)


def named(name: str) -> Attack:
    """The attack of that name."""
    return next(attack for attack in ATTACKS if attack.name == name)


def make(attack: Attack, cluster: str, keys: Path, count: int, seconds: float, seed: str) -> bytes:
    """Make it. Result: a line that says what became of it."""
    with ExitStack() as stack:
        until_s = time.monotonic() + seconds
        ground = Ground(cluster, keys, until_s, Random(seed), stack)
        said = ""
        try:
            attack.act(ground, count)
        except (OSError, XpmemError) as error:
            # It may be turned away for good: that is an outcome, too.
            said = str(error)
            ground.counts.refused += 1
    return msgspec.json.encode({**asdict(ground.counts), "said": said})


def main() -> None:
    os.nice(19)
    cluster, keys = sys.argv[1], Path(sys.argv[2])
    print("ready", flush=True)
    for line in sys.stdin:
        name, count, seconds, seed = line.rstrip("\n").split("\t")
        done = make(named(name), cluster, keys, int(count), float(seconds), seed)
        print(done.decode(), flush=True)


if __name__ == "__main__":
    main()
