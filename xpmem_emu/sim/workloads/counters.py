"""Counters in uncached memory, changed by atomic operations from everywhere (sources T6)."""

from xpmem_emu.sim.plan import Op, RegionKind
from xpmem_emu.sim.workloads.script import Script

_OPERATIONS = ("add", "add", "add", "fetch", "swap", "compare_swap")


def counters(script: Script) -> None:
    """Word 0 of each page is only ever added to; word 1 sees every operation there is."""
    random = script.random
    owner = script.spawn(script.partition())
    users = [script.spawn(script.partition()) for _ in range(random.randint(2, 4))]
    script.settle()
    export = script.export(owner, random.randint(1, 2), RegionKind.UNCACHED)
    script.settle()
    views = [script.attach(user, export, 0, export.pages) for user in users]
    script.settle()
    while script.more():
        word = random.randrange(2)
        detail = "add" if word == 0 else random.choice(_OPERATIONS)
        page = random.randrange(export.pages)
        if random.random() < 0.2:
            script.do(Op.AMO, task=owner, region=export.region, page=page, word=word, detail=detail)
        else:
            view = random.choice(views)
            script.do(
                Op.AMO,
                task=view.task,
                attachment=view.attachment,
                page=page,
                word=word,
                detail=detail,
            )
        script.pause()
