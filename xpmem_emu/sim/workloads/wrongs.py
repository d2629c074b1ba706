"""Calls that must be refused: on what belongs to another task, with modes and lengths that there
are not. Everybody else goes on and must not notice."""

from typing import Any

from xpmem_emu.sim.plan import Op, RegionKind
from xpmem_emu.sim.workloads.script import Export, Import, Script
from xpmem_emu.units import PAGE_SIZE, TASK_SIZE

_MODES = (0o1000, 0o1777, 0o4666, -1)
_SIZES = (0, 1, PAGE_SIZE - 1, PAGE_SIZE + 1, TASK_SIZE + PAGE_SIZE)
_FLAGS = (3, 4, 1 << 31)


def wrongs(script: Script) -> None:
    """Pairs that share; a stranger and the two themselves do what they may not do."""
    random = script.random
    while script.more():
        owner, user = script.spawn(script.partition()), script.spawn(script.partition())
        near = script.spawn(script.partition())
        script.settle()
        export = script.export(owner, random.randint(1, 4), RegionKind.PRIVATE)
        own = script.export(near, 1, RegionKind.SCRATCH)
        script.settle()
        view = script.attach(user, export, 0, export.pages)
        script.settle()
        strangers = [near, owner, script.spawn(script.partition())]
        for _ in range(random.randint(6, 16)):
            _wrong(script, random.choice(strangers), export, own, view)
            if random.random() < 0.5:
                script.touch(random.choice((view, export)), random.choice((Op.LOAD, Op.STORE)))
            script.pause()


def _wrong(script: Script, stranger: int, export: Export, own: Export, view: Import) -> None:
    random = script.random
    call = random.choice(("release", "remove", "attach", "copy", "make", "make", "get"))
    match call:
        case "release":
            script.do(Op.CALL, task=stranger, detail="xpmem_release", permit=view.permit)
        case "remove":
            task = random.choice((stranger, view.task))
            if task != export.task:
                script.do(Op.CALL, task=task, detail="xpmem_remove", segment=export.segment)
        case "attach":
            script.do(
                Op.CALL,
                task=stranger,
                detail="xpmem_attach",
                permit=view.permit,
                values={"offset": 0, "size": PAGE_SIZE, "vaddr": 0},
            )
        case "copy":
            script.do(
                Op.CALL,
                task=stranger,
                detail="xpmem_copy",
                permit=view.permit,
                into=view.permit,
                values={"src_offset": 0, "dst_offset": 0, "size": 8},
            )
        case "make":
            _make(script, own)
        case "get":
            script.do(
                Op.CALL,
                task=own.task,
                detail="xpmem_get",
                segment=export.segment,
                values={"flags": random.choice(_FLAGS)},
            )


def _make(script: Script, own: Export) -> None:
    random = script.random
    values: dict[str, Any] = random.choice(
        (
            {"permit_value": random.choice(_MODES)},
            {"size": random.choice(_SIZES)},
            {"permit_type": random.choice((0, 2))},
        )
    )
    script.do(
        Op.CALL, task=own.task, detail="xpmem_make", region=own.region, pages=1, values=values
    )
