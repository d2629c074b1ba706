"""Make, get, attach, detach, release and remove, all the time, with accesses in between."""

from dataclasses import replace

from xpmem_emu.sim.plan import Op, RegionKind
from xpmem_emu.sim.workloads.script import Area, Export, Import, Script


def churn(script: Script) -> None:
    """Segments and attachments come and go under those who use them."""
    random = script.random
    tasks = [script.spawn(script.partition()) for _ in range(random.randint(2, 5))]
    script.settle()
    exports = script.exports(tasks[:2], (RegionKind.PRIVATE, RegionKind.SHARED))
    imports = script.imports(tasks, exports)
    while script.more():
        _one(script, tasks, exports, imports)
        script.pause()


def _one(script: Script, tasks: list[int], exports: list[Export], imports: list[Import]) -> None:
    random = script.random
    roll = random.random()
    if roll < 0.35:
        places: list[Area] = [*imports, *exports]
        script.touch(random.choice(places), random.choice((Op.LOAD, Op.STORE)))
    elif roll < 0.45:
        imports.append(_again(script, random.choice(imports)))
    elif roll < 0.62:
        imports += script.imports([random.choice(tasks)], exports[-3:])
    elif roll < 0.75:
        gone = random.choice(imports)
        script.do(Op.DETACH, task=gone.task, attachment=gone.attachment)
    elif roll < 0.87:
        gone = random.choice(imports)
        script.do(Op.RELEASE, task=gone.task, permit=gone.permit)
    elif roll < 0.94:
        old = random.choice(exports)
        script.do(Op.REMOVE, task=old.task, segment=old.segment)
    else:
        exports.append(
            script.export(random.choice(tasks[:2]), random.randint(1, 6), RegionKind.PRIVATE)
        )
        script.settle()


def _again(script: Script, old: Import) -> Import:
    """Attach and detach the same pages at once, then use them: what is given back and what is
    asked for may overtake each other."""
    random = script.random
    new = replace(old, attachment=next(script.numbers))
    script.do(
        Op.ATTACH,
        task=new.task,
        made=new.attachment,
        permit=new.permit,
        page=new.first,
        pages=new.pages,
    )
    script.now_ns += random.randrange(1_500_000)
    script.do(Op.DETACH, task=old.task, attachment=old.attachment)
    for _ in range(5):
        script.now_ns += random.randrange(1_000_000)
        script.touch(new, Op.STORE)
    return new
