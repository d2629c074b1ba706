"""fork_begin and fork_end around whatever importers do, and forks that race all of it."""

from xpmem_emu.sim.plan import Op
from xpmem_emu.sim.workloads.calls import one_call, team
from xpmem_emu.sim.workloads.script import Script
from xpmem_emu.units import MILLISECOND

_ENDS = (Op.EXIT, Op.KILL, Op.CLOSE, Op.EXEC)
_RACE_NS = 500_000


def forks(script: Script) -> None:
    """Members of a team say that they fork; the others touch what they have of them meanwhile, or
    begin to once they have said so, and some end in the middle of it."""
    random = script.random
    while script.more():
        members = team(script, 4)
        for _ in range(random.randint(2, 5)):
            member = random.choice(members)
            others = [each for each in members if each.view.export is member.export]
            if random.random() < 0.1:  # what it had is still being recalled
                _say(script, member.task, "xpmem_close")
                _say(script, member.task, "xpmem_open")
            _say(script, member.task, "xpmem_fork_begin")
            script.now_ns += random.choice((0, 1, 6)) * MILLISECOND
            for _ in range(random.randint(1, 4)):
                script.soon(_RACE_NS)
                for other in others:
                    script.touch(other.view, random.choice((Op.LOAD, Op.STORE)))
            if random.random() < 0.4:
                script.do(Op.FORK, task=member.task, made=script.number())
            script.now_ns += random.choice((0, 2, 8)) * MILLISECOND
            if random.random() < 0.15:
                script.do(random.choice(_ENDS), task=member.task)
            _say(script, member.task, "xpmem_fork_end")
            script.soon(4 * MILLISECOND)
            one_call(script, random.choice(members), random.choice((Op.LOAD, Op.STORE, Op.FORK)))
        for member in members:
            script.do(random.choice(_ENDS), task=member.task)
        script.pause()


def _say(script: Script, task: int, call: str) -> None:
    script.do(Op.CALL, task=task, detail=call)
