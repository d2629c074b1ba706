"""S13 of calls that must be refused: what nobody may do to others, and what nobody may ask for."""

from contextlib import suppress

import pytest

from xpmem_emu.errors import KernelError
from xpmem_emu.kernel import calls
from xpmem_emu.kernel.calls import Call
from xpmem_emu.sim.mutations.table import mutated
from xpmem_emu.units import PAGE_SIZE, TASK_SIZE

from .judged import World, judged, share


def everything_wrong(world: World) -> None:
    """A stranger of each partition, and an owner who asks for what there is not."""
    shared = share(world.cluster)
    pid, address = shared.exporter.pid, shared.address
    far, near = world.cluster.spawn(0).pid, world.cluster.spawn(1).pid
    wrong: list[tuple[int, Call]] = [
        (1, calls.XpmemAttach(near, shared.apid, 0, PAGE_SIZE)),
        (1, calls.XpmemCopy(near, shared.apid, 0, shared.apid, 8, 8)),
        (1, calls.XpmemRelease(near, shared.apid)),
        (0, calls.XpmemMake(pid, address, PAGE_SIZE, 1, 0o1666)),
        (0, calls.XpmemMake(pid, address, 0)),
        (0, calls.XpmemMake(pid, address, PAGE_SIZE - 1)),
        (0, calls.XpmemMake(pid, address, TASK_SIZE)),
        (0, calls.XpmemGet(pid, shared.segid, 3)),
        (1, calls.XpmemRemove(near, shared.segid)),
        (0, calls.XpmemRemove(far, shared.segid)),
    ]
    for partid, call in wrong:
        with suppress(KernelError):
            world.cluster.call(partid, call)


@pytest.mark.parametrize(
    "mutant",
    [
        "strangers_release",
        "strangers_attach",
        "strangers_remove",
        "odd_mode_taken",
        "empty_segment_made",
        "unaligned_segment_made",
        "segment_beyond_end",
    ],
)
def test_the_judge_sees(mutant: str) -> None:
    with mutated(mutant):
        world = judged()
        everything_wrong(world)
    assert world.invariants == {"S13"}


def test_the_judge_invents_nothing() -> None:
    world = judged()
    everything_wrong(world)
    assert world.invariants == set(), world.said()
