"""Several calls of one task at a time: every call races with every other one, and with its end."""

from dataclasses import dataclass

from xpmem_emu.sim.plan import Op, RegionKind
from xpmem_emu.sim.workloads.script import Export, Import, Script, where

BURST_NS = 60_000
"""Calls that begin within so much time are under way together: a message takes longer."""
_MEMORY = (
    Op.LOAD,
    Op.STORE,
    Op.STORE,
    Op.MUNMAP,
    Op.REMAP,
    Op.REMAP,
    Op.PROTECT,
    Op.DONTNEED,
    Op.MIGRATE,
    Op.PAGEOUT,
    Op.MOVE,
)
_XPMEM = (Op.DETACH, Op.ATTACH, Op.ATTACH, Op.RELEASE, Op.GET, Op.REMOVE, Op.MAKE, Op.OPEN, Op.CALL)
_ENDS = (Op.EXEC, Op.EXEC, Op.CLOSE, Op.CLOSE, Op.EXIT, Op.KILL)
_CALLS = ("xpmem_fork_begin", "xpmem_fork_end", "zap_page_range", "xpmem_detach")


@dataclass
class Member:
    """A task that exports memory and imports somebody else's."""

    task: int
    export: Export
    view: Import


def team(script: Script, most: int = 3) -> list[Member]:
    """Tasks in a ring: each imports what the one before exports, and holds some of it."""
    random = script.random
    tasks = [script.spawn(script.partition()) for _ in range(random.randint(2, most))]
    script.settle()
    exports = [script.export(task, random.randint(1, 4), RegionKind.PRIVATE) for task in tasks]
    script.settle()
    before = [exports[-1], *exports[:-1]]
    views = [
        script.attach(task, export, 0, export.pages)
        for task, export in zip(tasks, before, strict=True)
    ]
    script.settle()
    for view in views:
        script.do(Op.STORE, task=view.task, pages=view.pages, **where(view))
    script.settle()
    return [Member(*each) for each in zip(tasks, exports, views, strict=True)]


def calls(script: Script) -> None:
    """Teams whose members make a handful of calls at once, until they end in the middle of them."""
    random = script.random
    while script.more():
        members = team(script)
        for _ in range(random.randint(1, 4)):
            _burst(script, random.choice(members), (*_MEMORY, *_XPMEM, Op.FORK))
            script.pause()
        for member in members:
            _burst(script, member, (*_MEMORY, *_XPMEM, *_ENDS, *_ENDS, *_ENDS))
        script.pause()


def _burst(script: Script, member: Member, ops: tuple[Op, ...]) -> None:
    random = script.random
    begun_ns = script.now_ns
    for op in random.choices(ops, k=random.randint(2, 6)):
        script.now_ns = begun_ns + random.randrange(BURST_NS)
        one_call(script, member, op)
    script.now_ns = begun_ns + BURST_NS


def one_call(script: Script, member: Member, op: Op, **more: int) -> None:
    """One call of a member, on what it exports or imports."""
    random = script.random
    task, export, view = member.task, member.export, member.view
    page, pages = script.part(export)
    if op in (Op.LOAD, Op.STORE):
        place = random.choice((export, view))
        script.do(op, task=task, page=random.randrange(place.pages), **where(place), **more)
    elif op is Op.PROTECT:
        script.do(
            op,
            task=task,
            region=export.region,
            page=page,
            pages=pages,
            detail=random.choice(("none", "read", "write")),
            **more,
        )
    elif op is Op.ATTACH:
        script.do(
            op,
            task=task,
            made=script.number(),
            permit=view.permit,
            page=view.first,
            pages=view.pages,
            **more,
        )
    elif op is Op.CALL:
        script.do(
            op, task=task, pages=view.pages, detail=random.choice(_CALLS), **where(view), **more
        )
    elif op in (Op.DETACH, Op.RELEASE):
        script.do(op, task=task, attachment=view.attachment, permit=view.permit, **more)
    elif op in (Op.GET, Op.REMOVE):
        script.do(op, task=task, made=script.number(), segment=export.segment, **more)
    else:
        script.do(
            op,
            task=task,
            made=script.number(),
            region=export.region,
            page=page,
            pages=pages,
            **more,
        )
