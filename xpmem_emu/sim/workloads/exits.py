"""Tasks end in every order: exporter first, importer first, by exit, by kill, by closing."""

from xpmem_emu.sim.plan import Op, RegionKind
from xpmem_emu.sim.workloads.script import Area, Script


def exits(script: Script) -> None:
    """Again and again: an exporter and its importers, some accesses, then all go at random."""
    random = script.random
    while script.more():
        owner = script.spawn(script.partition())
        users = [script.spawn(script.partition()) for _ in range(random.randint(1, 3))]
        script.settle()
        exports = script.exports([owner], (RegionKind.PRIVATE, RegionKind.SHARED))
        places: list[Area] = [*exports, *script.imports(users, exports)]
        for _ in range(random.randint(2, 10)):
            script.touch(random.choice(places), random.choice((Op.LOAD, Op.STORE)))
            script.pause()
        for task in random.sample([owner, *users], len(users) + 1):
            script.do(random.choice((Op.EXIT, Op.KILL, Op.CLOSE)), task=task)
            script.pause()
