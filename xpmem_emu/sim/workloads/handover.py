"""One attachment takes over from another: what is given back and what is asked for may cross."""

from dataclasses import replace

from xpmem_emu.sim.plan import Kind, Op
from xpmem_emu.sim.workloads.script import Import, Script

_MOVES = (Op.MIGRATE, Op.DONTNEED)


def handover(script: Script) -> None:
    """An importer detaches pages and touches them through its next attachment at once; then they
    move, and whoever still maps them must be known to their home."""
    random = script.random
    owner = script.spawn(script.partition())
    user = script.spawn(script.partition())
    script.settle()
    export = script.export(owner, random.randint(1, 4), Kind.PRIVATE)
    script.settle()
    view = script.attach(user, export, 0, export.pages)
    script.settle()
    while script.more():
        view = _over(script, view)
        pages = {"page": 0, "pages": export.pages}
        script.do(random.choice(_MOVES), task=owner, region=export.region, **pages)
        script.touch(view, random.choice((Op.LOAD, Op.STORE)))
        script.pause()


def _over(script: Script, old: Import) -> Import:
    """Use the old attachment, make a new one, and change over within the time of a message."""
    random = script.random
    new = replace(old, attachment=next(script.numbers))
    script.do(Op.ATTACH, task=new.task, made=new.attachment, permit=new.permit,
              page=new.first, pages=new.pages)  # fmt: skip
    script.touch(old, Op.STORE)
    script.settle()
    script.do(Op.DETACH, task=old.task, attachment=old.attachment)
    for _ in range(random.randint(1, 4)):
        script.touch(new, Op.STORE)
        script.now_ns += random.randrange(800_000)
    return new
