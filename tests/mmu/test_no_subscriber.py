"""An address space without a subscriber pays nothing for those that others have (sources T7)."""

import sys
from collections import Counter
from types import FrameType

import pytest

from tests.mm.conftest import finish
from tests.mm.rig import RW, Rig
from xpmem_emu.image import MmSection, NotifierDesign
from xpmem_emu.mm import Prot, fork, mprotect, munmap, reclaim_range, store
from xpmem_emu.units import PAGE_SIZE

from .bench import BASE, KINDS, MMU, PAGES


def functions_called(design: NotifierDesign, *, devices_elsewhere: bool) -> Counter[str]:
    """What the kernel goes through for a task to which nobody subscribed, function by function."""
    rig = Rig(mmu=MMU, mm=MmSection(design))
    mine, other = rig.space(1), rig.space(2)
    for mm in (mine, other):
        rig.map(mm, PAGES, address=BASE, fixed=True)
        rig.store(mm, BASE, bytes(PAGES * PAGE_SIZE))
    if devices_elsewhere:
        for kind in ("gru", "guest", "mirror"):
            KINDS[kind](rig, other)
    called: Counter[str] = Counter()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_globals["__name__"].startswith("xpmem_emu."):
            called[f"{frame.f_globals['__name__']}.{frame.f_code.co_qualname}"] += 1

    async def work() -> None:
        await mprotect(mine, BASE, PAGE_SIZE, Prot.READ)
        await mprotect(mine, BASE, PAGE_SIZE, RW)
        await reclaim_range(mine, BASE, PAGE_SIZE, 1)
        await fork(mine, 3)
        await store(mine, BASE + PAGE_SIZE, b"copied")
        await munmap(mine, BASE, PAGES * PAGE_SIZE)

    sys.setprofile(note)
    try:
        rig.run(work())
    finally:
        sys.setprofile(None)
    assert mine.notifiers.calls == 0
    finish(rig)
    return called


@pytest.mark.parametrize("design", list(NotifierDesign))
def test_the_kernel_does_the_same_with_and_without_devices_elsewhere(
    design: NotifierDesign,
) -> None:
    without = functions_called(design, devices_elsewhere=False)
    assert without["xpmem_emu.mm.entries.zap"] > 0
    assert functions_called(design, devices_elsewhere=True) == without
