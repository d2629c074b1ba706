"""Invalidation storm: everything that makes the exporter's pages move, while others use them."""

from xpmem_emu.sim.plan import Op, RegionKind
from xpmem_emu.sim.workloads.script import Export, Script

_MOVES = (
    Op.MUNMAP,
    Op.REMAP,
    Op.REMAP,
    Op.PROTECT,
    Op.PROTECT,
    Op.DONTNEED,
    Op.DONTNEED,
    Op.PUNCH,
    Op.PAGEOUT,
    Op.PAGEOUT,
    Op.MIGRATE,
    Op.MIGRATE,
    Op.RECLAIM,
    Op.TRUNCATE,
    Op.WRITEBACK,
    Op.FORK,
    Op.FORK,
)


_KINDS = (RegionKind.PRIVATE, RegionKind.SHARED, RegionKind.FILE, RegionKind.UNCACHED)


def storm(script: Script) -> None:
    """Two exporters whose pages never rest, and importers that touch them again and again."""
    random = script.random
    owners = [script.spawn(script.partition()) for _ in range(random.randint(1, 2))]
    users = [script.spawn(script.partition()) for _ in range(random.randint(2, 5))]
    script.settle()
    exports = script.exports(owners, _KINDS)
    imports = script.imports(users, exports)
    children: list[tuple[int, Export]] = []
    while script.more():
        roll = random.random()
        if roll < 0.55:
            script.touch(random.choice(imports), random.choice((Op.LOAD, Op.STORE)))
        elif roll < 0.65:
            script.touch(random.choice(exports), random.choice((Op.LOAD, Op.STORE)))
        else:
            _move(script, random.choice(exports), children)
        script.pause()


def _move(script: Script, export: Export, children: list[tuple[int, Export]]) -> None:
    random = script.random
    op = random.choice(_MOVES)
    page, pages = script.part(export)
    if op is Op.FORK:
        _fork(script, export, children)
    elif op is Op.PROTECT:
        script.do(
            op,
            task=export.task,
            region=export.region,
            page=page,
            pages=pages,
            detail=random.choice(("none", "read", "write", "write")),
        )
    elif op is Op.RECLAIM:
        script.do(op, task=export.task, pages=random.randint(1, 32))
    else:
        script.do(op, task=export.task, region=export.region, page=page, pages=pages)


def _fork(script: Script, export: Export, children: list[tuple[int, Export]]) -> None:
    """Fork, let an older child write its copy, or end one."""
    random = script.random
    if children and random.random() < 0.5:
        child, copied = random.choice(children)
        if random.random() < 0.6:
            script.do(
                Op.STORE,
                task=child,
                region=copied.region,
                page=random.randrange(copied.pages),
                word=1,
            )
        else:
            script.do(Op.EXIT, task=child)
        return
    child = next(script.numbers)
    script.do(Op.FORK, task=export.task, made=child)
    children.append((child, export))
