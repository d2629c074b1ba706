"""No kind of fault is left out: each is tried in the simulator and on real processes."""

import re
from pathlib import Path

import pytest

from xpmem_emu.inject.injections import Bound, ClockEffect, PaceEffect
from xpmem_emu.inject.rules import Fate, Membership

TESTS = Path(__file__).parents[1]
KINDS = [
    "poison",
    *(kind.value for kinds in (Fate, Membership, ClockEffect, PaceEffect, Bound) for kind in kinds),
]


@pytest.mark.parametrize("folder", ["inject", "live"])
def test_every_kind_of_fault_is_put_up_by_some_test(folder: str) -> None:
    sources = [path for path in (TESTS / folder).glob("*.py") if path != Path(__file__)]
    texts = re.findall(r"\"([^\"\n]*)\"", "\n".join(path.read_text() for path in sources))
    words = {word for text in texts for word in re.split(r"[^a-z_]+", text)}
    assert [kind for kind in KINDS if kind not in words] == []
