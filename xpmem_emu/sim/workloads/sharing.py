"""Loads and stores of aligned words by exporters and through attachments, at random."""

from xpmem_emu.sim.plan import Op, RegionKind
from xpmem_emu.sim.workloads.script import Area, Script


def sharing(script: Script) -> None:
    """A few exporters, more importers, and everybody touches everything."""
    random = script.random
    owners = [script.spawn(script.partition()) for _ in range(random.randint(1, 3))]
    users = [script.spawn(script.partition()) for _ in range(random.randint(1, 5))]
    script.settle()
    exports = script.exports(
        owners, (RegionKind.PRIVATE, RegionKind.PRIVATE, RegionKind.SHARED, RegionKind.FILE)
    )
    places: list[Area] = [*exports, *script.imports(users, exports)]
    while script.more():
        script.touch(random.choice(places), random.choice((Op.LOAD, Op.STORE)))
        script.pause()
