"""A process stopped in the middle of a store, given up, and woken: a few rounds of the loop.

`make soak` does a hundred.
"""

import os
import sys
from pathlib import Path

import pytest

from .fence_loop import fence_loop
from .loops import Broken, folders

pytestmark = pytest.mark.live

ROUNDS = 8


@pytest.mark.timeout(300)
def test_a_store_that_wakes_late_changes_no_live_page() -> None:
    print(f"again: python -m tests.live.fence_loop --rounds {ROUNDS} --seed 11")
    done = fence_loop(ROUNDS, seed=11)
    assert len(done) == ROUNDS
    assert any(each.inside for each in done)
    assert all(each.quarantined for each in done)


def test_a_fence_that_moves_nothing_is_seen() -> None:
    broken = (sys.executable, str(Path(__file__).with_name("unfenced_partition.py")))
    with pytest.raises(Broken, match="live memory changed"):
        fence_loop(4, seed=12, command=broken)


def test_the_loop_leaves_the_environment_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/nowhere")
    with folders():
        assert os.environ["XDG_RUNTIME_DIR"] != "/nowhere"
    assert os.environ["XDG_RUNTIME_DIR"] == "/nowhere"
