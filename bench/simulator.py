"""Kernel events that the simulator carries through on one core, beside a loop of plain Python.

An event is one record of the event stream of a kernel; everything that a campaign does for it
counts: the kernels, the messages, every checker, the hash. Time is that of the processor, not of
the clock, and the best of several rounds, so that other processes disturb little; what they and
the machine do disturb shows in the yardstick, a loop that never changes, timed between the runs.
"""

import heapq
import time
from pathlib import Path
from typing import NamedTuple

from xpmem_emu.shipped import find_toml
from xpmem_emu.sim.draw.swarm import read_swarm
from xpmem_emu.sim.draw.world import draw_plan
from xpmem_emu.sim.run import run_plan

SEEDS = range(24)
ROUNDS = 3
TURNS = 100_000


class Speed(NamedTuple):
    """Per second of processor time."""

    events: float
    steps: float
    """Calls of Kernel.step."""
    turns: float
    """Turns of the yardstick."""


class _Turn:
    """What the yardstick makes: small objects, as a simulator does."""

    __slots__ = ("due", "number")

    def __init__(self, due: int, number: int) -> None:
        self.due = due
        self.number = number


def yardstick_s() -> float:
    """Seconds for TURNS turns of a heap of small objects."""
    begun = time.process_time()
    heap = [(number, number, _Turn(number, number)) for number in range(64)]
    seen: dict[int, int] = {}
    for number in range(64, 64 + TURNS):
        due, _, turn = heapq.heappop(heap)
        seen[turn.number & 1023] = turn.due
        heapq.heappush(heap, (due + 7 * (number & 15), number, _Turn(due, number)))
    return time.process_time() - begun


def measure(scenario: Path) -> Speed:
    """Run SEEDS of a scenario, each ROUNDS times, and take the best of each."""
    swarm = read_swarm(scenario)
    events = steps = 0
    took_s = 0.0
    stick_s = yardstick_s()
    for seed in SEEDS:
        best_s = float("inf")
        for _ in range(ROUNDS):
            begun = time.process_time()
            result = run_plan(draw_plan(swarm, seed))
            best_s = min(best_s, time.process_time() - begun)
        took_s += best_s
        events += result.events
        steps += result.steps
        stick_s = min(stick_s, yardstick_s())
    return Speed(events / took_s, steps / took_s, TURNS / stick_s)


def main() -> None:
    """Measure and print."""
    speed = measure(find_toml("scenarios", "chaos"))
    print(f"{speed.events:.0f} kernel events/s, {speed.steps:.0f} kernel steps/s per core")
    print(f"{speed.turns:.0f} turns/s of the yardstick: {speed.turns / speed.events:.1f} an event")


if __name__ == "__main__":
    main()
