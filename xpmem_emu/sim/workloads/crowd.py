"""More calls than there are places for them: all of them stand still, and whoever heals or ends
something finds a place all the same."""

from xpmem_emu.sim.plan import Op, RegionKind
from xpmem_emu.sim.workloads.held import set_failpoint
from xpmem_emu.sim.workloads.script import Script
from xpmem_emu.units import MILLISECOND

_POINT = "kernel.call.before_answer"


def crowd(script: Script) -> None:
    """A task makes calls until no place is left, because none of them is answered. Then another
    task is killed, and the calls are let go."""
    random = script.random
    while script.more():
        partid = script.partition()
        busy, victim = script.spawn(partid), script.spawn(partid)
        script.settle()
        export = script.export(busy, 1, RegionKind.SCRATCH)
        script.settle()
        set_failpoint(script, busy, "failpoint_set", _POINT, "pause")
        for _ in range(script.knobs.threads):
            script.soon(20_000)
            script.do(Op.CALL, task=busy, region=export.region, pages=1, detail="load")
        script.soon(MILLISECOND)
        script.do(random.choice((Op.KILL, Op.EXIT)), task=victim)
        script.soon(20 * MILLISECOND)
        if random.random() < 0.5:
            set_failpoint(script, busy, "failpoint_resume", _POINT)
        set_failpoint(script, busy, "failpoint_clear", _POINT)
        script.settle()
