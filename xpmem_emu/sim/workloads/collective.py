"""All-to-all, as an MPI collective does it: every rank maps every other rank's buffer, and walks
the pages in an order of its own (sources T3)."""

from xpmem_emu.sim.plan import Op, RegionKind
from xpmem_emu.sim.workloads.script import Script


def collective(script: Script) -> None:
    """Rounds of: store into the own buffer, then load every page of every other one."""
    random = script.random
    ranks = [script.spawn(partid) for partid in range(min(script.knobs.partitions, 5))]
    script.settle()
    buffers = [script.export(rank, random.randint(2, 4), RegionKind.PRIVATE) for rank in ranks]
    script.settle()
    views = [
        script.attach(rank, buffer, 0, buffer.pages)
        for rank in ranks
        for buffer in buffers
        if buffer.task != rank
    ]
    script.settle()
    while script.more():
        for buffer in buffers:
            script.touch(buffer, Op.STORE)
        script.pause()
        for view in random.sample(views, len(views)):
            for page in random.sample(range(view.pages), view.pages):
                script.do(Op.LOAD, task=view.task, attachment=view.attachment, page=page)
        script.pause()
