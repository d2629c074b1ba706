"""Every test leaves a kernel whose counts agree, and which is empty once its tasks are gone."""

from collections.abc import Callable, Iterator

import pytest

from .rig import Rig


@pytest.fixture
def make_rig() -> Iterator[Callable[..., Rig]]:
    rigs: list[Rig] = []

    def make(**sizes: int) -> Rig:
        rigs.append(Rig(**sizes))
        return rigs[-1]

    yield make
    for rig in rigs:
        finish(rig)


@pytest.fixture
def rig(make_rig: Callable[..., Rig]) -> Rig:
    return make_rig()


def finish(rig: Rig) -> None:
    """Audit, end all tasks and files, audit again: nothing may be left."""
    assert rig.audit()["operations"] == 0
    for mm in list(rig.memory.address_spaces.values()):
        rig.run(mm.exit_mmap())
    for name in list(rig.memory.files.by_name):
        rig.run(rig.memory.files.unlink(name))
    counts = rig.audit()
    left = {key: value for key, value in counts.items() if value and key != "frames_total"}
    pinned = counts["frames_pinned"]
    assert left == ({"frames_in_use": pinned, "frames_pinned": pinned} if pinned else {})
    assert not rig.memory.rmap.owners
    assert not rig.scheduler.threads
