"""The race of the source thread: a page moves while the answer to a fault on it is under way."""

from xpmem_emu.sim.plan import Op, RegionKind
from xpmem_emu.sim.workloads.script import Script

_MOVES = (Op.DONTNEED, Op.MIGRATE, Op.REMAP, Op.PAGEOUT)


def race(script: Script) -> None:
    """Importers touch a page, and within the time of a message its exporter moves it again and
    again."""
    random = script.random
    owner = script.spawn(script.partition())
    users = [script.spawn(script.partition()) for _ in range(random.randint(1, 4))]
    script.settle()
    export = script.export(owner, random.randint(1, 3), RegionKind.PRIVATE)
    script.settle()
    views = [script.attach(user, export, 0, export.pages) for user in users]
    script.settle()
    while script.more():
        page = random.randrange(export.pages)
        script.do(Op.STORE, task=owner, region=export.region, page=page)
        for view in random.sample(views, random.randint(1, len(views))):
            script.do(Op.LOAD, task=view.task, attachment=view.attachment, page=page)
        for _ in range(random.randint(1, 6)):
            script.now_ns += random.randrange(600_000)
            script.do(random.choice(_MOVES), task=owner, region=export.region, page=page, pages=1)
        script.pause()
