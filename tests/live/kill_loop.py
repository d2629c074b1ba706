"""Partitions killed, stopped, rebooted, cut off and slowed down at random, under load.

Four partitions; clients whose tasks do everything at random. Each round breaks something, heals
it, and demands that all become active with each other again. At the end: no call hung, no client
saw what it may not, every count of every partition is back at zero, the event streams of all
boots are valid, and no process and no file is left.

    python -m tests.live.kill_loop --rounds 200 --seed 1
"""

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import click

from tests.live.load import Client, Market
from tests.live.loops import (
    IMAGE,
    active,
    let_pass,
    patiently,
    require,
    require_balance,
    running,
    verdict,
)
from xpmem_emu import connect
from xpmem_emu.backend import processes
from xpmem_emu.cluster.topology import load_image
from xpmem_emu.judge.streams import StreamJudgement, StreamsEnd

NAME = "kill"
NAMES = ("p0", "p1", "p2", "p3")
CLIENTS = 2
"""For each partition."""
RULES = (
    "drop --prob 0.2",
    "duplicate --prob 0.3",
    "delay 5ms --jitter 30ms",
    "latency 10ms",
    "reorder 2 --prob 0.2",
    "corrupt --prob 0.1",
    "hold --match type=FAULT_REPLY",
    "hold --match type=INVALIDATE",
    "drop --match type=INVALIDATE_ACK",
    "replay --prob 0.3",
    "loss 0.2 --burst 4",
    "bandwidth 200K",
    "capacity 6",
    "flap 60ms --up 80ms",
    "link {p}->* cut",
    "link *->{p} cut",
    "link {p}->* clog",
    "isolate {p}",
    "split p0,p1|p2,p3",
    "asymmetric {p}|{q}",
    "bridge p0|p1|p2,p3",
    "throttle {p} 3ms",
    "stall {p}",
    "clock {p} jump 300ms",
    "clock {p} skew 0.5",
    "clock {p} freeze",
    "strain {p} pin_limit 40",
    "strain {p} sequence 2147483640",
    "strain {p} number 4294967290",
    "{p}:xpmem.fault.before_reply=20%return(ENOMEM)",
    "{p}:xpmem.recall.before_send=10%return",
    "{p}:mm.frames.allocate=5%return",
    "{p}:xpmem.fence.before_migrate=50%return",
    "{p}:xpc.wire.send=5%return",
    "{p}:xpmem.invalidate.before_ack=20%delay(100ms)",
)
"""What a round may put in force on every partition; `{p}` and `{q}` are two of them."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What the loop did and saw."""

    broken: Counter[str]
    outcomes: Counter[str]
    judgement: StreamJudgement


class KillLoop:
    """The rounds, over a cluster that runs."""

    def __init__(self, seed: int, say: Callable[[str], None]) -> None:
        self.seed = seed
        self.broken: Counter[str] = Counter()
        self._say = say
        self._rng = Random(f"{seed}")
        self._kinds = {
            "kill": self._kill,
            "stop": self._stop,
            "reboot": self._reboot,
            "rules": self._rules,
            "kill under rules": self._kill_under_rules,
        }

    def round(self, number: int) -> None:
        """Break something, heal it, see everybody come back. Raises Broken."""
        self._rng = Random(f"{self.seed}/{number}")
        kind = self._rng.choice(list(self._kinds))
        self.broken[kind] += 1
        self._kinds[kind]()
        self._heal()
        patiently(lambda: active(NAME), f"round {number}, {kind}: all active again")

    def _any(self) -> str:
        return self._rng.choice(NAMES)

    def _pass(self, most_s: float) -> None:
        let_pass(self._rng.uniform(0, most_s))

    def _kill(self) -> None:
        name = self._any()
        self._say(f"kill {name}")
        processes.crash(NAME, name)
        self._pass(0.6)
        processes.boot(NAME, name)

    def _stop(self) -> None:
        name = self._any()
        self._say(f"stop {name}")
        processes.hang(NAME, name)
        self._pass(1.2)
        processes.resume(NAME, name)

    def _reboot(self) -> None:
        name = self._any()
        self._say(f"reboot {name}")
        processes.reboot(NAME, name)

    def _kill_under_rules(self) -> None:
        self._rules()
        self._kill()

    def _rules(self) -> None:
        """One or two faults on every partition that they mean."""
        for text in self._rng.sample(RULES, self._rng.randint(1, 2)):
            p, q = self._rng.sample(NAMES, 2)
            fault = text.format(p=p, q=q)
            self._say(fault)
            alone = text.startswith(("throttle", "stall", "clock", "strain", "{p}"))
            for name in [p] if alone else NAMES:
                with connect(name, NAME) as partition:
                    partition.fault_add(fault, seed=self.seed)
        self._pass(0.8)

    def _heal(self) -> None:
        for name in NAMES:
            with connect(name, NAME) as partition:
                partition.fault_reset()


def kill_loop(rounds: int, seed: int, say: Callable[[str], None] = lambda text: None) -> Tally:
    """All rounds, then the balance. Raises Broken."""
    with running(NAME, len(NAMES)):
        stop, market = threading.Event(), Market()
        clients = [
            Client(NAME, name, market, f"{seed}/{name}/{number}", stop)
            for name in NAMES
            for number in range(CLIENTS)
        ]
        for client in clients:
            client.start()
        loop = KillLoop(seed, say)
        try:
            for number in range(rounds):
                loop.round(number)
        finally:
            stop.set()
            for client in clients:
                client.join(60)
        wrong = [text for client in clients for text in client.wrong]
        wrong += [f"{client.name} hangs" for client in clients if client.is_alive()]
        require(not wrong, "\n".join(wrong[:10]))
        require_balance(NAME)
        judgement = verdict(NAME, StreamsEnd.AT_REST)
    require(not judgement.violations, "\n".join(map(str, judgement.violations)))
    outcomes = sum((client.outcomes for client in clients), Counter[str]())
    return Tally(loop.broken, outcomes, judgement)


@click.command()
@click.option("--rounds", default=200, show_default=True)
@click.option("--seed", default=1, show_default=True)
@click.option("--verbose", is_flag=True, help="Say what each round does.")
def main(rounds: int, seed: int, verbose: bool) -> None:
    """Break four partitions under load, so many times."""
    again = f"python -m tests.live.kill_loop --rounds {rounds} --seed {seed}"
    try:
        tally = kill_loop(rounds, seed, click.echo if verbose else lambda text: None)
    except Exception:
        click.echo(f"again: {again}", err=True)
        raise
    done = sum(tally.outcomes.values())
    good = sum(count for outcome, count in tally.outcomes.items() if outcome.endswith(" ok"))
    click.echo(
        f"{rounds} rounds, seed {seed}, image {load_image(IMAGE).name}: "
        + ", ".join(f"{kind} {count}" for kind, count in sorted(tally.broken.items()))
    )
    click.echo(f"{done} calls ended, {good} of them well; balance zero; nothing left behind")
    judged = tally.judgement
    click.echo(
        f"{judged.events} events of {judged.boots} boots judged, no violation of "
        + " ".join(judged.judged)
    )


if __name__ == "__main__":
    main()
