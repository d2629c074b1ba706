"""Private memory stays private: fork, copy on write, exec, mremap and swap, while importers hold
it."""

from xpmem_emu.sim.plan import Op, RegionKind
from xpmem_emu.sim.workloads.script import Export, Import, Script, where
from xpmem_emu.units import MILLISECOND

_KINDS = (
    RegionKind.PRIVATE,
    RegionKind.PRIVATE,
    RegionKind.PRIVATE,
    RegionKind.COPY,
    RegionKind.SCRATCH,
)
_EASE_NS = 12 * MILLISECOND
"""So slowly that a family lives on while its importer is given up."""
_MOVES = (
    Op.PAGEOUT,
    Op.PAGEOUT,
    Op.MIGRATE,
    Op.DONTNEED,
    Op.PROTECT,
    Op.MOVE,
    Op.REMAP,
    Op.RECLAIM,
)


def private(script: Script) -> None:
    """Families of tasks: parents and children each write their own, while importers hold it."""
    random = script.random
    while script.more():
        owner, user = script.spawn(script.partition()), script.spawn(script.partition())
        script.settle()
        export = script.export(owner, random.randint(1, 5), random.choice(_KINDS))
        script.settle()
        script.do(Op.STORE, task=owner, region=export.region, pages=export.pages)
        view = script.attach(user, export, 0, export.pages)
        script.settle()
        family = [owner]
        at_ease = random.random() < 0.5
        for _ in range(random.randint(6, 16)):
            _live(script, export, view, family)
            script.pause()
            script.soon(_EASE_NS if at_ease else 1)
        for child in family[1:]:
            script.do(random.choice((Op.EXIT, Op.KILL, Op.EXEC)), task=child)


def _live(script: Script, export: Export, view: Import, family: list[int]) -> None:
    random = script.random
    roll, task = random.random(), random.choice(family)
    page, pages = script.part(export)
    if roll < 0.2:
        child = script.number()
        script.do(Op.FORK, task=task, made=child)
        family.append(child)
        script.soon(2_000_000)
    elif roll < 0.5:
        script.do(
            random.choice((Op.LOAD, Op.STORE)),
            task=task,
            page=page,
            word=random.randrange(3),
            **where(export),
        )
    elif roll < 0.75:
        script.touch(view, random.choice((Op.LOAD, Op.STORE)))
    elif roll < 0.95 or task == export.task:
        op = random.choice(_MOVES)
        script.do(
            op,
            task=export.task,
            made=script.number(),
            region=export.region,
            page=page,
            pages=pages,
            detail=random.choice(("read", "write", "write")),
        )
        if op is Op.PROTECT:
            script.soon(4 * MILLISECOND)
            script.touch(view, Op.STORE)
    else:
        script.do(Op.EXEC, task=task)
