"""An engine copies between what other tasks have, while sources go and messages get lost (sources
T18)."""

from xpmem_emu.sim.plan import Op, RegionKind
from xpmem_emu.sim.workloads.script import Area, Import, Script, where
from xpmem_emu.units import MILLISECOND, PAGE_SIZE

_BLOCK_PAGES = 16
"""What one message of the image carries."""
_EASE_NS = 30 * MILLISECOND
"""So slowly that sessions outlive what transfers wait for."""


def transfers(script: Script) -> None:
    """Sources are filled once, each with a value of its own, and then only lose pages; so whoever
    loads a target tells which of them came there last, and whether it came further than it said."""
    random = script.random
    owners = [script.spawn(script.partition()) for _ in range(2)]
    engine = script.spawn(script.partition())
    script.settle()
    pages = random.choice((2, 6, _BLOCK_PAGES + 3))
    sources = [script.export(owner, pages, RegionKind.PRIVATE) for owner in owners]
    target = script.export(random.choice(owners), pages, RegionKind.PRIVATE)
    own = script.export(engine, pages, RegionKind.PRIVATE)
    script.settle()
    for source in sources:
        script.do(Op.STORE, task=source.task, region=source.region, pages=pages)
    views = [script.attach(engine, source, 0, pages) for source in sources]
    targets: list[Area] = [script.attach(engine, target, 0, pages), own]
    script.settle()
    while script.more():
        roll = random.random()
        if roll < 0.45:
            _copy(script, random.choice(views), random.choice(targets))
        elif roll < 0.8:
            script.touch(random.choice(targets), Op.LOAD)
        elif roll < 0.9:
            script.touch(target, random.choice((Op.LOAD, Op.STORE)))
        elif roll < 0.97:
            page, some = script.part(target)
            op = random.choice((Op.MIGRATE, Op.PAGEOUT))
            script.do(op, task=target.task, region=target.region, page=page, pages=some)
        elif pages > 1:
            lost = random.choice(sources)
            script.do(Op.MUNMAP, task=lost.task, region=lost.region, page=pages - 1, pages=1)
        script.pause()
        script.soon(_EASE_NS)


def _copy(script: Script, source: Import, target: Area) -> None:
    size = script.random.choice((8, PAGE_SIZE, source.pages * PAGE_SIZE, source.pages * PAGE_SIZE))
    into = target.attachment if isinstance(target, Import) else target.region
    script.do(Op.BTE, task=source.task, into=into, size=size, **where(source))
