"""A rig with little room for translations, and each kind of device on it; nothing may be left."""

from collections.abc import Iterator

import pytest

from tests.mm.conftest import finish
from tests.mm.rig import Rig
from xpmem_emu.mm import AddressSpace
from xpmem_emu.mmu.secondary import SecondaryMmu

from .bench import BASE, KINDS, MMU, PAGES, backed


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig(mmu=MMU)
    yield rig
    finish(rig)


@pytest.fixture
def mm(rig: Rig) -> AddressSpace:
    """A task's memory with one mapping."""
    mm = rig.space()
    rig.map(mm, PAGES, address=BASE, fixed=True)
    return mm


@pytest.fixture(params=KINDS)
def device(request: pytest.FixtureRequest, rig: Rig, mm: AddressSpace) -> Iterator[SecondaryMmu]:
    """One of each kind. At the end of a test, as always, what it has is true."""
    device = KINDS[request.param](rig, mm)
    yield device
    assert backed(device)
    rig.audit()
