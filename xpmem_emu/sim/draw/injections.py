"""What may go wrong in a drawn world: faults as texts of the one grammar, crashes and hangs.

Each kind of fault draws from a stream of its own, and many runs have none of a kind: losing
messages alone finds other things than losing everything. Nothing here puts a fault up.

Failpoints only delay for less than any deadline, or fail, unless a swarm is made for pauses and
panics: then the judges are told of each.
"""

from collections.abc import Callable, Iterator
from random import Random

from msgspec.structs import replace

from xpmem_emu.failpoints import POINTS, Context, Point
from xpmem_emu.sim.draw.swarm import Between, Swarm
from xpmem_emu.sim.plan import InjectionKind, Knobs, PlannedInjection
from xpmem_emu.units import MILLISECOND

_KINDS = (
    "",
    "",
    "FAULT",
    "FAULT_REPLY",
    "FAULT_REPLY",
    "INVALIDATE",
    "INVALIDATE_ACK",
    "EVICT",
    "DETACH",
    "DETACH",
    "AMO_REPLY",
    "HEARTBEAT",
    "GET_REPLY",
)
_MESSAGE = ("drop", "duplicate", "delay", "delay", "delay", "reorder", "hold", "corrupt", "replay")
_LINK = ("cut", "flap", "clog", "loss", "latency", "bandwidth", "capacity")
_CUT_MAX_NS = 180 * MILLISECOND
_EDGES = (1 << 31, 1 << 32)
_BAD_MAX = 24
_FAIL_DELAYS = ("yield", "delay(200us)", "delay(3ms)")

_Stream = Callable[[str], Random]


def draw_injections(
    swarm: Swarm, stream: _Stream, knobs: Knobs, end: int
) -> list[PlannedInjection]:
    """The faults of a world whose programs end at `end`, in the order of time."""
    if stream("none").random() < 0.1:
        return []
    bounds = swarm.faults
    counts = stream("counts")
    faults: list[PlannedInjection] = []
    for name, most, make in (
        ("rule", bounds.rules, _rule),
        ("split", bounds.splits, _split),
        ("crash", bounds.crashes, _crash),
        ("hang", bounds.hangs, _hang),
        ("clock", bounds.clocks, _clock),
        ("strain", bounds.strains, _strain),
    ):
        random = stream(name)
        number = counts.randint(*most) if name == "rule" or counts.random() < 0.4 else most[0]
        faults += [make(swarm, random, knobs, end, f"{name}-{n}") for n in range(number)]
    if counts.random() < 0.06:
        faults += _crash_loop(stream("loop"), knobs, end)
    if counts.random() < bounds.poisons:
        faults += _poison(swarm, stream("poison"), knobs, end)
    if counts.random() < 0.25:
        faults += _failpoints(swarm, stream("failpoints"), knobs, end)
    supersedes = stream("supersede")
    for n in range(supersedes.randint(*bounds.supersedes)):
        faults.append(_supersede(swarm, supersedes, knobs, end, f"supersede-{n}"))
    if bounds.pauses or bounds.panics:
        faults += _halts(swarm, stream("pauses"), knobs, end)
    return sorted(faults, key=lambda fault: fault.at_ns)


def _span(random: Random, end: int, most_ns: int) -> Between:
    at_ns = random.randrange(end)
    return at_ns, at_ns + random.randint(10 * MILLISECOND, most_ns)


# -- messages ----------------------------------------------------------------------------------


def _rule(swarm: Swarm, random: Random, knobs: Knobs, end: int, name: str) -> PlannedInjection:
    if random.random() < 0.25:
        return _link_fault(random, knobs, end, name)
    verdict = random.choice(_MESSAGE)
    low, high = swarm.faults.probability
    probability = low * (high / low) ** random.random()
    kind = random.choice(swarm.faults.kinds or _KINDS)
    if kind:
        probability = random.uniform(probability, 0.9)  # one kind alone is rare enough
    words = [_link(random, knobs), verdict]
    if verdict == "delay":
        words += [
            random.choice(("0ns", "100us", "5ms")),
            "--jitter",
            random.choice(("200us", "3ms", "40ms")),
        ]
    if verdict == "reorder":
        words.append(str(random.randint(1, 4)))
    words += ["--match", f"type={kind}"] if kind else []
    at_ns, until_ns = _span(random, end, (800 if verdict == "hold" else 200) * MILLISECOND)
    return PlannedInjection(
        name, at_ns, until_ns, text=" ".join([*words, "--prob", f"{probability:.4f}"])
    )


def _link_fault(random: Random, knobs: Knobs, end: int, name: str) -> PlannedInjection:
    verdict = random.choice(_LINK)
    words = {
        "flap": f"flap {random.randint(2, 60)}ms --up {random.randint(2, 60)}ms",
        "loss": f"loss {random.randint(1, 30)}% --burst {random.randint(1, 8)}",
        "latency": f"latency {random.randint(1, 8)}ms --jitter {random.randint(1, 4)}ms",
        "bandwidth": f"bandwidth {random.randint(64, 4096)}K",
        "capacity": f"capacity {random.randint(1, 16)}",
    }.get(verdict, verdict)
    at_ns, until_ns = _span(random, end, _CUT_MAX_NS)
    return PlannedInjection(name, at_ns, until_ns, text=f"{_link(random, knobs)} {words}")


def _link(random: Random, knobs: Knobs) -> str:
    """Some ways between partitions: of one pair, of one partition, or all."""
    here, there = random.sample(range(knobs.partitions), 2)
    ends = (f"p{here}", f"p{there}"), (f"p{here}", "*"), ("*", f"p{here}"), ("*", "*")
    src, dst = random.choices(ends, (3, 2, 2, 3))[0]
    return f"link {src}{random.choice(('->', '->', '<->'))}{dst}"


def _split(swarm: Swarm, random: Random, knobs: Knobs, end: int, name: str) -> PlannedInjection:
    everybody = [f"p{partid}" for partid in range(knobs.partitions)]
    random.shuffle(everybody)
    kinds = ["split", "isolate", "asymmetric", *(["bridge"] if knobs.partitions > 2 else [])]
    kind = random.choice(kinds)
    cut = random.randint(1, knobs.partitions - (2 if kind == "bridge" else 1))
    first, rest = everybody[:cut], everybody[cut:]
    sides = {"isolate": [first[:1]], "bridge": [first, rest[:1], rest[1:]]}.get(kind, [first, rest])
    at_ns, until_ns = _span(random, end, _CUT_MAX_NS)
    return PlannedInjection(
        name, at_ns, until_ns, text=f"{kind} {'|'.join(','.join(s) for s in sides)}"
    )


# -- partitions --------------------------------------------------------------------------------


def _crash(swarm: Swarm, random: Random, knobs: Knobs, end: int, name: str) -> PlannedInjection:
    at_ns = random.randrange(end)
    return PlannedInjection(
        name,
        at_ns,
        at_ns + random.randint(*swarm.times.bounds_ns("down")),
        InjectionKind.CRASH,
        partid=random.randrange(knobs.partitions),
        proof_ns=random.choice((0, 1_000_000, 250_000_000)),
    )


def _crash_loop(random: Random, knobs: Knobs, end: int) -> Iterator[PlannedInjection]:
    """One partition dies again and again, often before it has any session."""
    at_ns, partid = random.randrange(end), random.randrange(knobs.partitions)
    for number in range(random.randint(3, 6)):
        until_ns = at_ns + random.randint(1, 20) * MILLISECOND
        yield PlannedInjection(
            f"loop-{number}",
            at_ns,
            until_ns,
            InjectionKind.CRASH,
            partid=partid,
            proof_ns=random.choice((0, 500_000)),
        )
        at_ns = until_ns + random.randint(1, 150) * MILLISECOND
        if at_ns >= end:
            return


def _hang(swarm: Swarm, random: Random, knobs: Knobs, end: int, name: str) -> PlannedInjection:
    at_ns = random.randrange(end)
    return PlannedInjection(
        name,
        at_ns,
        at_ns + random.randint(*swarm.times.bounds_ns("hang")),
        InjectionKind.HANG,
        partid=random.randrange(knobs.partitions),
    )


def _supersede(swarm: Swarm, random: Random, knobs: Knobs, end: int, name: str) -> PlannedInjection:
    hang = _hang(swarm, random, knobs, end, name)
    return replace(
        hang,
        trouble=InjectionKind.SUPERSEDE,
        proof_ns=random.choice((0, 0, 1_000_000, 100_000_000)),
    )


def _clock(swarm: Swarm, random: Random, knobs: Knobs, end: int, name: str) -> PlannedInjection:
    who = f"p{random.randrange(knobs.partitions)}"
    text = random.choice(
        (
            f"clock {who} jump {random.randint(1, 400)}ms",
            f"clock {who} skew {random.uniform(-0.5, 1.0):.3f}",
            f"clock {who} freeze",
            f"stall {who}",
            f"throttle {who} {random.randint(10, 200)}us",
        )
    )
    at_ns, until_ns = _span(random, end, _CUT_MAX_NS)
    return PlannedInjection(name, at_ns, until_ns, text=text)


def _strain(swarm: Swarm, random: Random, knobs: Knobs, end: int, name: str) -> PlannedInjection:
    who = f"p{random.randrange(knobs.partitions)}"
    edge = random.choice(_EDGES) - random.randint(1, 12)
    bound = random.choice(
        (f"number {edge}", f"sequence {edge}", f"pin_limit {random.randint(1, 24)}")
    )
    at_ns, until_ns = _span(random, end, _CUT_MAX_NS)
    return PlannedInjection(name, at_ns, until_ns, text=f"strain {who} {bound}")


def _poison(swarm: Swarm, random: Random, knobs: Knobs, end: int) -> Iterator[PlannedInjection]:
    """Many frames of one partition go bad, so that some are in use. Frame 0 does not exist."""
    partid = random.randrange(knobs.partitions)
    at_ns = random.randrange(end)
    until_ns = at_ns + random.randint(*swarm.times.bounds_ns("poison"))
    low = range(1, max(knobs.frames // 4, 32))  # these are handed out first
    for frame in random.sample(low, min(_BAD_MAX, knobs.frames // 4)):
        yield PlannedInjection(
            f"poison-{frame}", at_ns, until_ns, text=f"poison p{partid} {frame:#x}"
        )


def _failpoints(swarm: Swarm, random: Random, knobs: Knobs, end: int) -> Iterator[PlannedInjection]:
    """Each point is armed or not; what is armed fires for some of the time, somewhere."""
    share = swarm.faults.failpoints
    for point in POINTS.values():
        if random.random() < share:
            where = f"p{random.randrange(knobs.partitions)}"
            if random.random() < 0.3:
                where = f"p0-{knobs.partitions - 1}"
            at_ns, until_ns = _span(random, end, _CUT_MAX_NS)
            text = f"{where}:{point.name}={100 * share:g}%{_action(random, point)}"
            yield PlannedInjection(point.name, at_ns, until_ns, text=text)


def _halts(swarm: Swarm, random: Random, knobs: Knobs, end: int) -> Iterator[PlannedInjection]:
    """Threads that stand still at a point for some time, and kernels that panic there."""
    for point in POINTS.values():
        if point.context is not Context.SLEEPS:
            continue
        where = f"p{random.randrange(knobs.partitions)}:{point.name}"
        at_ns, until_ns = _span(random, end, _CUT_MAX_NS)
        pause = f"{random.randint(1, 4)}*pause"
        if random.random() < swarm.faults.pauses:
            yield PlannedInjection(f"pause-{point.name}", at_ns, until_ns, text=f"{where}={pause}")
        elif random.random() < swarm.faults.panics:
            yield PlannedInjection(f"panic-{point.name}", at_ns, until_ns, text=f"{where}=1*panic")


def _action(random: Random, point: Point) -> str:
    """Something that this point can do."""
    possible = ["return"] if point.errno else []
    if point.context is Context.SLEEPS:
        possible.append(random.choice(_FAIL_DELAYS))
    return random.choice(possible)
