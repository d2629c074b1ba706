"""Every test leaves a kernel whose counts agree, and which is empty once its tasks are gone."""

from collections.abc import Callable, Iterator

import pytest

from xpmem_emu.image import MmSection
from xpmem_emu.mm import exit_mmap, unlink_file

from .rig import Rig


@pytest.fixture
def make_rig() -> Iterator[Callable[..., Rig]]:
    rigs: list[Rig] = []

    def make(frames: int = 256, swap: int = 64, **limits: int) -> Rig:
        rigs.append(Rig(frames, swap, None, MmSection(), **limits))
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
        rig.run(exit_mmap(mm))
    for name in list(rig.memory.files.by_name):
        rig.run(unlink_file(rig.memory, name))
    counts = rig.audit()
    left = {key: value for key, value in counts.items() if value and key != "frames_total"}
    pinned = counts["frames_pinned"]
    assert left == ({"frames_in_use": pinned, "frames_pinned": pinned} if pinned else {})
    assert not rig.memory.owners
    assert not rig.scheduler.threads
