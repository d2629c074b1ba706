"""The walks of docs/reading.md as they really went: `python -m tests.walks` prints them.

A walk is every function of the package that one call runs through, in the order in which they were
met first, in all partitions; left out are the simulator, which carries the messages, the client
library, which makes the call, and who watches. A comprehension or a lambda belongs to the function
that it stands in: whether it is a call of its own depends on the version of Python.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from tests.clusters import SMALL
from tests.xpmem.world import PAGE, World
from xpmem_emu.sim.cluster import SimCluster

PACKAGE = Path(__file__).parent.parent / "xpmem_emu"
Walk = list[tuple[str, str]]
"""(file, function)."""


def walked(call: Callable[[], object]) -> Walk:
    """What `call` runs through."""
    met: dict[tuple[str, str], None] = {}

    def note(frame: FrameType, event: str, _argument: object) -> None:
        path = Path(frame.f_code.co_filename)
        inner = frame.f_code.co_name.startswith("<")
        if event == "call" and not inner and path.is_relative_to(PACKAGE):
            file = path.relative_to(PACKAGE)
            if file.parts[0] not in ("sim", "client", "judge"):
                met[str(file), frame.f_code.co_qualname] = None

    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    return list(met)


def walks() -> dict[str, Walk]:
    """A load miss, from the call to the bytes; a munmap, to the last acknowledgement."""
    cluster = SimCluster(2, SMALL)
    cluster.run_until_active()
    world = World(cluster)
    there = world.attached()
    miss = walked(lambda: world.importer.load(there, 8))
    return {"load": miss, "munmap": walked(lambda: world.exporter.munmap(world.base, PAGE))}


def main() -> None:
    """Print both walks."""
    for name, walk in walks().items():
        print(f"{name}: {len(walk)} functions in {len({file for file, _ in walk})} files")
        last = ""
        for file, function in walk:
            if file != last:
                print(f"  {file}")
            print(f"      {function}")
            last = file


if __name__ == "__main__":
    main()
