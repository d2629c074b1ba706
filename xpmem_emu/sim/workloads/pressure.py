"""More memory than there is: reclaim takes pages from exporters and from everybody else."""

from xpmem_emu.sim.plan import Op, RegionKind
from xpmem_emu.sim.workloads.script import Export, Script


def pressure(script: Script) -> None:
    """Exports that together fill a good part of one partition's memory, touched in bulk."""
    random = script.random
    partid = script.partition()
    hogs = [script.spawn(partid) for _ in range(2)]
    users = [script.spawn(script.partition()) for _ in range(2)]
    script.settle()
    pages = max(4, min(64, script.knobs.frames // 4))
    exports = [
        script.export(hog, pages, random.choice((RegionKind.PRIVATE, RegionKind.FILE)))
        for hog in hogs
    ]
    script.settle()
    imports = script.imports(users, exports)
    while script.more():
        roll = random.random()
        if roll < 0.5:
            _sweep(script, random.choice(exports))
        elif roll < 0.9:
            script.touch(random.choice(imports), random.choice((Op.LOAD, Op.STORE)))
        else:
            script.do(Op.RECLAIM, task=random.choice(hogs), pages=random.randint(1, pages))
        script.pause()


def _sweep(script: Script, export: Export) -> None:
    random = script.random
    first = random.randrange(export.pages)
    script.do(
        random.choice((Op.LOAD, Op.STORE)),
        task=export.task,
        region=export.region,
        page=first,
        pages=min(random.randint(1, 16), export.pages - first),
        word=0,
    )
