"""Neighbours in a window of read-ahead: what was asked for is answered, whatever they do."""

from xpmem_emu.sim.plan import Op, RegionKind
from xpmem_emu.sim.workloads.script import WORDS, Export, Import, Script

_CHASES = (Op.REMAP, Op.DONTNEED, Op.MIGRATE)
_MOVES = (Op.REMAP, Op.DONTNEED, Op.MIGRATE, Op.MUNMAP)


def window(script: Script) -> None:
    """Importers touch one page while others of the same segment are replaced again and again."""
    random = script.random
    owner = script.spawn(script.partition())
    users = [script.spawn(script.partition()) for _ in range(random.randint(2, 3))]
    script.settle()
    export = script.export(owner, random.randint(4, 16), RegionKind.PRIVATE)
    script.settle()
    script.do(Op.STORE, task=owner, region=export.region, pages=export.pages)
    views = [script.attach(user, export, 0, export.pages) for user in users]
    script.settle()
    while script.more():
        touched = random.randrange(export.pages)
        others = [page for page in range(export.pages) if page != touched]
        for view in random.sample(views, random.randint(1, len(views))):
            script.do(
                random.choice((Op.LOAD, Op.STORE)),
                task=view.task,
                page=touched,
                attachment=view.attachment,
            )
        if random.random() < 0.3:
            _chase(script, export, views, touched)
        for _ in range(random.randint(2, 8)):
            script.soon(300_000)
            script.do(
                random.choice(_MOVES),
                task=owner,
                region=export.region,
                pages=1,
                page=random.choice(others),
            )
        script.pause()
        script.do(Op.DONTNEED, task=owner, region=export.region, page=touched, pages=1)
        script.pause()


def _chase(script: Script, export: Export, views: list[Import], page: int) -> None:
    """The page itself goes again and again while all want it, so that one answer after the other
    is crossed, and faults wait beside each other."""
    for _ in range(script.random.randint(3, 8)):
        script.soon(500_000)
        script.do(
            script.random.choice(_CHASES),
            task=export.task,
            region=export.region,
            pages=1,
            page=page,
        )
        for view in views:
            script.soon(300_000)
            # Not all of one word: an order of so many loads is not found in reasonable time.
            script.do(
                Op.LOAD,
                task=view.task,
                page=page,
                attachment=view.attachment,
                word=script.random.randrange(WORDS),
            )
