"""Who may do what: owners, groups, modes, permits of both kinds, areas that their owner may not
write, identities that change."""

from xpmem_emu.sim.plan import Op, RegionKind
from xpmem_emu.sim.workloads.script import Export, Import, Script, where

_UIDS = (0, 0, 1000, 1001, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)
_MODES = (0o600, 0o640, 0o644, 0o444, 0o666, 0o060, 0o006, 0o606, 0o000, 0o400)
_FLAGS = (1, 1, 2, 2, 2, 0)
_KINDS = (
    RegionKind.PRIVATE,
    RegionKind.PRIVATE,
    RegionKind.COPY,
    RegionKind.SHARED,
    RegionKind.FILE,
    RegionKind.UNCACHED,
)
_PROTECTIONS = ("read", "read", "none", "write")


def rights(script: Script) -> None:
    """Exporters of every identity and mode; everybody tries to get, map, load and store."""
    random = script.random
    while script.more():
        owners = [_anybody(script) for _ in range(random.randint(1, 2))]
        users = [_anybody(script) for _ in range(random.randint(2, 3))]
        script.settle()
        exports = [
            script.export(owner, random.randint(1, 4), random.choice(_KINDS), random.choice(_MODES))
            for owner in owners
        ]
        script.settle()
        for export in exports:
            script.do(Op.STORE, task=export.task, region=export.region, pages=export.pages)
        views = [_enter(script, user, random.choice(exports)) for user in users]
        script.settle()
        for _ in range(random.randint(4, 12)):
            _try(script, exports, views)
            script.pause()


def _anybody(script: Script) -> int:
    random = script.random
    task = script.spawn(script.partition(), random.choice(_UIDS))
    if random.random() < 0.3:
        script.settle()
        _change(script, task)
    return task


def _change(script: Script, task: int) -> None:
    """setuid, also away from root."""
    random = script.random
    script.do(
        Op.CALL,
        task=task,
        detail="setuid",
        values={"uid": random.choice(_UIDS), "gids": random.sample((0, 7, 1000, 1 << 31), 2)},
    )


def _enter(script: Script, user: int, export: Export) -> Import:
    return script.attach(user, export, 0, export.pages, script.random.choice(_FLAGS))


def _try(script: Script, exports: list[Export], views: list[Import]) -> None:
    random = script.random
    roll, export, view = random.random(), random.choice(exports), random.choice(views)
    page, pages = script.part(export)
    if roll < 0.55:
        script.touch(view, random.choice((Op.LOAD, Op.STORE, Op.STORE)))
    elif roll < 0.62:
        script.do(Op.AMO, task=view.task, attachment=view.attachment, detail="add")
    elif roll < 0.72:
        script.do(
            Op.PROTECT,
            task=export.task,
            region=export.region,
            page=page,
            pages=pages,
            detail=random.choice(_PROTECTIONS),
        )
    elif roll < 0.82:
        _fork(script, export, view)
    elif roll < 0.88:
        _change(script, random.choice((view.task, export.task)))
    elif roll < 0.94:
        views.append(_enter(script, view.task, export))
    else:
        script.touch(export, random.choice((Op.LOAD, Op.STORE)))


def _fork(script: Script, export: Export, view: Import) -> None:
    """A child of an exporter, which may have no right to write at this moment, sees what its
    parent had, whatever importers store from now on."""
    random = script.random
    child = script.number()
    if random.random() < 0.5:
        script.do(
            Op.PROTECT, task=export.task, region=export.region, pages=export.pages, detail="read"
        )
        script.settle()
        script.touch(view, Op.STORE)
        script.soon(2_000_000)
    script.do(Op.FORK, task=export.task, made=child)
    script.settle()
    script.touch(view, Op.STORE)
    script.settle()
    script.do(Op.LOAD, task=child, page=random.randrange(export.pages), **where(export))
