"""One seed draws the whole world: partitions, image, links, programs, faults.

Every part draws from a stream of its own, named after it, so that a change to one part leaves
what the others draw alone. The result is a plan; nothing here runs it.
"""

from collections.abc import Callable
from functools import partial
from itertools import count
from random import Random

from msgspec.structs import replace

from xpmem_emu.sim.draw.forging import draw_forgeries
from xpmem_emu.sim.draw.injections import draw_injections
from xpmem_emu.sim.draw.swarm import Between, Swarm
from xpmem_emu.sim.plan import Forgery, Knobs, LinkLatency, Operation, Plan
from xpmem_emu.sim.workloads import WORKLOADS
from xpmem_emu.sim.workloads.script import Script
from xpmem_emu.units import MILLISECOND

START_NS = 30 * MILLISECOND
"""When programs begin: after the partitions have found each other, if nothing is in the way."""


def stream(seed: int, name: str) -> Random:
    """The random stream of one component."""
    return Random(f"{seed}/{name}")


def draw_plan(swarm: Swarm, seed: int) -> Plan:
    """The plan of a seed."""
    knobs = _limits(swarm, stream(seed, "limits"), _knobs(swarm, stream(seed, "knobs")))
    notifier, rmap_lock = stream(seed, "design").choice(swarm.designs)
    knobs = replace(knobs, notifier=notifier, rmap_lock=rmap_lock)
    names = _mix(swarm, stream(seed, "mix"))
    operations = _programs(swarm, seed, knobs, names)
    load_ns = stream(seed, "load").randint(*swarm.times.bounds_ns("load"))
    end = max([load_ns, *(operation.at_ns for operation in operations)])
    return Plan(
        scenario=swarm.name,
        seed=seed,
        knobs=knobs,
        links=_links(swarm, stream(seed, "links"), knobs),
        workloads=names,
        operations=operations,
        faults=draw_injections(swarm, lambda name: stream(seed, f"faults/{name}"), knobs, end),
        load_ns=end,
        forgeries=_forgeries(swarm, seed, knobs, operations, end),
        fifo=[p for p in range(knobs.partitions) if stream(seed, f"fifo/{p}").random() < 0.2],
    )


def _knobs(swarm: Swarm, random: Random) -> Knobs:
    sizes, geometric = swarm.sizes, partial(_geometric, random)
    window = random.randint(*sizes.window), random.randint(*sizes.window)
    return Knobs(
        partitions=geometric(sizes.partitions),
        frames=geometric(sizes.frames),
        swap_pages=geometric(sizes.swap_pages),
        slots=geometric(sizes.slots),
        after=window[0],
        before=window[1],
        batch=geometric(sizes.batch),
        collisions=random.randint(*sizes.collisions),
        inflight=geometric(sizes.inflight),
        scale=random.choice((1, 1, 2)),
    )


def _geometric(random: Random, bounds: Between) -> int:
    """Small ones as likely as large ones."""
    low, high = bounds
    return min(high, int(low * (high / low) ** random.random()))


def _limits(swarm: Swarm, random: Random, knobs: Knobs) -> Knobs:
    """What is the same in most worlds."""
    sizes, geometric = swarm.sizes, partial(_geometric, random)
    return replace(
        knobs,
        threads=geometric(sizes.threads),
        tasks=geometric(sizes.tasks),
        permits=geometric(sizes.permits),
        attachments=geometric(sizes.attachments),
        ranges=geometric(sizes.ranges),
        domains="".join(random.choices(sizes.domains, k=knobs.partitions)) if sizes.domains else "",
        readonly_attach=random.random() < sizes.readonly_attach,
        gru_entries=geometric(sizes.gru_entries),
        gru_asids=geometric(sizes.gru_asids),
    )


def _forgeries(
    swarm: Swarm, seed: int, knobs: Knobs, operations: list[Operation], end: int
) -> list[Forgery]:
    number = stream(seed, "malice").randint(*swarm.faults.malicious)
    forged = [
        forgery
        for n in range(number)
        for forgery in draw_forgeries(
            stream(seed, f"malice/{n}"), operations, knobs.partitions, START_NS, end
        )
    ]
    return sorted(forged, key=lambda forgery: forgery.at_ns)


def _links(swarm: Swarm, random: Random, knobs: Knobs) -> list[LinkLatency]:
    low, high = swarm.times.bounds_ns("latency")
    jitter = random.choice((0, low, high, high))
    return [
        LinkLatency(src, dst, int(low * (high / low) ** (random.random() ** 2)), jitter)
        for src in range(knobs.partitions)
        for dst in range(knobs.partitions)
        if src != dst
    ]


def _mix(swarm: Swarm, random: Random) -> list[str]:
    names = sorted(swarm.workloads)
    weights = [swarm.workloads[name] for name in names]
    return random.choices(names, weights, k=random.choice((1, 1, 2, 2, 3)))


def _programs(swarm: Swarm, seed: int, knobs: Knobs, names: list[str]) -> list[Operation]:
    """All programs side by side, in the order of time."""
    numbers = count(1)
    budget = stream(seed, "budget").randint(*swarm.sizes.operations) // len(names)
    operations: list[Operation] = []
    for place, name in enumerate(names):
        random = stream(seed, f"workload/{place}/{name}")
        script = Script(random, knobs, START_NS, budget, numbers)
        WORKLOADS[name](script)
        operations += script.operations
    return sorted(operations, key=lambda operation: operation.at_ns)


def latency_of(plan: Plan) -> Callable[[int, int], int]:
    """How long each message takes, from one stream for all links."""
    links = {(link.src, link.dst): link for link in plan.links}
    draws = stream(plan.seed, "latency").random

    def of(src: int, dst: int) -> int:
        link = links[src, dst]
        return link.latency_ns + int(link.jitter_ns and draws() * link.jitter_ns)

    return of


def pick_of(plan: Plan) -> "Callable[[int], Callable[[int], int] | None]":
    """The choice among runnable threads of each kernel."""

    def of(partid: int) -> Callable[[int], int] | None:
        if partid in plan.fifo:
            return None
        draws = stream(plan.seed, f"scheduler/{partid}").random
        return lambda runnable: int(draws() * runnable)

    return of
