"""More at once than there is room for: faults in flight, requests on slots, permits, pins."""

from xpmem_emu.sim.plan import Op, RegionKind
from xpmem_emu.sim.workloads.script import Export, Import, Script
from xpmem_emu.units import MILLISECOND

_MOVES = (Op.DONTNEED, Op.MIGRATE, Op.REMAP, Op.MUNMAP, Op.PROTECT)
_RUSH_NS = 200_000
"""Less than a message takes: what begins within it is under way together."""


def rush(script: Script) -> None:
    """Many tasks of one partition want pages of another at the same moment, again and again, while
    those pages are taken back; some are killed while they wait in the crowd."""
    random = script.random
    while script.more():
        home, away = random.sample(range(script.knobs.partitions), 2)
        owners = [script.spawn(home) for _ in range(random.randint(1, 2))]
        users = [script.spawn(away) for _ in range(random.randint(4, 8))]
        script.settle()
        exports = [
            script.export(owner, random.randint(6, 12), RegionKind.PRIVATE) for owner in owners
        ]
        script.settle()
        views = [_enter(script, user, random.choice(exports)) for user in users]
        script.settle()
        for _ in range(random.randint(2, 5)):
            _storm_the_gate(script, exports, views)
            script.now_ns += random.choice((2, 8, 30)) * MILLISECOND
        for user in users:
            if random.random() < 0.5:
                script.do(random.choice((Op.EXIT, Op.KILL)), task=user)


def _enter(script: Script, user: int, export: Export) -> Import:
    return script.attach(user, export, 0, export.pages)


def _storm_the_gate(script: Script, exports: list[Export], views: list[Import]) -> None:
    """Everybody touches a page of its own; what was there before is taken away first."""
    random, begun_ns = script.random, script.now_ns
    for export in exports:
        script.do(Op.DONTNEED, task=export.task, region=export.region, pages=export.pages)
    script.settle()
    begun_ns = script.now_ns
    for number, view in enumerate(views):
        for _ in range(random.randint(1, 3)):
            script.now_ns = begun_ns + random.randrange(_RUSH_NS)
            _one(script, view, (number * 2 + random.randrange(2)) % view.pages)
    for export in exports:
        if random.random() < 0.7:
            script.now_ns = begun_ns + random.randrange(4 * MILLISECOND)
            page, pages = script.part(export)
            script.do(
                random.choice(_MOVES),
                task=export.task,
                region=export.region,
                page=page,
                pages=pages,
                detail=random.choice(("read", "write")),
            )
    script.now_ns = begun_ns + 4 * MILLISECOND


def _one(script: Script, view: Import, page: int) -> None:
    random = script.random
    roll, fatal = random.random(), {}
    if random.random() < 0.08:
        fatal = {"fatal": random.randint(1, 2)}
    if roll < 0.75:
        script.do(
            random.choice((Op.LOAD, Op.STORE)),
            task=view.task,
            page=page,
            attachment=view.attachment,
            word=random.randrange(3),
            **fatal,
        )
    elif roll < 0.9:
        script.do(
            Op.GET, task=view.task, made=script.number(), segment=view.export.segment, **fatal
        )
    else:
        script.do(
            Op.ATTACH,
            task=view.task,
            made=script.number(),
            permit=view.permit,
            page=page,
            pages=1,
            **fatal,
        )
