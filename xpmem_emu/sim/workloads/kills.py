"""Tasks are killed inside of calls, at every place where a call can sleep."""

from xpmem_emu.sim.plan import Op
from xpmem_emu.sim.workloads.calls import Member, one_call, team
from xpmem_emu.sim.workloads.script import Script

_SLEEPS = (1, 1, 1, 2, 2, 3, 4, 6)
_CALLS = (
    Op.MUNMAP,
    Op.MUNMAP,
    Op.PROTECT,
    Op.DONTNEED,
    Op.REMAP,
    Op.MIGRATE,
    Op.PAGEOUT,
    Op.FORK,
    Op.FORK,
    Op.EXEC,
    Op.REMOVE,
    Op.CLOSE,
    Op.RELEASE,
    Op.DETACH,
    Op.ATTACH,
    Op.GET,
    Op.MAKE,
    Op.LOAD,
    Op.STORE,
    Op.CALL,
    Op.EXIT,
    Op.MOVE,
)


def kills(script: Script) -> None:
    """A team shares memory with a bystander of another task; one of the team after the other is
    killed in a call, and what the bystander has goes on."""
    random = script.random
    while script.more():
        members = team(script)
        for member in random.sample(members, random.randint(1, len(members))):
            _kill(script, member)
            for each in members:
                script.touch(each.view, random.choice((Op.LOAD, Op.STORE)))
            script.pause()


def _kill(script: Script, member: Member) -> None:
    """By a signal that comes as the call sleeps, or within the time that a message takes."""
    random = script.random
    op = random.choice(_CALLS)
    if random.random() < 0.3:
        for _ in range(random.randint(0, 2)):
            one_call(script, member, random.choice(_CALLS))
            script.soon(20_000)
    if random.random() < 0.6:
        one_call(script, member, op, fatal=random.choice(_SLEEPS))
        return
    one_call(script, member, op)
    script.soon(random.choice((2_000, 100_000, 3_000_000)))
    script.do(Op.KILL, task=member.task)
